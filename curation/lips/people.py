"""The faces of a clip at 25 frames a second: what Talking and AVSync look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reelmill.curation.lips.crops import crops
from reelmill.curation.lips.track import follow, look_height
from reelmill.curation.models.yunet import YuNet
from reelmill.curation.stage import ClipMedia

FPS = 25
EVERY = 4  # frames between looks
REACH = 0.5  # of a face's width, between looks
MOST_FACES = 4
MIN_SIZE = 24  # pixels: of a smaller face, the mouth is a few pixels
MOST_BYTES = 768 << 20  # of a clip's frames
LEAST_AREA = 200 * 112  # pixels: less, and there would be no lips to see


@dataclass(frozen=True)
class Person:
    """first: frame of the clip. faces: uint8 RGB [frames, 224, 224, 3], one for each frame."""

    first: int
    faces: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.faces)


def frames_of(media: ClipMedia, area: float) -> np.ndarray | None:
    """uint8 RGB [frames, h, w, 3] at 25 a second; None for a clip too long to be held at once."""
    video = media.info.video
    assert video is not None
    area = min(area, MOST_BYTES / 3 / max(1.0, FPS * media.clip.seconds))
    if area < min(LEAST_AREA, video.width * video.height):
        return None
    return media.frames(FPS, look_height(video.width, video.height, area))


def people_of(frames: np.ndarray, find: YuNet, least: int) -> Iterator[Person]:
    """Whoever is seen for at least `least` frames together, those seen longest first, at most 4."""
    looks = [find(frame) for frame in frames[::EVERY]]
    given = 0
    for track in follow(looks, REACH):
        high = track.boxes[:, 3] - track.boxes[:, 1]
        if given == MOST_FACES or np.median(high) < MIN_SIZE or len(track.looks) < 2:
            continue
        first, boxes = track.at_frames(EVERY, len(frames))
        if len(boxes) >= least:
            given += 1
            yield Person(first, crops(frames[first : first + len(boxes)], boxes))
