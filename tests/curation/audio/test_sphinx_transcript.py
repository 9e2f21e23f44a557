"""SphinxTranscript: real words from real speech, and none where none are."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.curation.audio.sounds import Heard, Shelf, read_mono
from tests.media import noise

from reelmill.curation.audio.sphinx_transcript import SphinxTranscript, outside
from reelmill.curation.models.sphinx import Word
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.errors import WeightsError

pytestmark = pytest.mark.long

SAID = {  # MEDIA.md
    "audio/whisper_jfk.flac": "And so my fellow Americans ask not what your country can do for "
    "you, ask what you can do for your country.",
    "audio/lj001_0001.wav": "Printing, in the only sense with which we are at present concerned, "
    "differs from most if not from all the arts and crafts represented in the Exhibition",
    "audio/lj001_0002.wav": "in being comparatively modern.",
    "audio/lj001_0005.wav": "the invention of movable metal letters in the middle of the "
    "fifteenth century may justly be considered as the invention of the art of printing.",
    "audio/sr_english.wav": "one two three",
}


def heard(clips: list[Heard], weights=None) -> list:
    with SphinxTranscript().session(weights or Weights()) as measure:
        return measure(clips)


def errors(truth: list[str], found: list[str]) -> int:
    """Words put in, left out or changed."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(truth, 1):
        above, row = row, [i]
        for j, other in enumerate(found, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]


def test_words_outside_speech():
    spans = np.array([[16_000, 32_000], [48_000, 64_000]])
    words = [Word("in", 20_000, 24_000), Word("near", 33_000, 36_000), Word("off", 36_500, 40_500)]
    assert outside(words, spans) == pytest.approx(1 / 3)
    assert outside(words, np.zeros((0, 2))) == 1


def test_no_speech_no_weights():
    sound = noise(1, 16_000)[0]
    quiet = heard([Heard(sound, {"speech_ratio": 0.0})])[0]
    assert {type(v) for v in quiet.values()} == {NotApplicable}
    absent = heard([Heard(sound, {"speech_ratio": 0.5})], Shelf({}))[0]
    assert {type(v) for v in absent.values()} == {NotMeasured}


def test_noise_gives_no_words():
    found = heard([Heard(noise(2, 16_000)[0], {"speech_ratio": 0.5})])[0]
    assert found["sphinx_transcript"] == ""
    assert found["sphinx_words"] == 0
    assert isinstance(found["words_outside_speech"], NotApplicable)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with (
        pytest.raises(WeightsError),
        SphinxTranscript().session(Shelf({"pocketsphinx": tmp_path})),
    ):
        pass


@pytest.mark.slow
@pytest.mark.media
def test_word_errors_on_real_speech(media):
    clips = [Heard(read_mono(media / name), {"speech_ratio": 0.9}) for name in SAID]
    wrong = said = 0
    for facts, text in zip(heard(clips), SAID.values(), strict=True):
        truth = re.findall(r"[a-z']+", text.lower())
        wrong += errors(truth, facts["sphinx_transcript"].split())
        said += len(truth)
        assert facts["words_outside_speech"] <= 0.1
    print(f"word error rate {wrong / said:.3f} over {said} words")
    assert wrong / said <= 0.3
