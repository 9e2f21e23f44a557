"""No kind of clip may crowd out the others."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reelmill.curation.quota import WAYS, Quotas, capped, explicit, parse, shared
from reelmill.curation.stage import Bound, FactTable, Rejection, TableStage, knob
from reelmill.curation.video.embedding import directions
from reelmill.datasets.sample import Kind

# Facts that tell clips apart, with the size of a difference that one sees.
DESCRIPTORS = {"luma": 40.0, "contrast": 20.0, "red_green": 15.0, "yellow_blue": 20.0}
MOTION = 1.0  # in factors of e
BY = ("looks", "embedding", "category")


def moves(table: FactTable) -> list[str]:
    """How the camera moves in each clip; `unknown` where that was not measured."""
    found = table.columns.get("camera", [None] * len(table))
    return [way if isinstance(way, str) else "unknown" for way in found]


@dataclass(frozen=True, kw_only=True)
class Balance(TableStage):
    """Holds every group of clips that look alike to a quota.

    by: `looks` clusters clips by k-means over lightness, contrast, colour and, where it was
        measured, motion; `embedding` over the vectors of the stage Embedding; `category` takes the
        categories of the stage Category, `none` where the caption names none.
    motion_types: the groups are clusters by the way the camera moves (`Camera`), named as
        `3 pan_left`; otherwise clusters, named `3`.

    quota: `cap`: if a group would make up more than `max_share` of what is kept, the largest are
        cut to one common size. With fewer groups than that allows for (a share below 1 / groups
        cannot be had), all are cut to the size of the smallest. `proportional`: every group keeps
        its share of `total`. `inverse_sqrt`: a group's share of `total` is as the root of its size
        (Movie Gen). `explicit`: `wanted` says how many, as `name=count`, of a group or of one way
        the camera moves (`pan_left=100`); others stay whole.
    total: clips to keep, of the two ways that share it; without it the most that all groups can
        give. Where a group has fewer than asked for, none takes its place, and every rejection
        says what is short.

    Which clips of a group stay is drawn by a hash of seed and clip id, so neither the order of the
    input nor other clips' fate matters. Off by default: no max_share, and cap.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO, Kind.IMAGE})
    paper: ClassVar = (
        "section 3.4, balance by embedding clusters, or simple descriptors; SFT: categories"
    )
    clusters: Bound = knob(8)
    max_share: Bound = knob(None)
    quota: str = "cap"
    total: Bound = knob(None)
    wanted: tuple[str, ...] = ()
    motion_types: bool = False
    seed: int = 0
    by: str = "looks"

    def __post_init__(self) -> None:
        if self.quota not in WAYS:
            raise ValueError(f"use one of {', '.join(WAYS)}")
        if self.by not in BY:
            raise ValueError(f"by is one of {', '.join(BY)}")
        parse(self.wanted)

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(DESCRIPTORS) if self.by == "looks" else (self.by,)

    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        held = self.quotas(table)
        if held is None:
            return {}
        names, labels, quotas = held
        said = self._said(names, quotas)
        rejected = {}
        for place, (name, quota) in enumerate(zip(names, quotas.kept.tolist(), strict=True)):
            rows = np.flatnonzero(labels == place)
            drawn = sorted(rows, key=lambda row: self._draw(table.clips[row].id))
            for row in drawn[quota:]:
                rejected[int(row)] = Rejection(
                    "over_quota",
                    float(len(rows) / len(table)),
                    self._asked(name, quotas.asked[place]),
                    f"cluster {name} of {len(names)}: {len(rows)} of {len(table)} clips, {quota} "
                    f"kept; {said}",
                )
        return rejected

    def quotas(self, table: FactTable) -> tuple[np.ndarray, np.ndarray, Quotas] | None:
        """Names of groups, str [groups]; the group of each clip, int64 [clips]; what is asked of
        each. None where nothing is asked: it is off, or there is nothing to balance."""
        off = self.max_share.value is None if self.quota == "cap" else False
        if off or len(table) < 2:
            return None
        names, labels, sizes = np.unique(
            self.groups(table), return_inverse=True, return_counts=True
        )
        return names, labels, self._quotas(names, sizes)

    def _quotas(self, names: np.ndarray, sizes: np.ndarray) -> Quotas:
        total = None if self.total.value is None else int(self.total.value)
        if self.quota == "cap":
            return capped(sizes, float(self.max_share.value or 0))
        if self.quota == "explicit":
            return explicit(names.tolist(), sizes, self._by_group(names, sizes))
        return shared(sizes, self.quota, total)

    def _by_group(self, names: np.ndarray, sizes: np.ndarray) -> dict[str, int]:
        """Explicit quotas by group; those of a way the camera moves are shared out among its."""
        wanted = parse(self.wanted)
        found = {name: wanted[name] for name in names.tolist() if name in wanted}
        for way, count in wanted.items():
            rest = [i for i, n in enumerate(names.tolist()) if n.partition(" ")[2] == way]
            given = shared(sizes[rest], "proportional", count).asked.tolist()
            found |= {str(names[i]): n for i, n in zip(rest, given, strict=True)}
        return found

    def _asked(self, name: str, asked: int) -> str:
        return f"share <= {self.max_share.value:g}" if self.quota == "cap" else f"{name}: {asked}"

    def _said(self, names: np.ndarray, quotas: Quotas) -> str:
        """What was asked for and what was had, over all groups."""
        kept = quotas.kept
        if self.quota == "cap":
            achieved = kept.max() / max(1, kept.sum())
            return f"largest share {self.max_share.value:.3g} requested, {achieved:.3g} achieved"
        asked = int(np.where(quotas.asked < 0, quotas.sizes, quotas.asked).sum())
        said = f"{asked} clips requested in all, {int(kept.sum())} achieved"
        short = [f"{names[i]} has {quotas.sizes[i]} of {quotas.asked[i]}" for i in quotas.short[:5]]
        unknown = sorted(
            set(parse(self.wanted)) - set(names) - {n.partition(" ")[2] for n in names}
        )
        short += [f"{name} has none" for name in unknown[:5]]
        return f"{said}; short: {', '.join(short)}" if short else said

    def groups(self, table: FactTable) -> np.ndarray:
        """Name of each clip's group, str [clips]."""
        if self.by == "category":
            clusters = [c if isinstance(c, str) else "none" for c in table[self.by]]
        else:
            clusters = [str(label) for label in self.labels(table).tolist()]
        if not self.motion_types:
            return np.array(clusters)
        return np.array([f"{c} {m}" for c, m in zip(clusters, moves(table), strict=True)])

    def labels(self, table: FactTable) -> np.ndarray:
        """Cluster of each clip, int64 [clips]; clips without descriptors are cluster 0 together."""
        if self.by == "embedding":
            points, known = directions(table[self.by])
        else:
            points, known = _looks(table)
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


def _looks(table: FactTable) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors, float64 [clips, d], and which clips have them all."""
    points = np.stack([table[name] / scale for name, scale in DESCRIPTORS.items()], axis=1)
    if "motion" in table.columns:
        motion = np.log(np.maximum(table["motion"], 1e-4)) / MOTION
        points = np.column_stack([points, np.where(np.isnan(motion), 0.0, motion)])
    return points, np.asarray(~np.isnan(points).any(axis=1))
