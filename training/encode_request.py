"""What is asked of an encoding: of which shards, at which size, with which codecs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelmill.datasets.views import windows_of
from reelmill.errors import UsageError

_DECISIVE = ("channels", "fps", "height", "width", "sizes", "frames", "stride", "dtype", "low")
Size = tuple[int, int]  # height, width


def parse_size(text: str) -> Size:
    """(height, width) of `WIDTHxHEIGHT`. Raises UsageError."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"size {text!r}: WIDTHxHEIGHT in pixels is wanted, such as 96x96.")
    return int(height), int(width)


@dataclass(frozen=True)
class EncodeOptions:
    """shards: folders of curated shards. output: of latent shards.

    fps, height, width: what pictures are resampled and centre-cropped to; sizes: others, (height,
    width), that they are encoded at too. frames: lengths of the buckets, 1 + 4k each; a clip takes
    the longest that it fills. stride: frames between the starts of a clip's windows; those of sound
    alone lie end to end. video_codec, audio_codec, encoder: folders of saved ones; where None, the
    PCA codecs are fitted to these very shards, and captions are hashed. channels: of a fitted video
    codec; a token's width, channels times the cells of a patch, should stay below the model's, or
    it cannot carry the noise that it is to take away. dtype: of stored latents. low: how many times
    smaller a clip is encoded once more, at half the rate, for the Refiner; 0 is not at all. Buckets
    are then 1 + 8k frames. views: a file of `reelmill views`; then its views of this size and rate
    are the windows, and `frames` and `stride` say nothing.
    """

    shards: tuple[Path, ...]
    output: Path
    fps: int = 16
    height: int = 64
    width: int = 64
    frames: tuple[int, ...] = (33, 17)
    stride: int = 8
    video_codec: Path | None = None
    audio_codec: Path | None = None
    encoder: Path | None = None
    channels: int = 4
    dtype: str = "float16"
    low: int = 0
    views: Path | None = None
    sizes: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        if any(n < 1 or (n - 1) % 4 for n in self.frames) or not self.frames:
            raise UsageError(f"frames {self.frames}: each must be 1 more than a multiple of 4.")
        for height, width in self.all_sizes:
            cut = 16 * max(self.low, 1)
            if self.low and (any((n - 1) % 8 for n in self.frames) or height % cut or width % cut):
                raise UsageError(
                    f"frames {self.frames} of {width} x {height} with --low {self.low}: 1 + a "
                    f"multiple of 8 frames, and sides of multiples of {cut}, are wanted."
                )
            if height % 16 or width % 16 or min(height, width) < 16:
                raise UsageError(f"size {width} x {height}: multiples of 16 are wanted.")
        if len(set(self.all_sizes)) <= len(self.sizes):
            raise UsageError(f"sizes {self.all_sizes} name one twice.")
        if min(self.stride, self.fps, self.channels) < 1 or self.dtype not in (
            "float16",
            "float32",
        ):
            raise UsageError(
                f"stride {self.stride}, fps {self.fps}, channels {self.channels}, {self.dtype!r}?"
            )

    @property
    def decisive(self) -> dict[str, Any]:
        """The options that decide what a latent holds, as JSON values."""
        fields = {name: value for name, value in asdict(self).items() if name in _DECISIVE}
        fields |= {"windows": self.windows} if self.views is not None else {}
        return json.loads(json.dumps(fields))

    @property
    def all_sizes(self) -> tuple[Size, ...]:
        return ((self.height, self.width), *self.sizes)

    def windows_in(self, frames: int, *, sound: bool = False) -> list[tuple[int, int]]:
        """(length, start) of the windows of a clip with this many frames, without views. sound: it
        is sound alone."""
        fitting = [n for n in self.frames if n <= frames]
        if frames == 1:
            return [(1, 0)]
        if not fitting or max(fitting) == 1:
            return []
        length = max(fitting)
        stride = length if sound else self.stride
        return [(length, start) for start in range(0, frames - length + 1, stride)]

    def part_of(self, source: str, file: str) -> str:
        """The name of the part that a shard becomes."""
        return f"{source}-{file.removesuffix('.tar')}"

    @property
    def windows(self) -> dict[str, list[tuple[int, int]]]:
        size = (self.height, self.width)
        return windows_of(self.views, size, self.fps) if self.views is not None else {}
