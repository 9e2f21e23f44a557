"""Faces: is nobody seen in a clip, one person, or more?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.lips.track import Track, follow, look_height
from reelmill.curation.models.yunet import YuNet
from reelmill.curation.stage import (
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    Resources,
    WeightsStore,
)
from reelmill.datasets.sample import Kind

PEOPLE = ("none", "single", "multi")
POSTER_S = 4.0  # a gallery's poster is the picture after a third of the first 4 s
MOST_BOXES = 8
SURE = 0.8  # score of a face that need not be seen twice
STILL = 3  # looks: fewer tell nothing by repetition


@dataclass(frozen=True, kw_only=True)
class Faces(ClipStage):
    """How many people a clip shows, by their faces (YuNet), `fps` looks a second.

    A face counts that is found in two looks near each other, or with a score of 0.8. `faces` is the
    largest number that is in the picture in `min_share` of the looks at once. The paper tells
    person-free, single and multi person by the first frame (section 3.4); looks all through a clip
    also find who turns to the camera later. Somebody seen only from behind is not found. Nothing is
    rejected by it: it decides the sound's route, see Talking.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    adds: ClassVar = (
        Fact("faces", "people", "People whose faces are seen at once.", 0, 10, int),
        Fact("people", "", "none, single or multi.", dtype=str),
        Fact("face_share", "", "Share of looks with a face."),
        Fact("face_size", "", "Height of the largest face, of the picture's, median."),
        Fact("face_boxes", "", "About each face: left, top, right, bottom, 0 to 1.", dtype=str),
    )
    paper: ClassVar = "section 3.4, synchronisation: person-free, single, multi person"
    resources: ClassVar = Resources(memory_gb=0.7, weights=("face_yunet",))
    fps: float = 2.0
    most_looks: int = 240
    min_share: float = 0.1

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("face_yunet")
        find = None if folder is None else YuNet(folder)

        def measure(clips: Sequence[ClipMedia]) -> list[Facts]:
            if find is None:
                absent = NotMeasured("weights 'face_yunet' absent")
                return [{fact.name: absent for fact in self.adds} for _ in clips]
            return [self._facts(clip, find) for clip in clips]

        yield measure

    def _facts(self, media: ClipMedia, find: YuNet) -> Facts:
        video = media.info.video
        assert video is not None
        fps = min(self.fps, self.most_looks / max(1e-3, media.clip.seconds))
        pictures = media.frames(fps, look_height(video.width, video.height))
        looks = [find(picture) for picture in pictures]
        return self.judge(looks, pictures.shape[2], pictures.shape[1], fps)

    def judge(self, looks: Sequence[np.ndarray], width: int, height: int, fps: float) -> Facts:
        """Facts of `fps` looks a second at pictures of this size, each float [faces, 5]."""
        tracks = [track for track in follow(looks) if _lasts(track, len(looks))]
        seen = np.zeros(len(looks), int)
        for track in tracks:
            seen[track.looks] += 1
        most = int(seen.max(initial=0))
        enough = [k for k in range(1, most + 1) if np.mean(seen >= k) >= self.min_share]
        count = max(enough, default=0)
        largest = np.zeros(len(looks))
        for track in tracks:
            high = (track.boxes[:, 3] - track.boxes[:, 1]) / height
            largest[track.looks] = np.maximum(largest[track.looks], high)
        boxes = self._boxes(tracks, len(looks), width, height, fps)
        nobody = NotApplicable("no face")
        return {
            "faces": count,
            "people": PEOPLE[min(count, 2)],
            "face_share": float(np.mean(seen > 0)),
            "face_size": min(1.0, float(np.median(largest[largest > 0]))) if most else nobody,
            "face_boxes": boxes or nobody,
        }

    @staticmethod
    def _boxes(tracks: Sequence[Track], looks: int, width: int, height: int, fps: float) -> str:
        """Boxes in the look that has faces and lies nearest to the poster."""
        wanted = min(looks / fps, POSTER_S) / 3 * fps
        with_faces = sorted({int(look) for track in tracks for look in track.looks})
        if not with_faces:
            return ""
        at = min(with_faces, key=lambda look: abs(look - wanted))
        found = [track.boxes[track.looks == at][0] for track in tracks if at in track.looks]
        scale = np.array([width, height, width, height])
        rows = [np.clip(box / scale, 0, 1) for box in found[:MOST_BOXES]]
        return "; ".join(" ".join(f"{side:.4f}" for side in row) for row in rows)


def _lasts(track: Track, looks: int) -> bool:
    """Whether it is more than a pattern that looked like a face once."""
    return len(track.looks) > 1 or (looks < STILL) or float(track.scores.max()) >= SURE
