"""A small curation run: five files, a short recipe, a few seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.media import noise, noise_video, truncated_copy

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.result import CurateResult
from reelmill.datasets.media.encode import write_video

RECIPE = """
kind: video
max_failed: 1.0
stages:
  - Probe
  - Integrity
  - Shots: {min_seconds: 0.5}
  - Blur
  - Loudness: {min_volume: -50.0}
  - Voice
  - PHash
  - NearDuplicate
  - MOS
  - Cut
"""


def make_corpus(folder: Path) -> Path:
    """Two good films (one of them twice), a silent one, a blurred one, one cut off, one text."""
    folder.mkdir(parents=True, exist_ok=True)
    good = noise_video(folder / "good.mp4", seconds=2.0, seed=1)
    noise_video(folder / "fine.mp4", seconds=2.0, seed=2)
    (folder / "again.mp4").write_bytes(good.read_bytes())
    quiet = noise(2.0, 16_000, amplitude=1e-4)
    frames = np.stack([np.roll(_texture(7), 3 * i, axis=1) for i in range(32)])
    write_video(folder / "quiet.mp4", frames, fps=16, audio=quiet, audio_rate=16_000)
    fog = np.stack([_fog(i) for i in range(32)])
    sound = noise(2.0, 16_000, seed=5)
    write_video(folder / "fog.mp4", fog, fps=16, audio=sound, audio_rate=16_000)
    truncated_copy(good, folder / "cut-off.mp4", 0.6)
    (folder / "notes.md").write_text("# not media")
    return folder


def _texture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (96, 128, 3)).astype(np.uint8)


def _fog(i: int) -> np.ndarray:
    """A soft gradient: nothing sharp in it."""
    x = np.linspace(0, 2 * np.pi, 128)[None, :, None] + i / 8
    return np.broadcast_to(128 + 100 * np.sin(x), (96, 128, 3)).astype(np.uint8)


def recipe_file(folder: Path, text: str = RECIPE) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def options(corpus: Path, workspace: Path, *overrides: str, **more) -> CurateOptions:
    recipe = more.pop("recipe", None) or recipe_file(workspace.parent)
    return CurateOptions(
        sources=(str(corpus),),
        workspace=workspace,
        recipe=recipe,
        overrides=overrides,
        **({"workers": 2} | more),
    )


def curate(corpus: Path, workspace: Path, *overrides: str, **more) -> CurateResult:
    curation = Curation(options(corpus, workspace, *overrides, **more))
    for step in curation.steps():
        step.run()
    return curation.result()
