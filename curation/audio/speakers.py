"""Speakers: how many people are heard, who of them when, and who says which words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from reelmill.curation.models.silero import RATE, SpeechProbability, speech_spans
from reelmill.curation.stage import (
    AUDIBLE,
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
    at_most,
)

if TYPE_CHECKING:
    from reelmill.curation.models.speaker import Speaker

_NAMES = ("speakers", "speaker_spans", "speaker_turns")
SHORT_S = 0.5  # shorter pieces found no speaker of their own
MOST_S = 120.0


def pieces(spans: np.ndarray, most: int) -> np.ndarray:
    """int64 [pieces, 2]: spans [n, 2] of samples, each cut evenly into as few of at most `most`."""
    cut = []
    for first, last in spans.tolist():
        count = max(1, -(-(last - first) // most))
        edges = [first + (last - first) * i // count for i in range(count + 1)]
        cut += list(pairwise(edges))
    return np.array(cut, np.int64).reshape(-1, 2)


def clusters(vectors: np.ndarray, max_distance: float) -> np.ndarray:
    """int64 [n]: which speaker each of float [n, size] is, counted from 0 as they first appear.

    Agglomerative, average linkage: the two nearest groups are joined as long as the mean cosine
    distance between their members is at most `max_distance`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows, columns = np.triu_indices(len(unit), 1)
    distances = np.maximum(0, 1 - (unit @ unit.T)[rows, columns])
    found = fcluster(linkage(distances, "average"), max_distance, "distance")
    _, first, groups = np.unique(found, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[groups]


def assign(vectors: np.ndarray, lengths: np.ndarray, max_distance: float) -> np.ndarray:
    """int64 [n]: speakers of pieces. Those shorter than SHORT_S go to the nearest of the others'
    speakers, so that a cough is no person; where all are short, they are told apart all the same.
    """
    long = lengths >= SHORT_S * RATE
    if not long.any():
        long[:] = True
    found = np.empty(len(vectors), np.int64)
    found[long] = clusters(vectors[long], max_distance)
    if not long.all():
        middles = [vectors[long][found[long] == one].mean(axis=0) for one in np.unique(found[long])]
        unit = np.stack([middle / np.linalg.norm(middle) for middle in middles])
        found[~long] = (vectors[~long] @ unit.T).argmax(axis=1)
    _, first, groups = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[groups]


def turns(
    text: str, times: Sequence[tuple[str, float, float]], cut: np.ndarray, who: np.ndarray
) -> list[tuple[int, str]]:
    """(speaker, words) of each turn, in order; together they are the words of `text`.

    times: (word, first second, last second) of those words that have any; a word belongs to the
    piece that its middle is in or nearest to, one without times to the speaker before it.
    """
    speakers: list[int | None] = []
    timed = iter(times)
    following = next(timed, None)
    for word in text.split():
        speaker = None
        if following is not None and word == following[0]:
            middle = (following[1] + following[2]) / 2 * RATE
            away = np.maximum(cut[:, 0] - middle, middle - cut[:, 1])
            speaker, following = int(who[away.argmin()]), next(timed, None)
        speakers.append(speaker)
    known = next((speaker for speaker in speakers if speaker is not None), None)
    found: list[tuple[int, list[str]]] = []
    for word, speaker in zip(text.split(), speakers, strict=True):
        known = known if speaker is None else speaker
        if known is None:
            return []
        if not found or found[-1][0] != known:
            found.append((known, []))
        found[-1][1].append(word)
    return [(speaker, " ".join(words)) for speaker, words in found]


@dataclass(frozen=True, kw_only=True)
class Speakers(ClipStage):
    """Tells the voices of a clip apart, by an x-vector network, and says which words are whose.

    What silero-vad takes for speech is cut into pieces of at most `piece_s`; each is embedded, and
    pieces whose voices are near are one speaker (`clusters`). The distance of 0.14, a cosine
    similarity of 0.86, is a place to start with `wavlm-base-plus-sv`, not chosen on labelled
    voices; another network has another. The folder `xvector` among the weights holds one. People
    who talk at once are heard as one of them. Turns need WordTimes; Caption makes a `<dialogue>` of
    each.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("speech_ratio",)
    reads: ClassVar = ("transcript", "word_times")
    adds: ClassVar = (
        Fact("speakers", "", "People who are heard to speak.", 0, 10, int),
        Fact("speaker_spans", "", "[speaker, first second, last second]: JSON.", dtype=str),
        Fact("speaker_turns", "", "[speaker, words] of each turn: JSON.", dtype=str),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(memory_gb=2.0, weights=("xvector",))
    speech_threshold: float = 0.5
    piece_s: float = 2.0
    max_distance: float = 0.14
    max_speakers: Bound = at_most(None, "speakers", "many_speakers")

    def __post_init__(self) -> None:
        if not (self.piece_s >= SHORT_S and 0 <= self.max_distance <= 2):
            raise ValueError(f"piece_s must be at least {SHORT_S:g}, max_distance from 0 to 2")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("xvector")
        model: Speaker | None = None
        if folder is not None:
            from reelmill.curation.models.speaker import Speaker  # loads torch

            model = Speaker(folder)
        yield lambda clips: [self._facts(clip, model) for clip in clips]

    def _facts(self, media: ClipMedia, model: Speaker | None) -> Facts:
        speech = media.facts["speech_ratio"]
        if isinstance(speech, NoValue):
            return dict.fromkeys(_NAMES, speech)
        if speech == 0:
            return dict.fromkeys(_NAMES, NotApplicable("no speech"))
        if model is None:
            return dict.fromkeys(_NAMES, NotMeasured("weights 'xvector' absent"))
        if media.clip.seconds > MOST_S:
            return dict.fromkeys(_NAMES, NotMeasured(f"longer than {MOST_S:g} s"))
        sound = media.audio(RATE)
        heard = SpeechProbability()
        heard.push(sound)
        spans = speech_spans(heard.finish(), len(sound), threshold=self.speech_threshold)
        if not len(spans):
            return dict.fromkeys(_NAMES, NotApplicable("no speech of 250 ms inside the clip"))
        cut = pieces(spans, round(self.piece_s * RATE))
        vectors = model([sound[first:last] for first, last in cut.tolist()])
        who = assign(vectors, cut[:, 1] - cut[:, 0], self.max_distance)
        named = [
            [f"S{speaker + 1}", round(first / RATE, 3), round(last / RATE, 3)]
            for speaker, (first, last) in zip(who.tolist(), cut.tolist(), strict=True)
        ]
        return {
            "speakers": len(np.unique(who)),
            "speaker_spans": json.dumps(named),
            "speaker_turns": _said(media.facts, cut, who),
        }


def _said(facts: Facts, cut: np.ndarray, who: np.ndarray) -> str | NoValue:
    for name in ("transcript", "word_times"):
        value = facts.get(name, NotMeasured(f"no stage before gives {name}"))
        if isinstance(value, NoValue):
            return value
    times = json.loads(str(facts["word_times"]))
    found = turns(str(facts["transcript"]), times, cut, who)
    if not found:
        return NotApplicable("none of its words has a time")
    return json.dumps([[f"S{one + 1}", words] for one, words in found], ensure_ascii=False)
