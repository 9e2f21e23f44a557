"""Shot boundaries, and the clips between them.

The detectors are PySceneDetect's. What they look at is measured once, frame by frame, in the shared
decode; where they then cut is replayed from those scores by PySceneDetect's own classes, so that
another threshold or minimum length needs no new decode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from scenedetect.common import FrameTimecode, Timecode
from scenedetect.detectors import (
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    HistogramDetector,
    ThresholdDetector,
)

from reelmill.curation.stage import (
    Bound,
    Fact,
    Facts,
    FrameAnalyser,
    FrameStage,
    NotApplicable,
    Resources,
    Segmenter,
    Tracks,
    WeightsStore,
    at_least,
    below,
    knob,
)
from reelmill.curation.video.segments import (
    Link,
    alike,
    answered,
    earlier,
    later,
    merged,
    parted,
    speech_spans,
)
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import WeightsError

# Of PySceneDetect 0.7.2, but for adaptive, which is 3.0 there (see Shots).
THRESHOLDS = {
    "content": 27.0,  # mean change of hue, saturation and value, 0 to 255
    "adaptive": 3.2,  # that change over the mean of its four neighbours
    "hash": 0.35,  # share of the bits of a perceptual hash
    "histogram": 0.2,  # 1 - correlation of luma histograms
    "threshold": 12.0,  # mean of B, G, R: cuts amid fades to black
    "transnetv2": 0.5,  # likelihood of a network, its authors' own
}
TRANSNET = "transnetv2"
SMALL = (48, 27)  # width and height that the network takes
CHANGES = frozenset(THRESHOLDS) - {"threshold"}


JOINS = {"none": "", "embedding": "Embedding", "model": "Continuity"}  # the stage that tells


@dataclass(frozen=True, kw_only=True)
class Shots(FrameStage, Segmenter):
    """Cuts an asset into shots, joins those of one scene, and splits what is too long.

    detector: `content`, `adaptive`, `hash`, `histogram` or `threshold`, of PySceneDetect 0.7.2, or
        `transnetv2`, a network that sees fades and dissolves too, and wants its weights.
        Adaptive by default: by PySceneDetect's own benchmark it has the better F1 (BBC 91.6 against
        86.7, AutoShot 73.9 against 69.3), and content sees no cut in black and white.
    threshold: of that detector; None is PySceneDetect's own, but 3.2 for adaptive: at its 3.0,
        fast camera moves pass for cuts.
    min_shot_seconds: cuts closer than this to the last one are not made; shots shorter than this
        stay inside a clip. PySceneDetect's own is 15 frames.
    min_content: adaptive only; the least change of content that may be a cut.
    max_seconds: a longer shot is split into equal parts, at frames. trim: frames left out on both
        sides of every cut, against blends; never the file's own first and last frames.
    min_seconds, max_seconds: 2 to 15 s, section 4, table 1. A shorter shot is a clip all the same,
        and rejected by name.
    join: which neighbouring shots become one clip of several shots, as long as it is no longer than
        `max_seconds`: `none`; `embedding`, those whose pictures on both sides are `min_similarity`
        alike by the stage Embedding, the nearest up to `reach` shots on, so that what lies between
        comes along; `model`, those of which the stage Continuity's model says so. 0.85 is Goku's
        for DINOv2 at 480p. A clip's inner shots are in `shots` of its JSON.
    avoid_speech: seconds by which an edge may move out of speech (Voice, where the recipe has it):
        inwards at a cut, so that no frame of another shot comes in; either way inside a long take.
    max_inner_change: rejects clips that hold a change as large, such as a cut not made; off, since
        the paper wants clips of several shots too.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, shot boundaries by PySceneDetect; table 1, 2 to 15 s"
    adds: ClassVar = (
        Fact("seconds", "s", "Length of the clip.", 0, 20),
        Fact("frames", "frames", "Frames in the clip.", 0, 600, int),
        Fact("inner_change", "", "Largest change between two frames of the clip.", 0, 100),
        Fact("shots", "shots", "Shots in the clip.", 0, 10, int),
    )
    detector: str = "adaptive"
    threshold: Bound = knob(None)
    min_shot_seconds: Bound = knob(0.3)
    min_content: Bound = knob(15.0)
    max_seconds: Bound = knob(15.0)
    trim: Bound = knob(0)
    join: str = "none"
    min_similarity: Bound = knob(0.85)
    reach: Bound = knob(2)
    avoid_speech: Bound = knob(0.5)
    min_seconds: Bound = at_least(2.0, "seconds", "too_short")
    max_inner_change: Bound = below(None, "inner_change", "cut_inside")

    def __post_init__(self) -> None:
        if self.detector not in THRESHOLDS:
            raise ValueError(f"use one of {', '.join(THRESHOLDS)}")
        if self.join not in JOINS:
            raise ValueError(f"join is one of {', '.join(JOINS)}")

    def measuring(self) -> dict[str, Any]:
        """Without `join`, which is a decision."""
        return {name: value for name, value in super().measuring().items() if name != "join"}

    def knobs(self) -> dict[str, Any]:
        return super().knobs() | {"join": self.join}

    def listens(self) -> Mapping[str, bool]:
        found = {"Voice": False} if self.avoid_speech.value else {}
        return found | ({JOINS[self.join]: True} if JOINS[self.join] else {})

    @property
    def resources(self) -> Resources:  # type: ignore[override]
        return Resources(memory_gb=1.5, weights=(TRANSNET,)) if self._learnt else Resources()

    @property
    def _learnt(self) -> bool:
        return self.detector == TRANSNET

    def open_with(self, info: MediaInfo, weights: WeightsStore) -> FrameAnalyser:
        if not self._learnt:
            return self.open(info)
        folder = weights.path(TRANSNET)
        if folder is None:  # a film cannot be left uncut
            raise WeightsError(
                f"Shots.detector is {TRANSNET}, whose weights are absent. Put them under --weights "
                "DIR or REELMILL_WEIGHTS, or choose another detector."
            )
        return _Likelihoods(folder)

    def open(self, info: MediaInfo) -> FrameAnalyser:
        assert not self._learnt, "open_with knows where weights are"
        if self.detector in ("content", "adaptive"):
            return _ContentScores()
        return _OwnScores(self.detector)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        first = clip.start_frame + (not self._learnt)  # a network marks the frame before a cut
        inner = tracks["score"][first : first + clip.end_frame - clip.start_frame - 1]
        change: float | NotApplicable = NotApplicable("a single frame")
        if self.detector not in CHANGES:
            change = NotApplicable("this detector looks at brightness, not at change")
        elif len(inner):
            change = float(inner.max())
        return {
            "seconds": clip.seconds,
            "frames": clip.end_frame - clip.start_frame,
            "inner_change": change,
            "shots": len(clip.cuts) + 1,
        }

    def boundaries(self, tracks: Tracks, info: MediaInfo) -> list[int]:
        return self.cuts(tracks, info)

    def cuts(self, tracks: Tracks, info: MediaInfo) -> list[int]:
        """First frame of every shot but the first, rising."""
        pts, scores = tracks["pts"], tracks["score"]
        if len(pts) < 2 or info.video is None:
            return []
        time_base = info.video.time_base
        rate = Fraction(len(pts) - 1) / (int(pts[-1] - pts[0]) * time_base)
        shortest = float(self.min_shot_seconds.value or 0.0)
        limit = self.threshold.value
        limit = THRESHOLDS[self.detector] if limit is None else limit
        if self._learnt:
            return _spaced(first_frames(scores, limit), pts * float(time_base), shortest)
        if self.detector in ("hash", "histogram"):
            return _spaced(
                np.flatnonzero(scores >= limit).tolist(), pts * float(time_base), shortest
            )
        if self.detector == "threshold":
            fades = ThresholdDetector(threshold=int(limit), min_scene_len=shortest)
            clock = (FrameTimecode(i, fps=rate) for i in range(len(pts)))
            return _replay(fades, clock, scores)
        detector = (
            _Content(threshold=limit, min_scene_len=shortest)
            if self.detector == "content"
            else _Adaptive(
                adaptive_threshold=limit,
                min_scene_len=shortest,
                min_content_val=float(self.min_content.value or 0.0),
            )
        )
        stamps = [Timecode(int(p), time_base) for p in pts - pts[0]]
        return _replay(detector, (FrameTimecode(t, fps=rate) for t in stamps), scores)

    def segment(self, tracks: Tracks, whole: Clip, info: MediaInfo) -> list[Clip]:
        pts = tracks["pts"]
        count = len(pts)
        edges = [0, *self.cuts(tracks, info), count]
        trim = max(0, int(self.trim.value or 0))
        slack = float(self.avoid_speech.value or 0.0)
        ends = np.append(pts, whole.end_pts)
        times = ends * float(whole.time_base)
        spans = speech_spans(tracks, info)
        clips = []
        for run in merged(times[edges].tolist(), self._links(edges, tracks), self._most):
            first, last = edges[run.start], edges[run.stop]
            start = first + trim * (first > 0)
            end = last - trim * (last < count)
            if start >= end:
                start, end = first, last
            start = later(times, start, end, spans, slack) if start > 0 else start
            end = earlier(times, end, start, spans, slack) if end < count else end
            for a, b in parted(times, start, end, self._most, spans, slack):
                inner = [edge for edge in edges[run.start + 1 : run.stop] if a < edge < b]
                clips.append(_span(whole, ends, a, b, inner))
        return clips

    @property
    def _most(self) -> float | None:
        most = self.max_seconds.value
        return None if most is None or most <= 0 else most

    def _links(self, edges: Sequence[int], tracks: Tracks) -> list[Link]:
        """Shots that belong together, as far as anything was measured."""
        if self.join == "model":
            return answered(edges, tracks["Continuity:same"])
        least = self.min_similarity.value
        if self.join == "none" or least is None or "Embedding:vector" not in tracks:
            return []
        frames, vectors = tracks["Embedding:frame"], tracks["Embedding:vector"]
        return alike(edges, frames, vectors, int(self.reach.value or 1), least)


def _span(whole: Clip, ends: np.ndarray, first: int, last: int, inner: Sequence[int]) -> Clip:
    return Clip(
        asset=whole.asset,
        kind=whole.kind,
        start_pts=int(ends[first]),
        end_pts=int(ends[last]),
        time_base=whole.time_base,
        origin_pts=whole.origin_pts,
        start_frame=first,
        end_frame=last,
        cuts=tuple((edge, int(ends[edge])) for edge in inner),
    )


class _ContentScores:
    """ContentDetector's `content_val` at equal weights: one pass over the interleaved HSV."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._now: np.ndarray | None = None
        self._scores: list[float] = []

    def frame(self, frame: Frame) -> None:
        now = cv2.cvtColor(frame.bgr, cv2.COLOR_BGR2HSV, dst=self._now)
        last = self._last
        self._scores.append(0.0 if last is None else cv2.norm(now, last, cv2.NORM_L1) / now.size)
        self._last, self._now = now, last

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return _tracks(self._scores, summary)


class _Likelihoods:
    """TransNetV2's, of the frames at its own size."""

    def __init__(self, folder: Path):
        from reelmill.curation.models.transnet import Windows, loaded  # loads torch

        self._windows = Windows(loaded(folder))

    def frame(self, frame: Frame) -> None:
        small = cv2.resize(frame.bgr, SMALL, interpolation=cv2.INTER_AREA)
        self._windows.push(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return _tracks(self._windows.finish().tolist(), summary)


def first_frames(likely: np.ndarray, threshold: float) -> list[int]:
    """Where shots begin, but the first: after each run of frames above the threshold."""
    above = likely > threshold
    return (np.flatnonzero(above[:-1] & ~above[1:]) + 1).tolist()


class _OwnScores:
    """Scores of the other detectors, as PySceneDetect itself notes them."""

    def __init__(self, detector: str) -> None:
        self._correlates = detector == "histogram"
        self._detector: Any = (
            HistogramDetector()
            if detector == "histogram"
            else HashDetector()
            if detector == "hash"
            else ThresholdDetector()
        )
        self._note = _Note()
        self._detector.stats_manager = self._note

    def frame(self, frame: Frame) -> None:
        self._detector.process_frame(FrameTimecode(frame.index, fps=25.0), frame.bgr)

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        noted = self._note.scores
        scores = [noted.get(i, 0.0) for i in range(len(summary.frame_pts))]
        if self._correlates:
            scores = [1.0 - noted.get(i, 1.0) for i in range(len(summary.frame_pts))]
        return _tracks(scores, summary)


class _Note:
    """Stands where PySceneDetect keeps a StatsManager; keeps one number per frame."""

    def __init__(self) -> None:
        self.scores: dict[int, float] = {}

    def metrics_exist(self, timecode: FrameTimecode, metric_keys: Iterable[str]) -> bool:
        return False

    def set_metrics(self, timecode: FrameTimecode, metric_kv_dict: dict[str, float]) -> None:
        (score,) = metric_kv_dict.values()
        self.scores[timecode.frame_num] = float(score)


class _Stored:
    """Reads a stored score where ContentDetector would measure a picture."""

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: Any) -> float:
        return float(frame_img)


class _Content(_Stored, ContentDetector):
    pass


class _Adaptive(_Stored, AdaptiveDetector):
    pass


def _tracks(scores: Sequence[float], summary: DecodeSummary) -> dict[str, np.ndarray]:
    return {
        "pts": np.asarray(summary.frame_pts, np.int64),
        "score": np.array(scores, np.float64),
    }


def _replay(detector: Any, clock: Iterable[FrameTimecode], scores: np.ndarray) -> list[int]:
    """Indices of the frames that a detector cuts at, when shown the stored scores in order."""
    index: dict[int, int] = {}
    found: set[int] = set()
    for i, (timecode, score) in enumerate(zip(clock, scores, strict=True)):
        index[timecode.pts] = i
        found.update(index[cut.pts] for cut in detector.process_frame(timecode, score))
    return sorted(found - {0})


def _spaced(frames: Sequence[int], seconds: np.ndarray, shortest: float) -> list[int]:
    """Of these frames, each that comes at least `shortest` after the last one taken."""
    taken: list[int] = []
    last = seconds[0]
    for i in frames:
        if i > 0 and seconds[i] - last >= shortest:
            taken.append(i)
            last = seconds[i]
    return taken
