"""By how much speech follows the mouth that speaks it.

A face is found in the picture, its mouth cut out and held still; how open it is, and how much it
moves, is compared with how loud the sound is. Mouths open before they are heard (Chandrasekaran et
al. 2009), so speech that is in time has a lag of 0 to 0.15 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from reelmill.datasets.media.decode import Frame, MediaInfo, decode
from reelmill.errors import WeightsError
from reelmill.evaluation.lag import ENVELOPE_HZ, Lag, best_lag, events

WIDTH = 640  # of the picture that faces are looked for in
MIN_SCORE, MIN_OVERLAP = 0.6, 0.3
EVERY_S = 0.06  # faces are looked for as often, and followed in between
MIN_SHARE = 0.8  # of those looks: else the face is not there all the time
MOST_FACES = 4
PATCH = 48
REACH = 0.3  # of a face's width: half a side of the patch
MIN_FACE = 24  # pixels: of a smaller one, the mouth is a few pixels
HELD_S, SIZE_S = 0.08, 0.16  # a mouth's place and size are smoothed over
DARKEST = 0.26  # share of the inner patch: an open mouth
MAX_LAG_S = 0.8
RANGE_DB = 50.0


@dataclass(frozen=True)
class Face:
    """x, y: middle of the mouth. width: of the face. score: the detector's. In pixels."""

    x: float
    y: float
    width: float
    score: float


class FaceFinder:
    """YuNet (Wu et al. 2023) in OpenCV. Raises WeightsError for a file that is none."""

    def __init__(self, model: Path):
        try:
            self._net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), MIN_SCORE, 0.3, 50)
        except cv2.error as error:
            raise WeightsError(f"{model} is no face detector of OpenCV (YuNet).") from error

    def __call__(self, bgr: np.ndarray) -> list[Face]:
        """Faces of a picture uint8 [h, w, 3], the widest first."""
        self._net.setInputSize(bgr.shape[1::-1])
        _, found = self._net.detect(bgr)
        rows = () if found is None else found
        faces = [Face((r[10] + r[12]) / 2, (r[11] + r[13]) / 2, r[2], r[14]) for r in rows]
        return sorted(faces, key=lambda face: -face.width)[:MOST_FACES]


def mouths(path: Path, info: MediaInfo, find: FaceFinder) -> Iterator[np.ndarray]:
    """uint8 [frames, 48, 48] of each face that is there all the time. Raises MediaError."""
    gray: list[np.ndarray] = []
    looks: list[int] = []
    faces: list[list[Face]] = []
    last = -1.0

    def see(frame: Frame) -> None:
        nonlocal last
        if last < 0 or frame.seconds - last >= EVERY_S:
            last = frame.seconds
            looks.append(len(gray))
            faces.append(find(frame.bgr))
        gray.append(frame.gray)

    decode(path, info, see, width=WIDTH)
    for track in _tracks(faces):
        if len(track) >= MIN_SHARE * len(looks) and len(track) > 1:
            patches = _patches(gray, np.array([looks[i] for i in track]), list(track.values()))
            if patches is not None:
                yield patches


def _tracks(faces: list[list[Face]]) -> list[dict[int, Face]]:
    """Faces of one person: by number of the look. A face follows the nearest before it."""
    tracks: list[dict[int, Face]] = []
    for i, found in enumerate(faces):
        free = list(tracks)
        for face in found:
            near = [(_apart(next(reversed(t.values())), face), t) for t in free]
            least, track = min(near, key=lambda pair: pair[0], default=(np.inf, {}))
            if least < 1:
                track[i] = face
                free = [t for t in free if t is not track]
            else:
                tracks.append({i: face})
    return tracks


def _apart(first: Face, second: Face) -> float:
    """1: half a face's width."""
    return float(np.hypot(first.x - second.x, first.y - second.y) / (0.5 * first.width))


def _patches(gray: list[np.ndarray], at: np.ndarray, faces: list[Face]) -> np.ndarray | None:
    width = np.array([face.width for face in faces])
    if np.median(width) < MIN_FACE:
        return None
    places = np.stack([[face.x for face in faces], [face.y for face in faces], width])
    per_look = np.median(np.diff(at))
    every = np.stack([np.interp(np.arange(len(gray)), at, row) for row in places])
    step = EVERY_S / per_look  # seconds a frame, nearly
    x, y = gaussian_filter1d(every[:2], HELD_S / step, axis=1)
    reach = REACH * gaussian_filter1d(every[2], SIZE_S / step)
    made = []
    for picture, mx, my, r in zip(gray, x, y, reach, strict=True):
        scale = 2 * r / PATCH
        warp = np.array([[scale, 0, mx - r], [0, scale, my - 0.9 * r]])
        flags = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        made.append(
            cv2.warpAffine(picture, warp, (PATCH, PATCH), flags=flags | cv2.WARP_INVERSE_MAP)
        )
    return np.stack(made)


def opening(patches: np.ndarray) -> np.ndarray:
    """float64 [4, frames]: signs of an open mouth, and how much it moves.

    The darkest quarter of the inner patch, all of it, how its rows differ, the change since the
    frame before; all of them less the light of the whole patch.
    """
    whole = patches.astype(np.float64)
    whole -= whole.mean(axis=(1, 2), keepdims=True)
    inner = whole[:, 14:38, 10:38]
    flat = np.sort(inner.reshape(len(inner), -1), axis=1)
    dark = -flat[:, : round(DARKEST * flat.shape[1])].mean(axis=1)
    rows = whole[:, :, 14:34].mean(axis=2).std(axis=1)
    moved = np.abs(np.diff(whole, axis=0, prepend=whole[:1])).mean(axis=(1, 2))
    return np.stack([dark, -inner.mean(axis=(1, 2)), rows, moved])


def loudness(mono: np.ndarray, rate: int) -> np.ndarray:
    """float64 [seconds * 100]: decibels in windows of 40 ms, mean of 8 bands of speech."""
    hop, window = rate / ENVELOPE_HZ, round(0.04 * rate)
    count = int(len(mono) / hop)
    if count < 3:
        return np.zeros(max(0, count))
    padded = np.pad(np.asarray(mono, np.float64), window)
    starts = np.rint((np.arange(count) + 0.5) * hop + window / 2).astype(int)
    power = np.square(
        np.abs(
            np.fft.rfft(padded[starts[:, None] + np.arange(window)] * np.hanning(window), axis=1)
        )
    )
    edges = np.geomspace(100, min(8000, 0.45 * rate), 9)
    bins = np.unique(np.searchsorted(np.fft.rfftfreq(window, 1 / rate), edges))
    level = 10 * np.log10(np.add.reduceat(power, bins, axis=1)[:, :-1] + 1e-12)
    return np.maximum(level, level.max() - RANGE_DB).mean(axis=1)


def lip_lag(
    patches: np.ndarray, times: np.ndarray, end: float, level: np.ndarray, sound_start: float
) -> Lag | None:
    """None where mouth or sound never change. level: `loudness`, from `sound_start` seconds on."""
    if len(patches) != len(times) or len(times) < 3 or not len(level):
        return None
    clock = (np.arange(int(end * ENVELOPE_HZ)) + 0.5) / ENVELOPE_HZ
    heard = np.interp(clock, (np.arange(len(level)) + 0.5) / ENVELOPE_HZ + sound_start, level)
    signs = opening(patches)
    at = [times, times, times, times - np.median(np.diff(times)) / 2]
    seen = np.stack([np.interp(clock, t, sign) for t, sign in zip(at, signs, strict=True)])
    return best_lag(events(seen), events(heard), len(signs), MAX_LAG_S)
