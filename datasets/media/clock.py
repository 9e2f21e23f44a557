"""One clock for picture and sound: which samples sound while a clip is on screen."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError

if TYPE_CHECKING:
    from reelmill.datasets.media.decode import MediaInfo


def sound_span(clip: Clip, info: MediaInfo, rate: int | None = None) -> tuple[int, int]:
    """Samples [first, last) that cover a clip, counted from the first sample of the sound stream.

    rate: Hz of the samples that are counted; the stream's own by default, 16000 for `mono16k`.
    Both streams are placed by their timestamps on the container's clock, so `first` is negative
    where the sound starts after the clip, and `last` may lie beyond the last sample. Clips that
    touch have spans that touch. Raises MediaError when there is no sound.
    """
    if info.audio is None:
        raise MediaError(f"clip {clip.id}: its file has no sound.")
    rate = info.audio.rate if rate is None else rate
    start, end = clip.start_pts * clip.time_base, clip.end_pts * clip.time_base
    origin = Fraction(0) if clip.kind == Kind.AUDIO else Fraction(info.audio.start_s)
    return round((start - origin) * rate), round((end - origin) * rate)
