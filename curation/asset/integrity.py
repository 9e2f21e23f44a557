"""Whether a video file holds what it claims to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.stage import (
    Bound,
    Fact,
    Facts,
    FrameStage,
    NotApplicable,
    Tracks,
    at_most,
)
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError

SLACK_SECONDS = 0.25  # a container's length may be rounded, or count an encoder's padding
SLACK_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Integrity(FrameStage):
    """Compares what the container promises with what the shared decode found.

    Damage fails a file, it does not reject it. A file has failed when its reading stopped on an
    error, when more than `tolerance` of its packets could not be decoded cleanly, or when it ends
    early: it holds fewer frames than its index lists and its picture is that much shorter, or all
    its streams end before the container's length (by 0.25 s and 2 %). Neither a wrong frame count
    nor a wrong length alone is damage: edit lists, AVI headers, hidden frames and late starts give
    healthy files such counts.

    av_seconds_gap is how far apart picture and sound end. It is no damage, and off as a bound: a
    clip is cut with the sound that it has.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, basic quality"
    adds: ClassVar = (
        Fact("frames_expected", "frames", "Frames that the file lists.", 0, 3000, int),
        Fact("frames_decoded", "frames", "Frames that could be decoded.", 0, 3000, int),
        Fact("missing_ratio", "", "Share of the expected frames that is not there.", 0, 0.1),
        Fact("decode_errors", "", "Packets or frames with errors.", 0, 50, int),
        Fact("av_seconds_gap", "s", "Between the ends of picture and sound.", 0, 5),
    )
    tolerance: float = 0.002
    max_av_seconds_gap: Bound = at_most(None, "av_seconds_gap", "av_lengths_differ")

    def open(self, info: MediaInfo) -> _Summary:
        return _Summary()

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        packets, decoded, errors, samples = tracks["counts"].tolist()
        video, audio = info.video, info.audio
        if video is None or not decoded:
            raise MediaError("no picture could be decoded.")
        stopped = tracks["error"].tobytes().decode()
        if stopped:
            raise MediaError(f"{stopped}, after {decoded} frames ({clip.seconds:.2f} s).")
        picture_end = video.start_s + clip.seconds
        ends, starts = [picture_end], [video.start_s]
        if audio is not None and samples:
            ends.append(audio.start_s + samples / audio.rate)
            starts.append(audio.start_s)
        expected = video.frames_expected or packets
        if info.seconds is not None:
            rate = decoded / max(clip.seconds, 1e-6)
            lost = expected - packets
            picture_short = min(starts) + info.seconds - picture_end
            if lost > max(1, self.tolerance * expected) and picture_short * rate >= lost / 2:
                raise _ends_early(decoded, expected, picture_end - min(starts), info.seconds)
            found = max(ends) - min(starts)
            if info.seconds - found > max(SLACK_SECONDS, SLACK_SHARE * info.seconds):
                promised = max(expected, round(info.seconds * rate))
                raise _ends_early(decoded, promised, found, info.seconds)
        if errors > self.tolerance * packets:
            raise MediaError(
                f"{errors} decode errors in {packets} packets, at most {self.tolerance:.1%} are "
                "borne. Encode the file again from its source."
            )
        return {
            "frames_expected": expected,
            "frames_decoded": decoded,
            "missing_ratio": max(0.0, 1 - decoded / expected),
            "decode_errors": errors,
            "av_seconds_gap": abs(ends[1] - ends[0])
            if len(ends) == 2
            else NotApplicable("no sound"),
        }


def _ends_early(decoded: int, expected: int, found: float, promised: float) -> MediaError:
    return MediaError(
        f"the file ends early: it promises {expected} frames and {promised:.2f} s, and holds "
        f"{decoded} frames and {found:.2f} s. Fetch it again."
    )


class _Summary:
    def frame(self, frame: Frame) -> None:
        pass

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        counts = [
            summary.packets,
            len(summary.frame_pts),
            summary.decode_errors,
            summary.samples,
        ]
        return {
            "counts": np.array(counts, np.int64),
            "error": np.frombuffer(summary.error.encode(), np.uint8),
        }
