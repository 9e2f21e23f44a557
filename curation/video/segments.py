"""From shots to segments: which neighbours belong together, and where a cut does no harm.

Pure functions over the times of frames. times: seconds [frames + 1], the last being the end of the
last frame. spans: seconds [spans, 2] of speech on the same clock, rising, not touching.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from reelmill.curation.stage import Tracks
from reelmill.datasets.media.decode import MediaInfo

Link = tuple[float, int, int]  # how alike, of which shots
SPEECH_RATE = 16_000
_SLACK = 1e-6


def merged(times: Sequence[float], links: Sequence[Link], most: float | None) -> list[range]:
    """Runs of shots that belong together. times: seconds at which each shot begins, and the end.

    The most alike pair of shots first, and of equals the earliest: all from the one to the other
    become one run when that is no longer than `most` seconds. So the answer does not depend on the
    order of the links.
    """
    runs = [range(k, k + 1) for k in range(len(times) - 1)]
    for _, i, j in sorted(links, key=lambda link: (-link[0], link[1], link[2])):
        first, last = runs[i].start, runs[j].stop
        if most is None or times[last] - times[first] <= most + _SLACK:
            for k in range(first, last):
                runs[k] = range(first, last)
    return sorted(set(runs), key=lambda run: run.start)


def alike(
    edges: Sequence[int], frames: np.ndarray, vectors: np.ndarray, reach: int, least: float
) -> list[Link]:
    """Links of shots whose pictures, on either side of what lies between, are `least` alike.

    edges: first frames of the shots, and the number of all frames. frames: which were embedded,
    rising; vectors: float [samples, d], their embeddings. Compared by the cosine between the mean
    of the last two of one shot and of the first two of a shot up to `reach` further on: 2 finds
    the first face again behind the answer of the second. A shot without a sample has no link.
    """
    ends = np.searchsorted(frames, edges)
    sides: list[tuple[np.ndarray, np.ndarray] | None] = []
    for a, b in pairwise(ends.tolist()):
        some = vectors[a:b].astype(np.float64)
        sides.append((_direction(some[:2]), _direction(some[-2:])) if len(some) else None)
    links = []
    for i, here in enumerate(sides):
        for j in range(i + 1, min(len(sides), i + 1 + reach)):
            there = sides[j]
            if here is not None and there is not None:
                cosine = float(here[1] @ there[0])
                if cosine >= least:
                    links.append((cosine, i, j))
    return links


def _direction(vectors: np.ndarray) -> np.ndarray:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))


def answered(edges: Sequence[int], same: np.ndarray) -> list[Link]:
    """Links of neighbours of which a judge said that they are one scene. same: int [n, 2], the
    first frame of the later one and 0 or 1."""
    yes = {frame for frame, said in same.tolist() if said}
    return [(1.0, k - 1, k) for k, edge in enumerate(edges[1:-1], 1) if edge in yes]


def speech_spans(tracks: Tracks, info: MediaInfo) -> np.ndarray:
    """Where Voice heard speech, in seconds on the container's clock; none without it or sound."""
    found = tracks.get("Voice:speech")
    if found is None or info.audio is None or not len(found):
        return np.zeros((0, 2))
    return np.asarray(found / SPEECH_RATE + info.audio.start_s, np.float64)


def _span_at(spans: np.ndarray, time: float) -> tuple[float, float] | None:
    """The span of speech that a cut at this time would cut in two."""
    at = int(np.searchsorted(spans[:, 0], time)) - 1
    if at < 0 or not spans[at, 0] + _SLACK < time < spans[at, 1] - _SLACK:
        return None
    return float(spans[at, 0]), float(spans[at, 1])


def earlier(times: np.ndarray, end: int, start: int, spans: np.ndarray, slack: float) -> int:
    """An end not inside speech, at most `slack` seconds before `end`; else `end`."""
    if (span := _span_at(spans, times[end])) is None:
        return end
    found = int(np.searchsorted(times, span[0] + _SLACK, "right")) - 1
    near = found > start and times[end] - times[found] <= slack + _SLACK
    return found if near and _span_at(spans, times[found]) is None else end


def later(times: np.ndarray, start: int, end: int, spans: np.ndarray, slack: float) -> int:
    """A start not inside speech, at most `slack` seconds after `start`; else `start`."""
    if (span := _span_at(spans, times[start])) is None:
        return start
    found = int(np.searchsorted(times, span[1] - _SLACK))
    near = found < end and times[found] - times[start] <= slack + _SLACK
    return found if near and _span_at(spans, times[found]) is None else start


def parted(
    times: np.ndarray, start: int, end: int, most: float | None, spans: np.ndarray, slack: float
) -> list[tuple[int, int]]:
    """Equal parts of frames [start, end), none longer than `most` seconds where frames allow.

    Inner edges inside speech move to the nearest frame outside, up to `slack` seconds, where no
    part gets too long by it; where one would, there may be one part more.
    """
    whole = float(times[end] - times[start])
    if most is None or most <= 0 or whole <= most:
        return [(start, end)]
    longest = most + _SLACK
    number = math.ceil(whole / longest)
    while True:
        edges = _equal(times, start, end, number)
        if number >= end - start or np.diff(times[edges]).max() <= longest:
            break
        number += 1
    best = _moved(times, edges, longest, spans, slack)
    if _inside(times, best, spans) and number < end - start:
        more = _moved(times, _equal(times, start, end, number + 1), longest, spans, slack)
        if _inside(times, more, spans) < _inside(times, best, spans):
            best = more
    return list(pairwise(best))


def _equal(times: np.ndarray, start: int, end: int, number: int) -> list[int]:
    targets = times[start] + (times[end] - times[start]) * np.arange(1, number) / number
    inner = np.unique(_nearest(times[: end + 1], targets))
    return [start, *(int(i) for i in inner if start < i < end), end]


def _nearest(times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The first frame at or after each time, half a tick of rounding apart."""
    return np.searchsorted(times, targets - _SLACK)


def _inside(times: np.ndarray, edges: Sequence[int], spans: np.ndarray) -> int:
    """How many inner edges cut speech in two."""
    return sum(_span_at(spans, times[edge]) is not None for edge in edges[1:-1])


def _moved(
    times: np.ndarray, edges: list[int], longest: float, spans: np.ndarray, slack: float
) -> list[int]:
    found = list(edges)
    for k in range(1, len(edges) - 1):
        span = _span_at(spans, times[found[k]])
        if span is None:
            continue
        before = int(np.searchsorted(times, span[0] + _SLACK, "right")) - 1
        after = int(np.searchsorted(times, span[1] - _SLACK))
        between = [i for i in (before, after) if found[k - 1] < i < found[k + 1]]
        for place in sorted(between, key=lambda i: (abs(times[i] - times[found[k]]), i)):
            if (
                _span_at(spans, times[place]) is None
                and abs(times[place] - times[found[k]]) <= slack + _SLACK
                and times[place] - times[found[k - 1]] <= longest
                and times[found[k + 1]] - times[place] <= longest
            ):
                found[k] = place
                break
    return found
