"""PocketSphinx: a small speech recogniser for US English that needs no download (BSD-2).

The wheel brings its acoustic model, its dictionary and a trigram model of words. It knows English
only and makes many mistakes: it serves where there is no Whisper, and as a second opinion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from reelmill.curation.models.silero import SpeechProbability, speech_spans
from reelmill.errors import WeightsError

RATE = 16_000
PAD = RATE // 5  # sound on each side of a span that is heard with it
JOIN = RATE // 2  # spans that lie closer are one utterance
_FRAMES_A_SECOND = 100
_SPOKEN = re.compile(r"[a-z'.\-]+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its samples [first, last) at 16 kHz."""

    text: str
    first: int
    last: int


class Sphinx:
    """folder: of the weights entry `pocketsphinx`. Raises WeightsError where it cannot be used."""

    def __init__(self, folder: Path):
        from pocketsphinx import Config, Decoder

        config = Config(
            hmm=str(folder / "en-us"),
            lm=str(folder / "en-us.lm.bin"),
            dict=str(folder / "cmudict-en-us.dict"),
            samprate=float(RATE),
            loglevel="FATAL",
        )
        try:
            self._decoder = Decoder(config)
        except RuntimeError as error:
            raise WeightsError(f"weights 'pocketsphinx' in {folder}: {error}.") from error

    def __call__(self, sound: np.ndarray) -> list[Word]:
        """Words of float32 [n] at 16 kHz, in order; silero-vad says where to listen."""
        heard = SpeechProbability()
        heard.push(sound)
        spans = speech_spans(heard.finish(), len(sound))
        pcm = np.round(np.clip(sound, -1, 1) * 32767).astype("<i2")
        words: list[Word] = []
        for first, last in _utterances(spans, len(sound)):
            words += self._utterance(pcm[first:last], first)
        return words

    def _utterance(self, pcm: np.ndarray, first: int) -> Iterator[Word]:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        step = RATE // _FRAMES_A_SECOND
        for segment in self._decoder.seg() or ():
            text = segment.word.partition("(")[0]  # "the(2)" is another way to say it
            if _SPOKEN.fullmatch(text):
                begin, end = segment.start_frame * step, (segment.end_frame + 1) * step
                yield Word(text, first + begin, first + end)


def _utterances(spans: np.ndarray, samples: int) -> list[tuple[int, int]]:
    if not len(spans):
        return []
    gaps = [b - a >= JOIN for (_, a), (b, _) in pairwise(spans.tolist())]
    breaks = [0, *(i + 1 for i, gap in enumerate(gaps) if gap), len(spans)]
    return [
        (max(0, int(spans[a, 0]) - PAD), min(samples, int(spans[b - 1, 1]) + PAD))
        for a, b in pairwise(breaks)
    ]
