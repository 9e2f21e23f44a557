"""Speakers: planted voices told apart, words given to who says them, and a real network loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.audio.sounds import Heard, Shelf, read_mono
from tests.media import noise

from reelmill.curation.audio.speakers import Speakers, assign, clusters, pieces, turns
from reelmill.curation.caption.by_model import merged
from reelmill.curation.caption.compose import composed
from reelmill.curation.caption.evidence import Evidence
from reelmill.curation.caption.structured import take_apart
from reelmill.curation.models.speaker import LEAST_S, RATE, Speaker
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.datasets.sample import Kind
from reelmill.errors import WeightsError

MEDIA = os.environ.get("REELMILL_MEDIA")
CLOSE = 0.14


def voices(who, spread: float, seed: int = 0, size: int = 64) -> np.ndarray:
    """Unit vectors about one direction each, of which no two have anything in common."""
    draw = np.random.default_rng(seed)
    middles = np.linalg.qr(draw.normal(size=(size, 8)))[0].T
    noisy = middles[who] + spread * draw.normal(size=(len(who), size)) / np.sqrt(size)
    return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 99))
def test_planted_voices_are_told_apart_and_counted_as_they_appear(who, seed):
    found = clusters(voices(who, 0.3, seed), CLOSE)
    assert len(set(found.tolist())) == len(set(who))
    assert len(set(zip(found.tolist(), who, strict=True))) == len(set(who))
    firsts = [found.tolist().index(one) for one in range(len(set(who)))]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(("distance", "people"), [(CLOSE - 1e-6, 1), (CLOSE + 1e-6, 2)])
def test_two_voices_on_either_side_of_the_distance(distance, people):
    angle = np.arccos(1 - distance)
    pair = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    assert len(set(clusters(pair, CLOSE).tolist())) == people


def test_a_short_piece_finds_no_speaker_of_its_own():
    vectors = voices([0, 1, 2, 1], 0.0)
    vectors[2] = 0.8 * vectors[1] + 0.6 * vectors[2]  # a cough, most like the second voice
    lengths = np.array([2.0, 2.0, 0.3, 2.0]) * RATE
    assert assign(vectors, lengths, CLOSE).tolist() == [0, 1, 1, 1]
    assert assign(vectors, lengths.clip(RATE), CLOSE).tolist() == [0, 1, 2, 1]
    assert assign(vectors, lengths * 0.1, CLOSE).tolist() == [0, 1, 2, 1]
    first_short = assign(vectors[[2, 0, 1]], lengths[[2, 0, 1]], CLOSE)
    assert first_short.tolist() == [0, 1, 0]


@given(st.lists(st.integers(1, 90_000), max_size=8), st.integers(8_000, 40_000))
def test_pieces_are_the_spans_again(lengths, most):
    ends = np.cumsum(np.array(lengths, np.int64) + 100)
    spans = np.stack([ends - np.array(lengths, np.int64), ends], axis=1).reshape(-1, 2)
    cut = pieces(spans, most)
    assert (cut[:, 1] > cut[:, 0]).all()
    assert (cut[:, 1] - cut[:, 0]).max(initial=0) <= most
    borders = {*spans.ravel().tolist()}
    joined = [edge for edge in cut.ravel().tolist() if edge in borders]
    assert joined == spans.ravel().tolist()
    assert (cut[:, 1] - cut[:, 0]).sum() == sum(lengths)


def test_each_word_belongs_to_who_says_it():
    cut = np.array([[0, 1], [1, 2], [3, 4]]) * RATE
    text = "5 cats sat . Who? me"
    times = [("cats", 0.2, 0.6), ("sat", 0.9, 1.3), ("Who?", 2.6, 2.9), ("me", 3.2, 3.4)]
    found = turns(text, times, cut, np.array([0, 1, 0]))
    assert found == [(0, "5 cats"), (1, "sat ."), (0, "Who? me")]
    assert turns(text, times, cut, np.array([0, 0, 0])) == [(0, text)]
    assert turns("5", [], cut, np.array([0, 1, 0])) == []


FACTS = {
    "speech_ratio": 0.5,
    "sound_class": "speech",
    "transcript": "Yes. Yes. No",
    "speakers": 2,
    "speaker_turns": json.dumps([["S1", "Yes."], ["S2", "Yes."], ["S1", "No"]]),
}


def test_a_caption_has_one_dialogue_for_each_turn():
    known = Evidence.of(FACTS, 0.2)
    told, parts = take_apart(composed(Kind.AUDIO, known).structured)
    assert [part.words for part in parts if part.tag == "dialogue"] == ["Yes.", "Yes.", "No"]
    assert "2 people" in told
    said = merged({"short": "Two talk.", "long": "They <dialogue>Maybe</dialogue>"}, None, known)
    _, parts = take_apart(said.structured)
    assert [part.words for part in parts if part.tag == "dialogue"] == ["Yes.", "Yes.", "No"]
    assert len(said.removed) == 1


def test_turns_that_are_not_the_transcript_are_not_said():
    known = Evidence.of({**FACTS, "transcript": "Yes. No"}, 0.2)
    _, parts = take_apart(composed(Kind.AUDIO, known).structured)
    assert [part.words for part in parts if part.tag == "dialogue"] == ["Yes. No"]


@pytest.fixture(scope="module", params=["wavlm", "wav2vec2"])
def folder(request, tmp_path_factory):
    """A small network of the real architecture, random, in the files that transformers writes."""
    import transformers

    torch.manual_seed(0)
    config, network = {
        "wavlm": (transformers.WavLMConfig, transformers.WavLMForXVector),
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForXVector),
    }[request.param]
    path = tmp_path_factory.mktemp(request.param)
    network(
        config(
            vocab_size=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, conv_dim=(16,) * 7, num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2, tdnn_dim=(16,) * 5, xvector_output_dim=24,
        )
    ).save_pretrained(path)  # fmt: skip
    (path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    return path


def test_embeddings_are_the_networks_own(folder):
    from transformers import AutoModelForAudioXVector

    sounds = [noise(s, RATE, seed=i)[0].astype(np.float32) for i, s in enumerate((1.0, 0.7))]
    found = Speaker(folder)(sounds)
    network = AutoModelForAudioXVector.from_pretrained(folder).eval()
    with torch.no_grad():
        truth = torch.cat([network(torch.from_numpy(s)[None]).embeddings for s in sounds])
    np.testing.assert_allclose(
        found, torch.nn.functional.normalize(truth, dim=1).numpy(), atol=1e-5
    )
    short = sounds[1][: RATE // 10]
    twice = np.tile(short, round(LEAST_S * 10))
    np.testing.assert_allclose(*Speaker(folder)([short, twice]), atol=1e-5)


def test_weights_that_are_missing_are_not_made_up(tmp_path, folder):
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "feature_extractor.weight" not in k},
              tmp_path / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(WeightsError, match="lacks feature_extractor"):
        Speaker(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="xvector"):
        Speaker(tmp_path)


def test_without_weights_and_without_speech(folder):
    sound = noise(1.0, RATE)[0].astype(np.float32)
    clips = [
        Heard(sound, {"speech_ratio": 0.5}),
        Heard(sound, {"speech_ratio": 0.0}),
        Heard(sound, {"speech_ratio": NotApplicable("no sound")}),
    ]
    with Speakers().session(Shelf({})) as measure:
        absent, none, silent = measure(clips)
    assert set(absent.values()) == {NotMeasured("weights 'xvector' absent")}
    assert set(none.values()) == {NotApplicable("no speech")}
    assert set(silent.values()) == {NotApplicable("no sound")}
    with Speakers().session(Shelf({"xvector": folder})) as measure:
        (unheard,) = measure(clips[:1])  # noise, which the VAD hears no speech in
    assert {type(value) for value in unheard.values()} == {NotApplicable}
    with pytest.raises(ValueError, match="piece_s"):
        Speakers(piece_s=0.1)


@pytest.mark.media
@pytest.mark.skipif(MEDIA is None, reason="REELMILL_MEDIA is not set")
def test_real_speech_is_cut_where_the_vad_hears_it(folder):
    sound = read_mono(Path(str(MEDIA)) / "audio/lj001_0001.wav")
    words = "Printing in the only sense"
    times = [[word, i + 0.5, i + 0.9] for i, word in enumerate(words.split())]
    facts = {"speech_ratio": 0.9, "transcript": words, "word_times": json.dumps(times)}
    with Speakers(max_distance=2.0).session(Shelf({"xvector": folder})) as measure:
        one, untimed = measure([Heard(sound, facts), Heard(sound, {"speech_ratio": 0.9})])
    assert one["speakers"] == 1
    assert json.loads(one["speaker_turns"]) == [["S1", words]]
    spans = json.loads(one["speaker_spans"])
    assert sum(last - first for _, first, last in spans) > 7
    assert all(0.2 < last - first <= 2.001 for _, first, last in spans)
    assert isinstance(untimed["speaker_turns"], NotMeasured)
    with Speakers(max_distance=0.0).session(Shelf({"xvector": folder})) as measure:
        (many,) = measure([Heard(sound, facts)])
    assert many["speakers"] == len(spans)
