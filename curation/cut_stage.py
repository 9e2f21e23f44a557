"""The last stage of every recipe: the cut, and the size of the shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.cut import CutSettings
from reelmill.curation.stage import Bound, Fact, Stage, knob

CROP = ("crop_x", "crop_y", "crop_w", "crop_h")  # facts of Letterbox
SHARE = "picture_share"
CORRECTION = "sync_correction"  # fact of AVSync


@dataclass(frozen=True, kw_only=True)
class Cut(Stage):
    """Cuts each surviving clip frame-accurately, encodes it and proves the written file.

    Last stage of every recipe. Its fields are those of CutSettings; the bounds size the shards.
    crop: to the picture inside its black bars, where `Letterbox` found some and 60 % of the area is
    left; with a smaller rest, as that stage's bound off lets through, nothing is cropped.
    join_seconds: clips of sound of one class are joined up to that length, beside the shards, in
    `joined/audio`; off for none.
    """

    reads: ClassVar = (*CROP, SHARE, CORRECTION)
    adds: ClassVar = (
        Fact("cut_frames", "frames", "Frames in the written file, decoded again.", 0, 500, int),
        Fact("cut_samples", "samples", "Samples in the written file.", 0, 1e6, int),
        Fact("av_offset_ms", "ms", "How much later the sound is than the picture.", -1.0, 1.0),
        Fact("cut_bytes", "bytes", "Size of the written file.", 1e3, 1e8, int, log=True),
        Fact("cut", "", "All that was verified of the written file, as JSON.", dtype=str),
    )
    paper: ClassVar = "section 3.4"
    crf: float = 18.0
    preset: str = "veryfast"
    max_height: int = 1080
    audio_codec: str = "aac"
    audio_bit_rate: int = 192_000
    image_quality: int = 95
    crop: bool = True
    shard_samples: Bound = knob(1000)
    shard_megabytes: Bound = knob(512)
    join_seconds: Bound = knob(None)

    def __post_init__(self) -> None:
        join = self.join_seconds.value
        if join is not None and not 0 < join < 3600:
            raise ValueError(f"join_seconds is {join:g}; it must be above 0 and below 3600")

    @property
    def settings(self) -> CutSettings:
        return CutSettings(**self.measuring())
