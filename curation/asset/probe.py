"""What a file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from reelmill.curation.stage import (
    AssetStage,
    Bound,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    at_least,
    at_most,
)
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.sample import Kind


@dataclass(frozen=True, kw_only=True)
class Probe(AssetStage):
    """Size, rate, length and codecs, as the container and the first decoded frame tell.

    Width and height are as displayed. Lengths are the container's word (`Integrity` proves it), so
    both bounds on them are off; the length of a clip is bounded by `Shots`. Pictures lower than 64
    pixels are less than the smallest training size holds. Of aspects, Open-Sora 2.0 and data-juicer
    keep 1/3 to 3; only the recipe for images has these bounds on.
    """

    paper: ClassVar = "section 3.4, basic quality: duration, resolution"
    adds: ClassVar = (
        Fact("width", "pixels", "Width as displayed.", 0, 4096, int),
        Fact("height", "pixels", "Height as displayed.", 0, 4096, int),
        Fact("aspect", "", "Width over height, as displayed.", 0.1, 10, log=True),
        Fact("fps", "frames/s", "Mean frame rate, as the container says.", 0, 120),
        Fact("duration", "s", "Length, as the container says.", 0.1, 1e4, log=True),
        Fact("bytes", "bytes", "Size of the file.", 1e3, 1e10, int, log=True),
        Fact("codec", "", "Codec of the picture.", dtype=str),
        Fact("pixel_format", "", "Pixel format, FFmpeg's name.", dtype=str),
        Fact("hdr", "", "Whether the picture is HDR (PQ or HLG); it is tone-mapped.", 0, 1, bool),
        Fact("container", "", "Container or image format.", dtype=str),
        Fact("has_audio", "", "Whether there is sound.", 0, 1, bool),
        Fact("audio_codec", "", "Codec of the sound.", dtype=str),
        Fact("audio_rate", "Hz", "Sample rate.", 0, 96_000, int),
        Fact("audio_channels", "", "Channels.", 0, 8, int),
    )
    min_seconds: Bound = at_least(None, "duration", "too_short")
    max_seconds: Bound = at_most(None, "duration", "too_long")
    min_height: Bound = at_least(64, "height", "resolution")
    min_width: Bound = at_least(None, "width", "resolution")
    min_aspect: Bound = at_least(None, "aspect", "aspect")
    max_aspect: Bound = at_most(None, "aspect", "aspect")

    def measure(self, path: Path, info: MediaInfo) -> Facts:
        video, audio = info.video, info.audio
        no_picture, no_sound = NotApplicable("no picture"), NotApplicable("no sound")
        image = info.kind == Kind.IMAGE
        rate = video.average_rate if video else None
        length = NotMeasured("the container does not say")
        return {
            "width": video.width if video else no_picture,
            "height": video.height if video else no_picture,
            "aspect": video.width / video.height if video else no_picture,
            "fps": float(rate)
            if rate
            else (NotApplicable("an image has no rate") if image else length)
            if video
            else no_picture,
            "duration": NotApplicable("an image has no length")
            if image
            else length
            if info.seconds is None
            else info.seconds,
            "bytes": info.bytes,
            "codec": video.codec if video else no_picture,
            "pixel_format": video.pixel_format if video else no_picture,
            "hdr": NotApplicable("an image is read as sRGB")
            if image
            else bool(video.transfer)
            if video
            else no_picture,
            "container": info.container,
            "has_audio": audio is not None,
            "audio_codec": audio.codec if audio else no_sound,
            "audio_rate": audio.rate if audio else no_sound,
            "audio_channels": audio.channels if audio else no_sound,
        }
