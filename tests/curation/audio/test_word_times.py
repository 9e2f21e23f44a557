"""WordTimes: the likeliest way through a text, against one that is found by trying all states."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.curation.audio.sounds import Heard, Shelf
from tests.media import noise

from reelmill.curation.audio.word_times import WordTimes
from reelmill.curation.models.aligner import RATE, Aligner
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.errors import WeightsError

LETTERS = ["<pad>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small network of the real architecture, random, in the files that transformers writes."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, conv_dim=(16,) * 7, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    network = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        network.lm_head.weight.mul_(50)  # opinions that differ
    path = tmp_path_factory.mktemp("wav2vec2")
    network.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(LETTERS)}))
    return path


@pytest.fixture(scope="module")
def sound():
    return noise(1.0, RATE, seed=5)[0].astype(np.float32)


def best_way(scores: np.ndarray, targets: list[int]) -> tuple[float, list[tuple[int, int]]]:
    """Viterbi over blanks and letters in plain loops: (log probability, frames of each letter)."""
    states = [0]
    for target in targets:
        states += [target, 0]
    best = np.full((len(scores), len(states)), -np.inf)
    came = np.zeros(best.shape, int)
    best[0, 0], best[0, 1] = scores[0, 0], scores[0, states[1]]
    for t in range(1, len(scores)):
        for s, token in enumerate(states):
            ways = [s, s - 1] if s else [s]
            if s > 1 and token and token != states[s - 2]:
                ways.append(s - 2)
            came[t, s] = max(ways, key=lambda w: best[t - 1, w])
            best[t, s] = best[t - 1, came[t, s]] + scores[t, token]
    state = max((len(states) - 1, len(states) - 2), key=lambda s: best[-1, s])
    total, path = best[-1, state], []
    for t in range(len(scores) - 1, -1, -1):
        path.append(state)
        state = came[t, state]
    path.reverse()
    at = [[t for t, s in enumerate(path) if s == 2 * i + 1] for i in range(len(targets))]
    return total, [(frames[0], frames[-1] + 1) for frames in at]


@pytest.mark.parametrize("text", ["a cab", "Hello, hello there!", "bb"])
def test_words_lie_where_the_likeliest_way_puts_them(folder, sound, text):
    model = Aligner(folder)
    found = model(sound, text)
    scores = model.log_probabilities(sound).numpy().astype(np.float64)
    words = ["".join(c for c in w.upper() if c in LETTERS) for w in text.split()]
    targets = [LETTERS.index(c) for c in "|".join(words)]
    _, frames = best_way(scores, targets)
    assert [word.text for word in found] == text.split()
    step, at = len(sound) / len(scores), 0
    for word, letters in zip(found, words, strict=True):
        first, last = frames[at][0], frames[at + len(letters) - 1][1]
        assert (word.first, word.last) == (round(first * step), round(last * step))
        at += len(letters) + 1
    assert all(0 <= a.first < a.last <= b.first for a, b in pairwise(found))
    assert all(0 < word.score <= 1 for word in found)


def test_what_has_no_letters_or_no_room_has_no_times(folder, sound):
    model = Aligner(folder)
    assert model(sound, "\u4f60\u597d 123") is None
    assert model(sound, "long " * 40) is None
    assert model(sound[:100], "a") is None
    assert [word.text for word in model(sound, "12 cats 5")] == ["cats"]


def test_facts_and_those_that_have_none(folder, sound):
    clips = [
        Heard(sound, {"transcript": "a cab"}),
        Heard(sound, {"transcript": "a cab", "sound_class": "singing"}),
        Heard(sound, {"transcript": " "}),
        Heard(sound, {"transcript": NotApplicable("no speech")}),
        Heard(sound, {"transcript": "\u4f60\u597d"}),
    ]
    with WordTimes().session(Shelf({"wav2vec2": folder})) as measure:
        plain, sung, empty, none, other = measure(clips)
    times = json.loads(plain["word_times"])
    assert [word for word, _, _ in times] == ["a", "cab"]
    assert 0 <= times[0][1] < times[0][2] <= times[1][1] < times[1][2] <= 1.0
    assert plain["words_unspoken"] == 1.0  # noise is no speech
    assert isinstance(sung["words_unspoken"], NotApplicable)
    for facts, why in ((empty, "no words"), (none, "no speech"), (other, "cannot be put")):
        assert all(
            isinstance(value, NotApplicable) and why in value.why for value in facts.values()
        )
    assert [clip.asked for clip in clips] == [1, 1, 0, 0, 1]


def test_without_weights_it_is_not_measured_and_strange_ones_are_refused(tmp_path, folder, sound):
    with WordTimes().session(Shelf({})) as measure:
        (facts,) = measure([Heard(sound, {"transcript": "a"})])
    assert set(facts.values()) == {NotMeasured("weights 'wav2vec2' absent")}
    with pytest.raises(WeightsError, match="wav2vec2"):
        Aligner(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "vocab.json").write_text("[]")
    with pytest.raises(WeightsError, match="no object"):
        Aligner(tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "lm_head" not in k},
              tmp_path / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(WeightsError, match="lacks lm_head"):
        Aligner(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="wav2vec2"):
        Aligner(tmp_path)
