"""Text in the picture: how much, subtitles, tiny print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.models.text import Line, TextReader
from reelmill.curation.stage import (
    VISUAL,
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
from reelmill.datasets.sample import Kind

SAME = 0.5  # overlap of two lines, of their union, that makes them one line in two frames
LOW = 0.65  # of the height: subtitles stand below
MIDDLE = 0.2  # of the width: how far from the middle a subtitle's middle may be
PLACE = 0.6  # overlap of two boxes, of their union, that makes them one place
MOVED = 0.1  # of the width, by the camera, between two frames that are read
TINY = 0.03  # of the height; outlines have a margin


@dataclass(frozen=True, kw_only=True)
class Text(ClipStage):
    """Lines of text, found and read by PP-OCR in `frames` pictures of a clip.

    A line counts that was read with `min_score`, Open-Sora 2.0's 0.7 for PaddleOCR; that also
    keeps out what only looks like text. `text_share` is the mean share of the picture inside the
    lines' outlines: OpenSora 1.x drops above 0.3, Goku (arXiv 2502.04896) above 0.02 at the lowest
    resolution, which is the bound here, since a short sign in a street has about 0.01. Subtitles
    are lines low in the picture, about its middle, wider than tall, in more than one of the
    frames, or in the only one; they may change their words. Tiny text is lower than 3 % of
    the picture; the paper filters images for it. Two lines of it are allowed. Where the camera
    moves by a tenth of the picture from frame to frame (Camera), lines that keep their place, and
    subtitles, are laid over it, and the others are part of the scene: signs, labels.
    """

    kinds: ClassVar = VISUAL
    paper: ClassVar = "section 3.4, content: text overlay; images: overly small text"
    adds: ClassVar = (
        Fact("text_share", "", "Area of text, of the picture, mean.", 1e-4, 1, log=True),
        Fact("text_lines", "", "Lines of text in a frame, mean.", 0, 20),
        Fact("subtitle_share", "", "Share of frames with a line where subtitles stand.", 0, 1),
        Fact("tiny_lines", "", "Lines of tiny text in a frame, mean.", 0, 20),
        Fact("overlay_text_share", "", "Area of text that stays while the scene moves.", 0, 0.5),
        Fact("scene_text_share", "", "Area of text that moves with the scene.", 0, 0.5),
        Fact("text", "", "The lines of the frame with most text.", dtype=str),
        Fact("text_boxes", "", "Boxes of those lines, as text_box, one for each.", dtype=str),
        Fact("text_box", "", "Around all text: left, top, right, bottom, 0 to 1.", dtype=str),
    )
    reads: ClassVar = ("camera_speed",)
    resources: ClassVar = Resources(memory_gb=1.5, weights=("ppocr",))
    batch_size: ClassVar = 4
    frames: int = 3
    height: int = 480
    still_height: int = 960
    min_score: float = 0.7
    max_text_share: Bound = at_most(0.02, "text_share", "text")
    max_subtitle_share: Bound = at_most(0.5, "subtitle_share", "subtitles")
    max_tiny_lines: Bound = at_most(2.0, "tiny_lines", "tiny_text")
    max_overlay_text_share: Bound = at_most(None, "overlay_text_share", "text_laid_over")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("ppocr")
        read = None if folder is None else TextReader(folder)

        def measure(clips: Sequence[ClipMedia]) -> list[Facts]:
            if read is None:
                absent = NotMeasured("weights 'ppocr' absent")
                return [{fact.name: absent for fact in self.adds} for _ in clips]
            return [self._facts([read(p) for p in self._pictures(clip)], clip) for clip in clips]

        yield measure

    def _pictures(self, media: ClipMedia) -> np.ndarray:
        """About `frames` pictures, evenly spread, at the height given or their own if less."""
        video = media.info.video
        seconds, still = media.clip.seconds, media.clip.kind == Kind.IMAGE
        height = self.still_height if still else self.height
        height = min(height, video.height) if video else height
        fps = 1.0 if still or not seconds else self.frames / seconds
        return media.frames(fps, height)[: self.frames]

    def _facts(self, read: Sequence[Sequence[Line]], media: ClipMedia) -> Facts:
        if not read:
            none = NotApplicable("no frame was sampled")
            return {fact.name: none for fact in self.adds}
        lines = [
            [x for x in frame if x.score >= self.min_score and is_text(x.text)] for frame in read
        ]
        fullest = max(lines, key=lambda frame: sum(line.area for line in frame))
        every = np.array([line.box for frame in lines for line in frame]).reshape(-1, 4)
        without = NotApplicable("no text")
        around = [*every[:, :2].min(axis=0), *every[:, 2:].max(axis=0)] if len(every) else []
        moving = media.clip.kind == Kind.VIDEO
        return {
            "text_share": min(1.0, float(np.mean([sum(x.area for x in f) for f in lines]))),
            "text_lines": float(np.mean([len(frame) for frame in lines])),
            "subtitle_share": subtitle_share(lines) if moving else NotApplicable("a still"),
            "tiny_lines": float(np.mean([sum(map(_tiny, frame)) for frame in lines])),
            **self._laid_over(lines, media),
            "text": "\n".join(line.text for line in fullest) if fullest else without,
            "text_boxes": ";".join(map(_sides, fullest)) if fullest else without,
            "text_box": " ".join(f"{side:.4f}" for side in around) if around else without,
        }

    def _laid_over(self, lines: Sequence[Sequence[Line]], media: ClipMedia) -> Facts:
        """How much text is laid over the picture, where the camera's motion tells."""
        names = ("overlay_text_share", "scene_text_share")
        speed = media.facts.get("camera_speed", NotMeasured("no stage measures the camera"))
        if media.clip.kind != Kind.VIDEO:
            return dict.fromkeys(names, NotApplicable("a still"))
        if isinstance(speed, NoValue):
            return dict.fromkeys(names, speed)
        moved = float(speed) * media.clip.seconds / len(lines)
        if len(lines) < 2 or moved < MOVED:
            return dict.fromkeys(names, NotApplicable("the camera moves too little to tell"))
        return dict(zip(names, (min(1.0, share) for share in laid_over(lines)), strict=True))


def laid_over(frames: Sequence[Sequence[Line]]) -> tuple[float, float]:
    """Mean area of lines that stand where a line stands in another frame, and of the others."""
    still = moved = 0.0
    for i, frame in enumerate(frames):
        others = [line for j, other in enumerate(frames) if j != i for line in other]
        for line in frame:
            kept = any(_same_place(line, one) for one in others) or (
                _subtitle(line) and any(_subtitle(one) and _level(line, one) for one in others)
            )
            still, moved = still + kept * line.area, moved + (not kept) * line.area
    return still / len(frames), moved / len(frames)


def _same_place(a: Line, b: Line) -> bool:
    across = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    down = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    both = max(0.0, across) * max(0.0, down)
    areas = [(x.box[2] - x.box[0]) * (x.box[3] - x.box[1]) for x in (a, b)]
    return both >= PLACE * (sum(areas) - both)


def _sides(line: Line) -> str:
    return " ".join(f"{side:.4f}" for side in line.box)


def is_text(words: str) -> bool:
    """Whether it is more than a shape that looks like a letter: two letters or digits."""
    return sum(map(str.isalnum, words)) >= 2


def subtitle_share(frames: Sequence[Sequence[Line]]) -> float:
    """Share of frames with a line where subtitles stand, of the height that most of them have."""
    low = [[line for line in frame if _subtitle(line)] for frame in frames]
    best = 0
    for line in (line for frame in low for line in frame):
        best = max(best, sum(any(_level(line, other) for other in frame) for frame in low))
    return best / len(frames)


def _subtitle(line: Line) -> bool:
    left, top, right, bottom = line.box
    middle = abs((left + right) / 2 - 0.5)
    return top >= LOW and middle <= MIDDLE and right - left > bottom - top


def _level(a: Line, b: Line) -> bool:
    """Whether two lines stand at one height, whatever their words."""
    both = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    return both >= SAME * (max(a.box[3], b.box[3]) - min(a.box[1], b.box[1]))


def _tiny(line: Line) -> bool:
    return min(line.box[3] - line.box[1], line.box[2] - line.box[0]) < TINY
