"""No kind of clip may crowd out the others."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.stage import Bound, FactTable, Rejection, TableStage, knob
from reelmill.datasets.sample import Kind

# Facts that tell clips apart, with the size of a difference that one sees.
DESCRIPTORS = {"luma": 40.0, "contrast": 20.0, "red_green": 15.0, "yellow_blue": 20.0}
MOTION = 1.0  # in factors of e


@dataclass(frozen=True, kw_only=True)
class Balance(TableStage):
    """Caps the share of every cluster of look-alike clips among those that are kept.

    Clips are clustered by k-means over lightness, contrast, colour and, where it was measured,
    motion. If a cluster would make up more than `max_share` of what is kept, the largest clusters
    are cut to one common size, the largest for which no share is above it. With fewer clusters
    than that allows for (a share below 1 / clusters cannot be had), all are cut to the size of the
    smallest, and the rejection says what was achieved. Which clips of a cluster stay is drawn by a
    hash of seed and clip id, so neither the order of the input nor other clips' fate matters.

    max_share: off by default; every clip is kept.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO, Kind.IMAGE})
    needs: ClassVar = tuple(DESCRIPTORS)
    paper: ClassVar = "section 3.4, balance by embedding clusters; here by simple descriptors"
    clusters: Bound = knob(8)
    max_share: Bound = knob(None)
    seed: int = 0

    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        share = self.max_share.value
        if share is None or len(table) < 2:
            return {}
        labels = self.labels(table)
        names, sizes = np.unique(labels, return_counts=True)
        quota = _quota(sizes, share)
        kept = np.minimum(sizes, quota)
        achieved = kept.max() / kept.sum()
        rejected = {}
        for name, size in zip(names, sizes, strict=True):
            rows = np.flatnonzero(labels == name)
            drawn = sorted(rows, key=lambda row: self._draw(table.clips[row].id))
            for row in drawn[quota:]:
                rejected[int(row)] = Rejection(
                    "over_quota",
                    float(size / len(table)),
                    f"share <= {share:g}",
                    f"cluster {name} of {len(names)}: {size} of {len(table)} clips, {quota} kept; "
                    f"largest share {share:.3g} requested, {achieved:.3g} achieved",
                )
        return rejected

    def labels(self, table: FactTable) -> np.ndarray:
        """Cluster of each clip, int64 [clips]; clips without descriptors are cluster 0 together."""
        points = np.stack([table[name] / scale for name, scale in DESCRIPTORS.items()], axis=1)
        if "motion" in table.columns:
            motion = np.log(np.maximum(table["motion"], 1e-4)) / MOTION
            points = np.column_stack([points, np.where(np.isnan(motion), 0.0, motion)])
        known = ~np.isnan(points).any(axis=1)
        labels = np.zeros(len(table), np.int64)
        count = min(int(self.clusters.value or 1), len(np.unique(points[known], axis=0)))
        if count > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # an empty cluster is no harm
                from scipy.cluster.vq import kmeans2  # a second to import

                _, found = kmeans2(points[known], count, iter=50, minit="++", rng=self.seed)
            labels[known] = found
        return labels

    def _draw(self, clip_id: str) -> bytes:
        return hashlib.sha256(f"{self.seed}:{clip_id}".encode()).digest()


def _quota(sizes: np.ndarray, share: float) -> int:
    """The largest common cap at which no cluster has more than that share of what is kept.

    Where there is none, the size of the smallest cluster: all equal is the best there is.
    """
    if share * len(sizes) < 1:
        return int(sizes.min())
    low, high = int(sizes.min()), int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        kept = np.minimum(sizes, middle)
        if kept.max() <= share * kept.sum() + 1e-9:
            low = middle
        else:
            high = middle - 1
    return low
