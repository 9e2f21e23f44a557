"""Clips that show the same thing, though not the same pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reelmill.curation.keep_best import losers
from reelmill.curation.stage import Bound, FactTable, Rejection, TableStage, knob
from reelmill.curation.video.embedding import directions
from reelmill.datasets.sample import Kind

EXACT = 50_000  # clips up to which every pair is compared
PROBES = 16  # cells that a clip is looked up in, beyond that
_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicate(TableStage):
    """Keeps the best of every set of clips whose embeddings are `min_similarity` alike.

    Going down from the best clip (longest, then largest, then most bytes, then the lowest id), one
    is rejected when it is as much alike to one already kept, and names it. The cosine is between
    mean vectors of clips (Embedding). Off by default: what counts as the same depends on the
    network; cosmos-curate has 0.99 for its own video encoder. Up to 50,000 clips every pair is
    compared; beyond, by FAISS, in the 16 nearest of sqrt(n) cells, which may miss pairs. Clips of
    one file are compared too where `same_asset` says so.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO, Kind.IMAGE})
    needs: ClassVar = ("embedding", "source_pixels", "source_bytes")
    paper: ClassVar = "section 3.4, deduplication of segmented clips by embeddings"
    min_similarity: Bound = knob(None)
    same_asset: bool = False

    def compare(self, table: FactTable) -> Mapping[str, np.ndarray]:
        """All pairs alike enough: rows a < b, and their cosine."""
        least = self.min_similarity.value
        if least is None or len(table) < 2:
            return {"a": np.zeros(0, np.int64), "b": np.zeros(0, np.int64), "cosine": np.zeros(0)}
        vectors, known = directions(table["embedding"])
        rows = np.flatnonzero(known)
        names = np.unique([clip.asset for clip in table.clips], return_inverse=True)[1]
        parts = []
        for i, j, cosine in alike_pairs(vectors[rows], float(least)):
            a, b = rows[np.minimum(i, j)], rows[np.maximum(i, j)]
            wanted = (names[a] != names[b]) | self.same_asset
            parts.append(np.stack([a, b, cosine], axis=1)[wanted])
        found = np.unique(np.concatenate([np.zeros((0, 3)), *parts]), axis=0)
        return {
            "a": found[:, 0].astype(np.int64),
            "b": found[:, 1].astype(np.int64),
            "cosine": found[:, 2],
        }

    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        least = self.min_similarity.value
        if least is None or len(table) < 2:
            return {}
        found, rows = table.findings, table.rows
        if found is None or rows is None:
            found, rows = self.compare(table), np.arange(len(table))
        here = np.isin(found["a"], rows) & np.isin(found["b"], rows)
        a, b = (np.searchsorted(rows, found[name][here]).tolist() for name in ("a", "b"))
        matches: dict[int, dict[int, float]] = {}
        for i, j, cosine in zip(a, b, found["cosine"][here].tolist(), strict=True):
            matches.setdefault(i, {})[j] = matches.setdefault(j, {})[i] = cosine
        return {
            row: Rejection(
                "semantic_duplicate",
                matches[row][best],
                f"similarity < {least:g}",
                f"of {table.clips[best].id}",
            )
            for row, best in losers(table, matches)
        }


def alike_pairs(
    vectors: np.ndarray, least: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Positions i < j and cosines, rounded to 1e-6, of unit vectors float32 [n, d] alike enough."""
    import faiss  # slow to import, and most runs need no search

    count, width = vectors.shape
    if count < 2:
        return
    index: Any = faiss.IndexFlatIP(width)
    if count > EXACT:
        cells = round(count**0.5)
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.nprobe = 0, min(PROBES, cells)
        step = max(1, count // (64 * cells))
        index.train(np.ascontiguousarray(vectors[::step]))
    index.add(np.ascontiguousarray(vectors))
    for start in range(0, count, _BATCH):
        limits, _, found = index.range_search(
            np.ascontiguousarray(vectors[start : start + _BATCH]), least - 1e-6
        )
        first = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
        # Each pair once, and its cosine anew: FAISS's own depends on the size of the batch.
        i, j = np.minimum(first, found), np.maximum(first, found)
        i, j = i[i < j], j[i < j]
        exact = np.einsum("nd,nd->n", vectors[i].astype(np.float64), vectors[j].astype(np.float64))
        cosine = np.round(exact, 6)
        yield i[cosine >= least], j[cosine >= least], cosine[cosine >= least]
