"""Whether an audio file holds what it claims to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.stage import AudioStage, Fact, Facts, Tracks
from reelmill.datasets.media.decode import AudioBlock, DecodeSummary, MediaInfo
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError

# Formats whose header states the length. Of bare streams (mp3, aac, amr) FFmpeg only guesses it
# from size and bit rate, so their length proves nothing.
DECLARING = frozenset({"flac", "wav", "w64", "aiff", "mov", "matroska", "ogg", "caf", "au"})


@dataclass(frozen=True, kw_only=True)
class SoundIntegrity(AudioStage):
    """Compares the length that an audio file states with what the shared decode found.

    Damage fails a file: its reading stopped on an error, or it ends before its stated length by
    more than `slack_seconds` and `slack_share` of it.
    """

    kinds: ClassVar = frozenset({Kind.AUDIO})
    paper: ClassVar = "section 3.4"
    adds: ClassVar = (
        Fact("sound_seconds", "s", "Length of the decoded sound.", 0, 60),
        Fact("sound_missing", "", "Share of the stated length that is not there.", 0, 0.1),
        Fact("sound_errors", "", "Packets that could not be decoded.", 0, 50, int),
    )
    slack_seconds: float = 0.25
    slack_share: float = 0.02

    def open(self, info: MediaInfo) -> _Summary:
        return _Summary()

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        samples, errors = tracks["counts"].tolist()
        stopped = tracks["error"].tobytes().decode()
        if info.audio is None or not samples:
            raise MediaError("no sound could be decoded.")
        found = samples / info.audio.rate
        if stopped:
            raise MediaError(f"{stopped}, after {found:.2f} s of sound.")
        stated = found
        if info.seconds is not None and info.container in DECLARING:
            stated = max(found, info.seconds - max(0.0, info.audio.start_s))
        if stated - found > max(self.slack_seconds, self.slack_share * stated):
            raise MediaError(
                f"the file ends early: it states {stated:.2f} s and holds {found:.2f} s of sound. "
                "Fetch it again."
            )
        return {
            "sound_seconds": found,
            "sound_missing": 1 - found / stated,
            "sound_errors": errors,
        }


class _Summary:
    def block(self, block: AudioBlock) -> None:
        pass

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "counts": np.array([summary.samples, summary.decode_errors], np.int64),
            "error": np.frombuffer(summary.error.encode(), np.uint8),
        }
