"""The damage ladder: does a metric fall, level by level, with the damage that it claims to see?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import clip_frames, clip_samples, probe
from reelmill.datasets.media.encode import write_audio, write_video
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError
from reelmill.evaluation.bench import Prompt
from reelmill.evaluation.clip import ClipMedia, read_clip
from reelmill.evaluation.damage import LEVELS, Damage, Footage, damaged
from reelmill.evaluation.metric import Metric, NoValue, goodness

LEAST = 0.9  # rank correlation
OF_SOUND = frozenset(
    {
        Damage.CLIPPING,
        Damage.BAND_LIMIT,
        Damage.SOUND_NOISE,
        Damage.DROPOUTS,
        Damage.NARROWED,
    }
)


@dataclass(frozen=True)
class Rungs:
    """What one metric said of levels 0 to 5. badness: the worse, the larger.

    Of a metric that ranks nothing, the badness is how far it moves from its first value.
    """

    badness: tuple[float, ...]

    @property
    def correlation(self) -> float:
        """Spearman's, of level and badness; 0 where the metric does not react."""
        if np.ptp(self.badness) == 0:
            return 0.0
        return float(spearmanr(range(len(self.badness)), self.badness).statistic)

    @property
    def original_first(self) -> bool:
        return min(self.badness[1:]) > self.badness[0]

    @property
    def holds(self) -> bool:
        return self.original_first and self.correlation >= LEAST


def climb(metric: Metric, clips: Iterable[ClipMedia]) -> Rungs | NoValue:
    """clips: one footage at levels 0 to 5. NoValue where the metric lacks one of them."""
    values: list[float] = []
    for clip in clips:
        value = metric.measure(clip)
        if isinstance(value, NoValue):
            return type(value)(f"level {len(values)}: {value.why}")
        values.append(value)
    bad = [-g for v in values if (g := goodness(metric.better, v)) is not None]
    return Rungs(tuple(bad or [abs(v - values[0]) for v in values]))


def damaged_clips(
    folder: Path, footage: Footage, damage: Damage, prompt: Prompt | None = None
) -> list[ClipMedia]:
    """The footage at levels 0 to 5, encoded with little loss and read again.

    Only the stream that the damage is done to is kept, but for shifted sound, which needs both.
    """
    if damage in OF_SOUND:
        footage = replace(footage, frames=footage.frames[:0])
    elif damage is not Damage.SHIFTED_SOUND:
        footage = replace(footage, samples=footage.samples[:, :0])
    folder.mkdir(parents=True, exist_ok=True)
    return [
        read_clip(_write(folder / f"{level}.mkv", damaged(footage, damage, level)), prompt)
        for level in range(LEVELS + 1)
    ]


def read_footage(path: Path, seconds: float, height: int) -> Footage:
    """The first seconds of a clip, at its own frame rate, small, with two channels at most.

    Raises MediaError for a file without a picture or without sound.
    """
    info = probe(path)
    if info.video is None or info.audio is None:
        raise MediaError(f"{path.name} has no picture or no sound.")
    base = info.video.time_base
    start = round(Fraction(info.video.start_s) / base)
    clip = Clip(
        asset="0" * 64,
        kind=Kind.VIDEO,
        start_pts=start,
        end_pts=start + round(Fraction(min(seconds, info.seconds or seconds)) / base),
        time_base=base,
        origin_pts=start,
        start_frame=0,
        end_frame=1,
    )
    fps = float(info.video.average_rate or 25)
    samples, _ = clip_samples(path, info, *sound_span(clip, info))
    return Footage(clip_frames(path, info, clip, fps, height), fps, samples[:2], info.audio.rate)


def _write(path: Path, footage: Footage) -> Path:
    if not len(footage.frames):
        write_audio(path, footage.samples, footage.rate, container="matroska")
        return path
    sound = footage.samples if footage.samples.shape[1] else None
    write_video(
        path,
        footage.frames,
        fps=Fraction(footage.fps).limit_denominator(1001),
        audio=sound,
        audio_rate=footage.rate,
        crf=12,
        audio_codec="flac",
        container="matroska",
    )
    return path
