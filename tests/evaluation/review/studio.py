"""Clips of two systems with names all over them, and rounds made of them.

Import as `from tests.evaluation.review.studio import ...`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from tests.evaluation.footage import bouncing

from reelmill.datasets.media.encode import write_video
from reelmill.evaluation.bench import own_bench
from reelmill.evaluation.review.build import Built, build_round
from reelmill.evaluation.review.plan import Mode, Shares

SYSTEMS = ("zephyr-nine", "borealis")
PROMPTS = tuple(p.id for p in own_bench().prompts[:2])
RATERS = ("anna", "ben")


def clips_of(folder: Path, prompts=PROMPTS, *, seconds: float = 0.8) -> Path:
    """borealis is blurred, larger, of another codec, container, sample rate and time base."""
    for number, prompt in enumerate(prompts):
        whole = bouncing(number + 1, seconds, (160, 96))
        names = {"title": SYSTEMS[0], "encoder": SYSTEMS[0], "comment": f"by {SYSTEMS[0]}"}
        write_video(
            folder / SYSTEMS[0] / f"{prompt}_0.mp4", whole.frames, fps=16, audio=whole.samples,
            audio_rate=32_000, metadata=names,
        )  # fmt: skip
        large = bouncing(number + 1, seconds, (240, 144))
        blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 3) for f in large.frames])
        write_video(
            folder / SYSTEMS[1] / f"{prompt}_0.mkv", blurred, fps=16, audio=0.3 * large.samples[:1],
            audio_rate=32_000, audio_codec="flac", codec="mpeg4",
            metadata={"title": SYSTEMS[1], "artist": SYSTEMS[1]},
        )  # fmt: skip
    return folder


def round_of(tmp_path: Path, **changes) -> Built:
    options = {
        "bench": own_bench(),
        "mode": Mode.BOTH,
        "shares": Shares(each=2, repeats=0.2, gold=0.2),
        "seed": 11,
    } | changes
    clips = tmp_path / "clips"
    if not clips.exists():
        clips_of(clips)
    return build_round([clips], tmp_path / "round", options.pop("raters", RATERS), **options)


def names_in(data: bytes) -> list[str]:
    """Names of systems that bytes give away, in any case."""
    return [name for name in SYSTEMS if name.encode() in data.lower()]
