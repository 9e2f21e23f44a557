"""Clips that show what another data set holds already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reelmill.curation.near_duplicate import (
    HASHES,
    WAYS,
    candidates,
    hash_lists,
    matched,
    span_text,
)
from reelmill.curation.stage import Bound, FactTable, Rejection, TableStage, knob
from reelmill.curation.video.phash import HEX
from reelmill.datasets.index import ShardIndex, read_manifest
from reelmill.datasets.sample import Kind
from reelmill.errors import DatasetError, UsageError

TIMES = "phash_ms"
SHARDS = "shards"  # of a workspace, by kind


@dataclass(frozen=True, kw_only=True)
class KnownDuplicate(TableStage):
    """Rejects clips that show what a clip of another data set shows, and names that clip.

    against: workspaces, or folders of shards, whose clips have hashes among their facts. A clip is
    a duplicate as NearDuplicate has it; the other data set keeps its copy, however small it is, so
    that what was released or trained on stays as it is. Clips of one and the same file are compared
    too. The near-duplicate search is one over both, and its outcome is kept until either changes.

    Raises UsageError for a folder that holds no shards, DatasetError for shards without hashes.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO, Kind.IMAGE})
    needs: ClassVar = (*HASHES, TIMES)
    paper: ClassVar = "section 3.4, deduplication; here against data sets made before"
    against: tuple[str, ...] = ()
    max_distance: Bound = knob(10)

    def ready(self, workspace: Path) -> None:
        own = workspace.resolve()
        for folder in self._folders():
            if folder.resolve().is_relative_to(own):
                raise UsageError(
                    f"KnownDuplicate.against names {folder}, which is of this run's own workspace: "
                    "every clip would be a duplicate of itself. NearDuplicate compares its clips."
                )

    def beside(self) -> str:
        digests = [read_manifest(folder).index_sha256 for folder in self._folders()]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def compare(self, table: FactTable) -> Mapping[str, np.ndarray]:
        """Pairs as of NearDuplicate, b being a place in `theirs`: JSON as bytes, uint8 [n], of the
        matched clips: id, folder, times."""
        if self.max_distance.value is None or not len(table) or not self.against:
            return {}
        known = list(self._known(str(table.clips[0].kind)))
        most, count = int(self.max_distance.value), len(table)
        hashes = [
            [*hash_lists(table[name]), *hash_lists(facts[name] for _, _, facts in known)]
            for name in HASHES
        ]
        a, b = candidates(hashes[0], hashes[1:], most)
        between = (a < count) & (b >= count)
        found = matched(hashes, a[between], b[between], most)
        places, found["b"] = np.unique(found["b"] - count, return_inverse=True)
        theirs = [[known[i][0], known[i][1], known[i][2][TIMES]] for i in places.tolist()]
        return found | {"theirs": np.frombuffer(json.dumps(theirs).encode(), np.uint8)}

    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        found, rows = table.findings, table.rows
        if found is None or rows is None:
            found, rows = self.compare(table), np.arange(len(table))
        if "theirs" not in found:
            return {}
        theirs = json.loads(found["theirs"].tobytes())
        rejected: dict[int, Rejection] = {}
        # The nearest first; of those as near, the one whose id is the lowest.
        for pair in np.lexsort((found["b"], found["bits"])).tolist():
            place = int(np.searchsorted(rows, found["a"][pair]))
            if place == len(rows) or rows[place] != found["a"][pair] or place in rejected:
                continue
            name, folder, times = theirs[int(found["b"][pair])]
            at = [
                span_text(table[TIMES][place], found, pair, "a"),
                span_text(times, found, pair, "b"),
            ]
            shows = f"; its {at[0]} shows what {at[1]} there shows" if all(at) else ""
            bits = float(found["bits"][pair])
            rejected[place] = Rejection(
                "known_duplicate",
                bits,
                f"distance > {self.max_distance.value:g}",
                f"of {name} in {folder}{WAYS[found['how'][pair]]}: {bits:g} of 64 bits differ"
                f"{shows}",
            )
        return rejected

    def _folders(self) -> Iterator[Path]:
        """Folders of shards, of every kind."""
        for given in self.against:
            root = Path(given)
            kinds = [root / SHARDS / str(kind) for kind in sorted(self.kinds)]
            found = [folder for folder in (root, *kinds) if read_manifest(folder).index]
            if not found:
                raise UsageError(
                    f"KnownDuplicate.against names {given}, which holds no shards. Name a "
                    "workspace that was curated, or a folder of its shards."
                )
            yield from found

    def _known(self, kind: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """(id, folder, facts) of all clips of a kind that the other data sets hold, by id."""
        for folder in self._folders():
            with ShardIndex.read(folder) as index:
                for key in sorted(index.keys):
                    if not index.has(key, "json"):
                        continue
                    record = _record(index.member(key, "json"), f"sample {key} in {folder}")
                    if record["kind"] == kind:
                        yield key, folder.as_posix(), record["facts"]


def _record(data: bytes, what: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
        facts = {name: record["facts"][name] for name in (*HASHES, TIMES)}
        if not all(isinstance(text, str | dict) for text in facts.values()):
            raise TypeError("its hashes are no text")
        for name in HASHES:
            if isinstance(facts[name], str) and len(bytes.fromhex(facts[name])) * 2 % HEX:
                raise ValueError(f"{name} of {len(facts[name])} digits")
        return {"kind": str(record["kind"]), "facts": facts}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{what} has no hashes of its pictures ({error!r}). Curate that data set again."
        ) from error
