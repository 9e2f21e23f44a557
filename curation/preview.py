"""Small pictures and players of clips, for the galleries of a report.

Kept in the workspace by clip id, so that a second report of the same clip costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reelmill.curation.marks import Mark, digest, draw
from reelmill.datasets.media.decode import MediaInfo, clip_audio, clip_frames
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.workspace import aside
from reelmill.errors import MediaError

HEIGHT = 180
FPS = 12
SECONDS = 4.0
RATE = 24_000
CRF = 32


@dataclass(frozen=True)
class Preview:
    """Files of one clip's preview; None where there is none of that sort."""

    poster: Path | None = None
    player: Path | None = None


def make_preview(
    folder: Path, path: Path, info: MediaInfo, clip: Clip, marks: tuple[Mark, ...] = ()
) -> Preview:
    """The preview of a clip, made when the folder lacks it. Its first seconds, small.

    marks: boxes drawn into the poster, not into the player. A clip that will not decode has no
    preview: its card says why.
    """
    if find_preview(folder, clip, marks) is None:
        files = _files(folder, clip, marks)
        poster, player = (aside(file) for file in files)
        try:
            _make(poster, player, path, info, clip, marks)
        except (MediaError, ValueError):
            return Preview()
        for part, whole in zip((poster, player), files, strict=True):  # the player comes last
            if part.exists():
                part.replace(whole)
    return find_preview(folder, clip, marks) or Preview()


def find_preview(folder: Path, clip: Clip, marks: tuple[Mark, ...] = ()) -> Preview | None:
    """The preview of a clip that was made before, with these marks, or None."""
    poster, player = _files(folder, clip, marks)
    if not player.exists() or (marks and not poster.exists()):
        return None
    return Preview(
        poster if clip.kind != Kind.AUDIO and poster.exists() else None,
        player if clip.kind != Kind.IMAGE else None,
    )


def _files(folder: Path, clip: Clip, marks: tuple[Mark, ...]) -> tuple[Path, Path]:
    suffix = {Kind.VIDEO: ".mp4", Kind.AUDIO: ".m4a", Kind.IMAGE: ".jpg"}[clip.kind]
    named = f"{clip.id}.{digest(marks)}" if marks else clip.id
    return folder / f"{named}.jpg", folder / f"{clip.id}{suffix}"


def _make(
    poster: Path, player: Path, path: Path, info: MediaInfo, clip: Clip, marks: tuple[Mark, ...]
) -> None:
    player.parent.mkdir(parents=True, exist_ok=True)
    sound = None
    if clip.kind != Kind.IMAGE and info.audio is not None:
        sound = clip_audio(path, info, clip, RATE)[: int(SECONDS * RATE)][np.newaxis]
    if clip.kind == Kind.AUDIO:
        if sound is not None and sound.size:
            write_audio(player, sound, RATE, codec="aac", bit_rate=48_000)
        return
    frames = clip_frames(path, info, clip, FPS, HEIGHT)[: int(SECONDS * FPS)]
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    picture = frames[len(frames) // 3]
    write_image(poster, draw(picture, marks) if marks else picture, quality=70)
    if clip.kind == Kind.IMAGE and poster != player:
        write_image(player, picture, quality=70)
    if clip.kind == Kind.VIDEO:
        write_video(
            player,
            iter(frames),
            fps=FPS,
            audio=sound,
            audio_rate=RATE,
            crf=CRF,
            audio_bit_rate=48_000,
        )


def relative(preview: Preview, root: Path) -> Mapping[str, str]:
    """Preview files by role, relative to a folder, as a report names them."""
    files = {"poster": preview.poster, "player": preview.player}
    return {role: str(p.relative_to(root)) for role, p in files.items() if p is not None}
