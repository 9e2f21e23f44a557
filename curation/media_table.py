"""What the engine itself knows of an asset: its MediaInfo, its decode, its whole span.

Kept in the ledger beside the stages' facts, keyed by the reader's code.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reelmill.datasets.media.decode import AudioInfo, DecodeSummary, MediaInfo, VideoInfo
from reelmill.datasets.sample import Clip, Kind

MEDIA = pa.schema(
    [
        ("unit", pa.string()),
        ("info", pa.string()),
        ("not_media", pa.bool_()),
        ("cause", pa.string()),
        ("message", pa.string()),
    ]
)
DECODED = pa.schema([("unit", pa.string()), ("cause", pa.string()), ("message", pa.string())])
CLIPS = pa.schema(
    [
        ("unit", pa.string()),
        ("clip", pa.string()),
        ("kind", pa.string()),
        ("start_pts", pa.int64()),
        ("end_pts", pa.int64()),
        ("time_base", pa.string()),
        ("origin_pts", pa.int64()),
        ("start_frame", pa.int64()),
        ("end_frame", pa.int64()),
        ("cut_frames", pa.list_(pa.int64())),
        ("cut_pts", pa.list_(pa.int64())),
    ]
)


def info_text(info: MediaInfo) -> str:
    """MediaInfo as canonical JSON; fractions as `n/d`."""
    return json.dumps(asdict(info), default=str, sort_keys=True)


_fraction = lru_cache(1024)(Fraction)  # few, many times


def info_from(text: str) -> MediaInfo:
    data = json.loads(text)
    video, audio = data.pop("video"), data.pop("audio")
    if video is not None:
        for name in ("sample_aspect", "time_base", "average_rate"):
            video[name] = None if video[name] is None else _fraction(video[name])
        video = VideoInfo(**video)
    data["kind"] = Kind(data["kind"])
    return MediaInfo(**data, video=video, audio=None if audio is None else AudioInfo(**audio))


def summary_tracks(summary: DecodeSummary) -> dict[str, np.ndarray]:
    counts = [summary.last_frame_ticks, summary.packets, summary.decode_errors, summary.samples]
    return {
        "frame_pts": np.asarray(summary.frame_pts, dtype=np.int64),
        "counts": np.asarray(counts, dtype=np.int64),
    }


def whole_clip(asset: str, info: MediaInfo, decode: dict[str, np.ndarray]) -> Clip:
    """The span of a whole asset, from what its decode found."""
    pts, (last_ticks, _, _, samples) = decode["frame_pts"], decode["counts"].tolist()
    if info.kind == Kind.VIDEO and info.video is not None and len(pts):
        end = int(pts[-1]) + last_ticks
        start = int(pts[0])
        return Clip(asset, info.kind, start, end, info.video.time_base, start, 0, len(pts))
    if info.kind == Kind.AUDIO and info.audio is not None:
        return Clip(asset, info.kind, 0, samples, Fraction(1, info.audio.rate), 0, 0, samples)
    return Clip(asset, info.kind, 0, 0, Fraction(1), 0, 0, max(1, len(pts)))


def clip_row(unit: str, clip: Clip) -> dict[str, object]:
    """A row of the segments table. unit: the asset."""
    return {
        "unit": unit,
        "clip": clip.id,
        "kind": str(clip.kind),
        "start_pts": clip.start_pts,
        "end_pts": clip.end_pts,
        "time_base": str(clip.time_base),
        "origin_pts": clip.origin_pts,
        "start_frame": clip.start_frame,
        "end_frame": clip.end_frame,
        "cut_frames": [frame for frame, _ in clip.cuts],
        "cut_pts": [pts for _, pts in clip.cuts],
    }


def clips_from(table: pa.Table, kind: Kind) -> dict[str, list[Clip]]:
    """Clips of each asset of a kind, in order."""
    there = set(table.schema.names)  # runs of earlier versions have no cuts
    ours = table.filter(pc.equal(table["kind"], str(kind)))
    columns = [
        ours[name].to_pylist()
        if name in there and ours[name].null_count < len(ours)
        else [None] * len(ours)
        for name in CLIPS.names
        if name != "kind"
    ]
    found: dict[str, dict[str, Clip]] = {}
    bases = {base: Fraction(base) for base in pc.unique(ours["time_base"]).to_pylist()}
    for unit, clip_id, start, end, base, origin, first, last, frames, pts in zip(
        *columns, strict=True
    ):
        clip = Clip.known(
            {
                "asset": unit,
                "kind": kind,
                "start_pts": start,
                "end_pts": end,
                "time_base": bases[base],
                "origin_pts": origin,
                "start_frame": first,
                "end_frame": last,
                "cuts": tuple(zip(frames, pts, strict=True)) if frames else (),
                "id": clip_id,
            }
        )
        if unit in found:
            found[unit][clip_id] = clip
        else:
            found[unit] = {clip_id: clip}
    in_order = attrgetter("start_pts", "end_pts")
    return {
        unit: sorted(clips.values(), key=in_order) if len(clips) > 1 else list(clips.values())
        for unit, clips in found.items()
    }
