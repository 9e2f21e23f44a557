"""Where: what a source file became part of, down to the bytes.

Clips of a run, members of shards, members of latent shards, and the training runs whose
checkpoints say that they read those latents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.curation.explain.verdict_table import VerdictTable
from reelmill.datasets.index import MANIFEST, ShardIndex
from reelmill.datasets.joining import joined_clips
from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.sample import Outcome
from reelmill.datasets.workspace import Workspace
from reelmill.errors import DatasetError

MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Member:
    """Bytes [offset, offset + size) of a shard."""

    clip: str
    shard: str
    member: str
    offset: int
    size: int


@dataclass(frozen=True)
class TrainingRun:
    """A checkpoint folder that holds a model which was trained on the file.

    step: of the newest checkpoint. latents: digest of the latent shards. role: `trained`, or
    `validated` where the file's clips were held out. known: whether those latents are still here;
    where they are not, the run may have seen the file, and role is `unknown`.
    """

    folder: str
    stage: str
    step: int
    latents: str
    role: str
    known: bool


@dataclass(frozen=True)
class Whereabouts:
    """Of one clip, or of all clips of an asset."""

    run: str
    sha256: str
    paths: tuple[str, ...]
    clips: tuple[dict[str, Any], ...]
    shards: tuple[Member, ...]
    latents: tuple[Member, ...]
    training: tuple[TrainingRun, ...]

    @classmethod
    def of(cls, workspace: Workspace, text: str, run: str = "last") -> Whereabouts:
        """Raises UsageError when the run saw no such thing, DatasetError for damaged shards."""
        table = VerdictTable(workspace, run)
        found = table.find(text)
        sha256 = found[0]["asset"]
        clips = [row for row in found if row["level"] == "clip"]
        everything = table.rows("asset = ?", [sha256])
        whole = {row["unit"] for row in everything if row["level"] == "clip"}
        only = {row["unit"] for row in clips} if len(clips) < len(whole) else None
        members, training = latents_of(workspace, sha256, only)
        return cls(
            run=table.record.run,
            sha256=sha256,
            paths=tuple(sorted({row["path"] for row in everything})),
            clips=tuple(
                {
                    "clip": row["unit"],
                    "outcome": row["outcome"],
                    "stage": row["stage"],
                    "reason": row["reason"],
                }
                for row in clips
            ),
            shards=tuple(shard_members(workspace, sha256, only)),
            latents=tuple(members),
            training=tuple(training),
        )

    @property
    def kept(self) -> int:
        return sum(clip["outcome"] == Outcome.KEPT for clip in self.clips)


def shard_members(
    workspace: Workspace, sha256: str, only: set[str] | None = None
) -> Iterator[Member]:
    """Members of an asset's clips in every shard set; of the clips in `only`, when given.

    Joined samples that hold clips of the asset are members too.
    """
    for manifest in shard_sets(workspace):
        with ShardIndex.read(manifest.parent) as index:
            columns = ("key", "shard", "member", "offset", "size")
            rows = zip(*(index.rows[name].to_pylist() for name in columns), strict=True)
            held: dict[str, bool] = {}
            for key, shard, member, offset, size in rows:
                if key not in held:
                    held[key] = _is_of(key, sha256, only) or _holds(index, key, sha256, only)
                if held[key]:
                    yield Member(key, str(manifest.parent / shard), member, offset, size)


def shard_sets(workspace: Workspace) -> list[Path]:
    """Manifests of all shard sets: those of the kinds, and those of joined clips."""
    sets = [workspace.root.glob(f"{place}/*/{MANIFEST}") for place in ("shards", "joined")]
    return [manifest for found in sets for manifest in sorted(found)]


def _holds(index: ShardIndex, key: str, sha256: str, only: set[str] | None) -> bool:
    clips = joined_clips(index, key)
    return any(asset == sha256 and (only is None or clip in only) for clip, asset in clips)


def _is_of(key: str, sha256: str, only: set[str] | None) -> bool:
    return key.startswith(f"{sha256[:16]}_") and (only is None or key in only)


def latents_of(
    workspace: Workspace, sha256: str, only: set[str] | None = None
) -> tuple[list[Member], list[TrainingRun]]:
    """Members of an asset's clips in latent shards, and the training runs that read them."""
    members: list[Member] = []
    assets: dict[str, Sequence[str]] = {}
    holding: set[str] = set()
    for manifest in sorted(workspace.latents.glob("**/manifest.json")):
        with LatentDataset(manifest.parent) as data:
            digest = data.manifest.digest
            assets[digest] = data.column("asset")
            for row, key in enumerate(data.column("key")):
                if data.column("asset")[row] != sha256 or (only is not None and key not in only):
                    continue
                holding.add(digest)
                shard = str(manifest.parent / f"{data.column('part')[row]}.tar")
                for name, member in (("data", "safetensors"), ("meta", "json")):
                    offset, size = (data.column(f"{name}_{of}")[row] for of in ("offset", "bytes"))
                    members.append(Member(key, shard, member, offset, size))
    training = []
    for folder, step, config in _checkpoints(workspace.checkpoints):
        digest = str(config.get("latents", ""))
        known = digest in assets
        if known and digest not in holding:
            continue
        stage = config.get("stage")
        stage = stage if isinstance(stage, dict) else {}
        role = _role(assets[digest], sha256, stage) if known else "unknown"
        name = str(stage.get("name", folder.parent.name))
        training.append(TrainingRun(str(folder), name, step, digest, role, known))
    return members, training


def _role(assets: Sequence[str], sha256: str, stage: dict[str, Any]) -> str:
    share = stage.get("held_out", 0.0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        return "unknown"
    held = held_out_rows(assets, float(share))
    return "validated" if held[np.array([a == sha256 for a in assets])].all() else "trained"


def _checkpoints(root: Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Folder, step and config of the newest checkpoint of every stage."""
    newest: dict[Path, Path] = {}
    for path in sorted(root.glob("**/step-*/manifest.json")):
        newest[path.parent.parent] = path
    for folder, path in newest.items():
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise ValueError(f"larger than {MAX_MANIFEST_BYTES} bytes")
            data = json.loads(path.read_bytes())
            step, config = data["step"], data["config"]
            if not isinstance(step, int) or not isinstance(config, dict):
                raise TypeError("its step or config is of another type")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetError(f"checkpoint manifest {path} is damaged: {error!r}.") from error
        yield folder, step, config
