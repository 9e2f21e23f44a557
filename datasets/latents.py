"""Latent shards: clips as tensors, ready to train on (DESIGN section 6).

    <folder>/<part>.tar       per sample `<key>.safetensors` and `<key>.json`, fixed order and dates
    <folder>/<part>.parquet   one row per sample: where its members lie, with their crc32
    <folder>/<part>.json      the commit of a part: key and sha256 of both; written after them
    <folder>/index.parquet    rows of all parts in order
    <folder>/constants.safetensors   `null_text` [n, D], `black.<F>x<H>x<W>` [C, T, h, w]
    <folder>/manifest.json    fingerprints, sources, digests; written last
    <folder>/codecs.json      which codecs beside it were fitted, and to which shards

Tensors of a sample: `video` [C, T, h, w], `audio` [C_a, L] (absent when the clip is silent or an
image), `text` [n, D] (absent when captions are encoded online). Of sound alone, h = w = 0, and T is
how long it lasts. Nothing is ever unpickled; sizes come from the index and every read is checked
against its crc32.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from reelmill.datasets.arrow import whole_numbers
from reelmill.datasets.members import NAMES, Members, read_members
from reelmill.datasets.parquet import read_parquet
from reelmill.datasets.workspace import commit_bytes, table_bytes, writing
from reelmill.errors import DatasetError

SCHEMA = 2
CODECS = "codecs.json"  # beside codecs that were fitted: for what, and which
_KEY = re.compile(r"[0-9A-Za-z_-]{1,120}")
_PART = re.compile(r"[0-9A-Za-z_-]{1,120}")
_ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("asset", pa.string()),
        ("part", pa.string()),
        ("data_offset", pa.int64()),
        ("data_bytes", pa.int64()),
        ("data_crc32", pa.int64()),
        ("meta_offset", pa.int64()),
        ("meta_bytes", pa.int64()),
        ("meta_crc32", pa.int64()),
        ("frames", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("has_audio", pa.bool_()),
        ("clip", pa.string()),
        ("start_frame", pa.int32()),
        ("source", pa.string()),
    ]
)


@dataclass(frozen=True)
class LatentSample:
    """One sample. `meta` has at least: clip, asset, caption, fps, frames, height, width, has_audio.

    video: float [C, T, h, w]; audio: float [C_a, L] or None; text: float [n, D] or None.
    asset: the source file that it comes from; splits never part the samples of one asset. low:
    the same clip smaller and at half the rate, [C, (T + 1) / 2, h', w'], for the Refiner, or None.
    """

    key: str
    asset: str
    video: np.ndarray
    audio: np.ndarray | None
    text: np.ndarray | None
    meta: Mapping[str, Any]
    low: np.ndarray | None = None


@dataclass(frozen=True)
class LatentManifest:
    """What a folder of latent shards was made of.

    video, audio, text: fingerprints of codecs and encoder (`text` is empty for raw captions).
    sources: digest of each source shard manifest by the name of its folder. parts: name to commit
    digest. options: of the encode run, resolved. constants, index: sha256 of those files.
    """

    video: str
    audio: str
    text: str
    sources: Mapping[str, str]
    options: Mapping[str, Any]
    parts: Mapping[str, str]
    samples: int
    index: str
    constants: str
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """Identity of the whole data set: sha256 of this manifest."""
        return hashlib.sha256(_json(self.__dict__)).hexdigest()


@dataclass
class PartWriter:
    """Gathers the samples of one part, then commits them at once.

    The same samples in the same order give the same bytes.
    """

    folder: Path
    part: str
    key: str
    _tar: io.BytesIO = field(default_factory=io.BytesIO)
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not _PART.fullmatch(self.part):
            raise DatasetError(
                f"latent part name {self.part!r} holds more than letters and digits."
            )
        self._file = tarfile.open(fileobj=self._tar, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, sample: LatentSample) -> None:
        if not _KEY.fullmatch(sample.key):
            raise DatasetError(f"latent sample key {sample.key!r} holds more than letters, digits.")
        tensors = {name: getattr(sample, name) for name in ("video", "audio", "text", "low")}
        data = safetensors.numpy.save(
            {k: np.ascontiguousarray(v) for k, v in tensors.items() if v is not None}
        )
        meta = _json(sample.meta)
        row: dict[str, Any] = {"key": sample.key, "asset": sample.asset, "part": self.part}
        for name, suffix, payload in (("data", "safetensors", data), ("meta", "json", meta)):
            info = tarfile.TarInfo(f"{sample.key}.{suffix}")
            info.size, info.mode = len(payload), 0o644
            row[f"{name}_offset"] = self._file.offset + tarfile.BLOCKSIZE
            row[f"{name}_bytes"] = len(payload)
            row[f"{name}_crc32"] = zlib.crc32(payload)
            self._file.addfile(info, io.BytesIO(payload))
        row |= {name: sample.meta[name] for name in ("frames", "height", "width")}
        row["has_audio"] = sample.audio is not None
        row["clip"] = str(sample.meta.get("clip", sample.key))
        row["start_frame"] = int(sample.meta.get("start_frame", 0))
        row["source"] = str(sample.meta.get("source", ""))
        self._rows.append(row)

    def commit(self, counts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes tar, rows, then the part's commit file, which is returned.

        counts: JSON values to keep in it. It has `samples` and `frames`, the lengths there are.
        """
        self._file.close()
        tar = self._tar.getvalue()
        rows = table_bytes(pa.Table.from_pylist(self._rows, schema=_ROWS))
        commit_bytes(self.folder / f"{self.part}.tar", tar)
        commit_bytes(self.folder / f"{self.part}.parquet", rows)
        commit = {
            **(counts or {}),
            "key": self.key,
            "samples": len(self._rows),
            "frames": sorted({row["frames"] for row in self._rows}),
            "tar": hashlib.sha256(tar).hexdigest(),
            "rows": hashlib.sha256(rows).hexdigest(),
        }
        commit_bytes(self.folder / f"{self.part}.json", _json(commit))
        return commit


def part_key(shard: str, options: Mapping[str, Any], video: str, audio: str, text: str) -> str:
    """Key of the part that is made of a shard: of its sha256 and all that its latents depend on.

    options: of the encode run, those that decide what a latent holds. video, audio, text:
    fingerprints.
    """
    settings = [SCHEMA, shard, options, video, audio, text]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_commit(folder: Path, part: str, key: str) -> dict[str, Any] | None:
    """The commit of a part, or None unless it bears this key and its files are whole."""
    try:
        commit = json.loads((folder / f"{part}.json").read_text())
        whole = (
            commit["key"] == key
            and _sha256(folder / f"{part}.tar") == commit["tar"]
            and _sha256(folder / f"{part}.parquet") == commit["rows"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return commit if whole else None


def finish(
    folder: Path,
    parts: Sequence[str],
    *,
    video: str,
    audio: str,
    text: str,
    sources: Mapping[str, str],
    options: Mapping[str, Any],
    constants: Mapping[str, np.ndarray],
) -> LatentManifest:
    """Joins committed parts into one index, drops files of other parts, writes the manifest.

    constants: `null_text`, what an empty caption becomes, and the latents of a black clip of each
    bucket, which stand where nothing is known.
    """
    tables, commits = [], {}
    for part in parts:
        tables.append(pq.read_table(folder / f"{part}.parquet", schema=_ROWS, partitioning=None))
        commits[part] = _sha256(folder / f"{part}.json")
    index = table_bytes(pa.concat_tables(tables) if tables else _ROWS.empty_table())
    rows = sum(table.num_rows for table in tables)
    fixed = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in constants.items()})
    manifest = LatentManifest(
        video=video,
        audio=audio,
        text=text,
        sources=dict(sources),
        options=dict(options),
        parts=commits,
        samples=rows,
        index=hashlib.sha256(index).hexdigest(),
        constants=hashlib.sha256(fixed).hexdigest(),
    )
    commit_bytes(folder / "index.parquet", index)
    commit_bytes(folder / "constants.safetensors", fixed)
    commit_bytes(folder / "manifest.json", _json(manifest.__dict__))
    with writing(folder):
        for path in folder.glob("*.tar"):
            if path.stem not in commits:
                for suffix in (".tar", ".parquet", ".json"):
                    path.with_suffix(suffix).unlink(missing_ok=True)
    return manifest


class LatentDataset:
    """Random access to latent shards by row of the index. Safe to share between threads.

    Raises DatasetError for a folder that holds no finished latent shards, another schema version,
    or an index that its manifest does not vouch for.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = _read_manifest(folder)
        data = _read_checked(folder / "index.parquet", self.manifest.index)
        self.rows = read_parquet(data, f"latent index {folder / 'index.parquet'}", schema=_ROWS)
        if any(self.rows[name].null_count for name in _ROWS.names):
            raise DatasetError(f"latent index {folder / 'index.parquet'} has an empty cell.")
        fixed = _read_checked(folder / "constants.safetensors", self.manifest.constants)
        self.constants = _tensors(fixed, f"latent constants {folder / 'constants.safetensors'}")
        self._columns = {n: self.rows[n].to_pylist() for n in self.rows.column_names}
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        return self.rows.num_rows

    def column(self, name: str) -> list[Any]:
        """One column of the index: key, asset, frames, height, width, has_audio, clip, start_frame,
        source."""
        return self._columns[name]

    def channels(self, name: str) -> int:
        """Channels of the first sample's `video` or `audio`; 0 when no sample has it."""
        rows = range(len(self)) if name == "video" else np.flatnonzero(self._columns["has_audio"])
        for row in rows:
            return int(getattr(self.read(int(row)), name).shape[0])
        return 0

    def require(self, *, video: str, audio: str, text: str | None = None) -> None:
        """Raises DatasetError, naming both, when the latents are of another codec or encoder."""
        for name, wanted in (("video", video), ("audio", audio), ("text", text)):
            found = getattr(self.manifest, name)
            if wanted is not None and found != wanted:
                raise DatasetError(
                    f"latent shards {self.folder} were encoded by {name} {found or 'nothing'}, and "
                    f"this run uses {wanted}. Encode the shards again, or use their codec."
                )

    def require_whole(self) -> None:
        """Raises DatasetError, naming it, for a shard that is missing or too short for the index.

        It looks at sizes alone; bytes are compared as they are read.
        """
        ends: dict[str, int] = {}
        for name in ("data", "meta"):
            columns = (self._columns[n] for n in ("part", f"{name}_offset", f"{name}_bytes"))
            for part, offset, size in zip(*columns, strict=True):
                ends[part] = max(ends.get(part, 0), offset + size)
        for part, end in ends.items():
            size = os.fstat(self._descriptor(part)).st_size
            if size < end:
                raise DatasetError(
                    f"latent shard {self.folder / part}.tar is cut short: it has {size} bytes, and "
                    f"its index leads to byte {end}. Encode again: parts that are whole are kept."
                )

    def read(self, row: int) -> LatentSample:
        """The sample of a row. Raises DamagedSampleError when it is not what was written."""
        found = self.members([row])
        return LatentSample(
            key=self._columns["key"][row],
            asset=self._columns["asset"][row],
            meta=found.records[0].fields,
            **{name: found.one(0, name) for name in NAMES},  # type: ignore[arg-type]
        )

    def members(self, rows: Sequence[int]) -> Members:
        """The samples of some rows, each read at once, compared with the crc32 of its bytes.

        Raises DamagedSampleError for the first one that is not what was written.
        """
        parts = [self._columns["part"][row] for row in rows]
        descriptors = {part: self._descriptor(part) for part in set(parts)}
        files = [descriptors[part] for part in parts]
        return read_members(files, self._places[list(rows)], rows, self._where)

    @cached_property
    def _places(self) -> np.ndarray:
        """int64 [n, 6]: offset, bytes and crc32 of tensors, then of the record."""
        names = [f"{of}_{what}" for of in ("data", "meta") for what in ("offset", "bytes", "crc32")]
        return np.column_stack([whole_numbers(self.rows[name]) for name in names])

    def _where(self, row: int) -> str:
        part = self._columns["part"][row]
        return f"sample {self._columns['key'][row]} in {self.folder / part}.tar"

    def _descriptor(self, part: str) -> int:
        if part not in self._files:
            self._open(part)
        return self._files[part]

    def _open(self, part: str) -> None:
        path = self.folder / f"{part}.tar"
        if not _PART.fullmatch(part):
            raise DatasetError(f"latent index of {self.folder} names part {part!r}.")
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DatasetError(
                f"latent shard {path} cannot be read: {error.strerror}. Put it back, or encode "
                "again: parts that are whole are kept."
            ) from error
        if self._files.setdefault(part, descriptor) != descriptor:
            os.close(descriptor)  # another thread was first

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def __enter__(self) -> LatentDataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def held_out_rows(assets: Iterable[str], fraction: float) -> np.ndarray:
    """bool [n]: True for rows whose asset is held out for validation.

    Assets are ranked by sha256, so the split depends on neither order nor file names, and all
    samples of an asset fall on one side. With two assets or more, both sides have at least one.
    """
    names = list(assets)
    ranked = sorted(set(names), key=lambda a: hashlib.sha256(a.encode()).digest())
    count = round(fraction * len(ranked))
    if fraction > 0 and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    chosen = set(ranked[:count])
    return np.array([name in chosen for name in names], dtype=bool)


def _read_manifest(folder: Path) -> LatentManifest:
    path = folder / "manifest.json"
    try:
        fields = json.loads(path.read_text())
        if fields["schema"] != SCHEMA:
            raise DatasetError(
                f"latent shards {folder} have schema version {fields['schema']!r}; this Reelmill "
                f"reads version {SCHEMA}. Encode the shards again."
            )
        manifest = LatentManifest(**fields)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder} holds no finished latent shards (no manifest.json). Run `reelmill encode`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"latent manifest {path} cannot be read: {error}.") from error
    return manifest


def _tensors(data: bytes, what: str) -> dict[str, np.ndarray]:
    try:
        return dict(safetensors.numpy.load(data))
    except Exception as error:  # safetensors raises a class of its own for a bad header
        raise DatasetError(f"{what} holds no tensors: {error}.") from error


def _read_checked(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"latent file {path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise DatasetError(
            f"latent file {path} is not the one its manifest was written for. Run the encode "
            "command again; finished parts are kept."
        )
    return data


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
