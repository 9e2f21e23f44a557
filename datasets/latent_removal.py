"""Latent shards without an asset: written anew from the samples that stay, nothing is encoded.

What is written is what an encode with the same codecs would write that had never seen the asset,
byte for byte, as long as the latents were those of their source shards and these are there.
Codecs that were fitted to clips of the asset stay as they are; they are no longer those of the
shards, so the next encode fits others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelmill.datasets.approval import manifest_digest
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.latents import CODECS, LatentDataset, PartWriter, finish, part_key
from reelmill.datasets.workspace import writing
from reelmill.errors import DatasetError

MANIFEST = "manifest.json"
_BLACK = re.compile(r"black\.(\d+)x\d+x\d+")
_LINKS = "shards"  # of the manifest's options: where the source shards are, from its folder


def sources_now(folder: Path) -> dict[str, Path] | None:
    """Source shards of latents by name, if the latents are those of all their bytes, else None."""
    with LatentDataset(folder) as data:
        links = data.manifest.options.get(_LINKS)
        digests = data.manifest.sources
    if not isinstance(links, dict) or links.keys() != digests.keys():
        return None
    found = {name: Path(os.path.normpath(folder / str(link))) for name, link in links.items()}
    try:
        fresh = all(manifest_digest(place) == digests[name] for name, place in found.items())
    except DatasetError:
        return None
    return found if fresh else None


def fitted_codecs(folder: Path) -> list[str]:
    """Codec folders beside latents that were fitted to their clips."""
    try:
        mark = json.loads((folder / CODECS).read_bytes())
        names = mark.get("fitted", ["video", "audio"])
    except (OSError, ValueError, AttributeError):
        return []
    return [str(folder / f"{name}_codec") for name in ("video", "audio") if name in names]


def leave_out(folder: Path, sha256: str, scratch: Path, shards: Mapping[str, Path] | None) -> int:
    """Writes latents without an asset's samples, in place of those there; returns how many went.

    scratch: where they are written first; on the same disk. shards: the source shards as they are
    without the asset, by name (sources_now, asked before they changed). None: the parts stay as
    they are but for the samples, and the next encode encodes them again. What is left out of a
    folder without other samples is the folder's latents. Raises DatasetError, WorkspaceError.
    """
    with LatentDataset(folder) as data:
        assets = data.column("asset")
        keep = [row for row, asset in enumerate(assets) if asset != sha256]
        if len(keep) == len(assets):
            return 0
        parts = (
            _parts_as_they_are(data, sha256) if shards is None else _parts_of(data, keep, shards)
        )
        with writing(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
        if keep:
            _write(data, parts, scratch, shards)
    with writing(folder):
        put_in_place(scratch, folder)
    return len(assets) - len(keep)


def put_in_place(scratch: Path, folder: Path) -> None:
    """Replaces a folder's latents by those in scratch. After kill -9, `resume` ends it."""
    (folder / MANIFEST).unlink(missing_ok=True)
    names = {path.name for path in scratch.iterdir()}
    parts = json.loads((scratch / MANIFEST).read_bytes())["parts"] if names else {}
    for tar in folder.glob("*.tar"):
        if tar.stem not in parts:
            for suffix in (".tar", ".parquet", ".json"):
                tar.with_suffix(suffix).unlink(missing_ok=True)
    if not names:
        for name in ("index.parquet", "constants.safetensors"):
            (folder / name).unlink(missing_ok=True)
    for name in sorted(names - {MANIFEST}):
        (scratch / name).replace(folder / name)
    if names:
        (scratch / MANIFEST).replace(folder / MANIFEST)
    scratch.rmdir()


def resume(scratch: Path, folder: Path) -> None:
    """Ends a replacement that was killed half-way, or forgets one that had not begun."""
    with writing(folder):
        if scratch.is_dir() and not (folder / MANIFEST).exists():
            put_in_place(scratch, folder)
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class _Part:
    """What a part will hold. rows: of the latents there are. counts: for its commit."""

    name: str
    key: str
    rows: Sequence[int]
    counts: Mapping[str, Any] = field(default_factory=dict)


def _parts_of(
    data: LatentDataset, keep: Sequence[int], shards: Mapping[str, Path]
) -> Iterator[_Part]:
    """A part for each shard, as an encode makes them, whichever shard its clips were in before."""
    manifest = data.manifest
    settings = {k: v for k, v in manifest.options.items() if k != _LINKS}
    of_clip: dict[str, list[int]] = {}
    for row in keep:
        of_clip.setdefault(data.column("clip")[row], []).append(row)
    failed: dict[str, str] = {}
    for part in manifest.parts:
        failed |= _commit(data, part).get("failed", {})
    met = list(dict.fromkeys(data.column("part")))  # the manifest's own order is by name
    order = {
        name: next((i for i, p in enumerate(met) if p.startswith(f"{name}-")), -1)
        for name in shards
    }
    for name, place in sorted(shards.items(), key=lambda item: order[item[0]]):
        with ShardIndex.read(place) as index:
            for shard in index.manifest:
                clips = index.keys_of(shard.file)
                broken = {clip: failed[clip] for clip in clips if clip in failed}
                yield _Part(
                    f"{name}-{shard.file.removesuffix('.tar')}",
                    part_key(shard.sha256, settings, manifest.video, manifest.audio, manifest.text),
                    [row for clip in clips for row in of_clip.get(clip, ())],
                    {
                        "clips": len(clips),
                        "short": sum(c not in of_clip and c not in broken for c in clips),
                        "failed": broken,
                    },
                )


def _parts_as_they_are(data: LatentDataset, sha256: str) -> Iterator[_Part]:
    """The same parts, under a key that no encode asks for."""
    rows: dict[str, list[int]] = {}
    for row, (part, asset) in enumerate(
        zip(data.column("part"), data.column("asset"), strict=True)
    ):
        rows.setdefault(part, []).extend([row] if asset != sha256 else [])
    for part in dict.fromkeys([*rows, *data.manifest.parts]):
        yield _Part(part, "", rows.get(part, []))


def _write(
    data: LatentDataset, parts: Iterable[_Part], scratch: Path, shards: Mapping[str, Path] | None
) -> None:
    names: list[str] = []
    frames: set[int] = set()
    for part in parts:
        writer = PartWriter(scratch, part.name, part.key)
        for row in part.rows:
            writer.add(data.read(row))
        frames |= set(writer.commit(part.counts)["frames"])
        names.append(part.name)
    manifest = data.manifest
    finish(
        scratch,
        names,
        video=manifest.video,
        audio=manifest.audio,
        text=manifest.text,
        sources=manifest.sources
        if shards is None
        else {name: manifest_digest(place) for name, place in shards.items()},
        options=manifest.options,
        constants={
            name: value
            for name, value in data.constants.items()
            if not (black := _BLACK.fullmatch(name)) or int(black[1]) in frames
        },
    )


def _commit(data: LatentDataset, part: str) -> dict[str, Any]:
    path = data.folder / f"{part}.json"
    try:
        commit = json.loads(path.read_bytes())
        if not isinstance(commit.get("failed", {}), dict):
            raise ValueError("its failures are no table")
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(f"latent part {path} cannot be read: {error}.") from error
    return commit
