"""Transcript: WhisperX end to end with a small Whisper whose words are planted."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.curation.audio.sounds import Heard, Shelf, read_mono
from tests.media import noise
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from reelmill.curation.audio.transcript import Transcript, count_words
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.errors import WeightsError

NAMES = ("transcript", "language", "language_probability", "words")
TOKENS = 51_866  # of large-v3
PLAIN = 50_257  # tokens before the special ones, as in the multilingual models
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
WIDTH = 16


def planted_whisper(folder: Path, words: tuple[str, ...], language: str) -> Path:
    """A Whisper of the real architecture that hears `words` in whatever it is given.

    Its decoder's layers add nothing, so the next token hangs on the position alone: position 0
    answers with the language, position 3 (after the four tokens of the prompt) with the first word.
    The folder then holds what CTranslate2's own converter makes of it.
    """
    import torch
    from ctranslate2.converters import TransformersConverter
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

    plain = [f"\u0120{word}" for word in words]  # a space before each, in byte-level BPE
    filler = [f"w{i}" for i in range(PLAIN - len(plain) - 1)]
    every = [*plain, *filler, ""]  # CTranslate2 knows multilingual models by the empty token
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(every)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    source = folder / "source"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(source)
    at = tokenizer.token_to_id

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=TOKENS,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        bos_token_id=at("<|endoftext|>"),
        eos_token_id=at("<|endoftext|>"),
        pad_token_id=at("<|endoftext|>"),
        decoder_start_token_id=at("<|startoftranscript|>"),
    )
    model = WhisperForConditionalGeneration(config)
    answers = {0: f"<|{language}|>"} | {3 + i: token for i, token in enumerate(plain)}
    answers[3 + len(plain)] = "<|endoftext|>"
    decoder = model.model.decoder
    with torch.no_grad():
        layer = decoder.layers[0]
        for last in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            last.weight.zero_()
            last.bias.zero_()
        decoder.embed_positions.weight.zero_()
        decoder.embed_tokens.weight.mul_(1e-4)
        for position, token in answers.items():
            decoder.embed_positions.weight[position, position] = 10
            decoder.embed_tokens.weight[at(token), position] = 3
    model.generation_config._from_model_config = False
    model.generation_config.suppress_tokens = []
    model.generation_config.begin_suppress_tokens = []
    model.generation_config.lang_to_id = {t: at(t) for t in SPECIAL[2:102]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter and of transformers
        model.save_pretrained(source)
        TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(
            str(folder / "whisper")
        )
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    return planted_whisper(tmp_path_factory.mktemp("weights"), ("good", "morning"), "fr")


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Half a minute that silero takes for speech in several spans: buzzing vowels, with pauses."""
    return buzz(31.0)


def buzz(seconds: float) -> np.ndarray:
    """A voice-like buzz at 16 kHz: glottal pulses through three moving formants, float32 [n]."""
    from scipy.signal import lfilter

    rate, rng = 16_000, np.random.default_rng(0)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * t) + 8 * np.sin(2 * np.pi * 3.1 * t)
    phase = np.cumsum(pitch) / rate
    wave = np.diff(np.floor(phase), prepend=0) + 0.02 * rng.standard_normal(n)
    out = np.zeros(n)
    vowels = np.array([[700, 1200, 2500], [300, 2200, 2900], [400, 800, 2300], [550, 1800, 2500]])
    step = rate // 8
    states = [np.zeros(2) for _ in range(3)]
    for index, low in enumerate(range(0, n, step)):
        part = wave[low : low + step]
        for k, centre in enumerate(vowels[index % 4]):
            radius = np.exp(-np.pi * (60 + 40 * k) / rate)
            poles = [1, -2 * radius * np.cos(2 * np.pi * centre / rate), radius**2]
            part, states[k] = lfilter([1 - radius], poles, part, zi=states[k])
        out[low : low + step] = part * (0.15 if index % 24 >= 18 else 1)
    out *= np.where((t % 3) < 2.3, 1, 0.0) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t) ** 2)
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def heard(clips: list[Heard], weights, stage: Transcript | None = None) -> list:
    with (stage or Transcript(beam_size=1)).session(weights) as measure:
        return measure(clips)


def test_planted_words_come_out_of_the_real_pipeline(shelf, spoken, capfd):
    from reelmill.curation.models.silero import SpeechProbability, speech_spans

    speech = SpeechProbability()
    speech.push(spoken)
    assert len(speech_spans(speech.finish(), len(spoken))) > 1
    found = heard([Heard(spoken, {"speech_ratio": 0.7})], Weights(shelf))[0]
    said = found["transcript"].split()
    assert said
    assert said == ["good", "morning"] * (len(said) // 2)
    assert len(said) // 2 == 2  # 31 s of speech: two chunks of at most 30 s
    assert found["words"] == len(said)
    assert found["language"] == "fr"
    assert 0.9 < found["language_probability"] <= 1
    assert capfd.readouterr().out == ""


def test_speech_that_is_not_there_is_not_invented(shelf):
    """The model hears "good morning" in anything, so this is the stage's doing."""
    clips = [
        Heard(noise(2, 16_000)[0], {"speech_ratio": 0.4}),
        Heard(noise(2, 16_000)[0], {"speech_ratio": 0.0}),
        Heard(noise(2, 16_000)[0], {"speech_ratio": NotApplicable("no sound")}),
    ]
    for facts in heard(clips, Weights(shelf)):
        assert {type(facts[name]) for name in NAMES} == {NotApplicable}
    assert [clip.asked for clip in clips] == [1, 0, 0]


def test_without_weights_it_is_not_measured_and_nothing_is_decoded():
    clips = [Heard(noise(1, 16_000)[0], {"speech_ratio": r}) for r in (0.9, 0.0)]
    spoken, mute = heard(clips, Shelf({}))
    assert {type(spoken[name]) for name in NAMES} == {NotMeasured}
    assert spoken["transcript"].why == "weights 'whisper' absent"
    assert {type(mute[name]) for name in NAMES} == {NotApplicable}
    assert [clip.asked for clip in clips] == [0, 0]


def test_a_folder_that_is_no_whisper_says_so(tmp_path, spoken):
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text(json.dumps({}))
    with pytest.raises(WeightsError, match=r"whisper.*converted by CTranslate2"):
        heard([Heard(spoken, {"speech_ratio": 0.9})], Shelf({"whisper": tmp_path}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("And so, my fellow Americans: ask not!", 7),
        ("don't - well-known", 2),
        ("\u5e0c\u671b\u4f60\u3002", 3),
        ("iPhone \u5f88\u597d 15", 4),
    ],
)
def test_words_are_counted_in_scripts_with_and_without_spaces(text, words):
    assert count_words(text) == words


def test_no_bound_is_set_by_default():
    assert {bound.value for bound in Transcript().bounds().values()} == {None}


@pytest.mark.media
def test_real_speech_reaches_the_model(shelf, media):
    clip = Heard(read_mono(media / "audio/whisper_jfk.flac"), {"speech_ratio": 0.7})
    assert heard([clip], Weights(shelf))[0]["transcript"] == "good morning"


def test_singing_is_transcribed_where_a_detector_of_speech_hears_nothing(shelf):
    """Steady noise, which silero takes for no speech: only its class says that it is sung."""
    hum = noise(20, 16_000)[0].astype(np.float32)
    facts = {"speech_ratio": 0.0, "sound_class": "singing"}
    clips = [Heard(hum, facts), Heard(hum, {**facts, "sound_class": "music"})]
    sung, spoken = heard(clips, Weights(shelf))
    assert sung["transcript"] == "good morning"
    assert sung["language"] == "fr"
    assert set(spoken.values()) == {NotApplicable("no speech")}
    assert [clip.asked for clip in clips] == [1, 0]
