"""How many planted defects of a made corpus did a run find? Truth against the ledger's verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reelmill.datasets.corpus.truth import CorpusTruth, FileTruth
from reelmill.datasets.sample import Outcome
from reelmill.errors import DatasetError

# A stage names what it measures; where that differs from the defect's name, it is told here.
NAMES: Mapping[str, frozenset[str]] = {
    "frozen": frozenset({"frozen", "repeated_frames"}),
    "underexposed": frozenset({"underexposed", "low_contrast"}),
    "logo": frozenset({"overlay"}),
    "noisy": frozenset({"noisy", "low_mos"}),
    "silent": frozenset({"silent", "mostly_silent"}),
}


@dataclass(frozen=True)
class FileVerdict:
    """What a run said of one file: its outcome, and every reason that it or its clips ended by."""

    outcome: Outcome
    reasons: frozenset[str]


@dataclass(frozen=True)
class Finding:
    """One file of the corpus: what should have become of it, and what did."""

    truth: FileTruth
    verdict: FileVerdict

    @property
    def right(self) -> bool:
        """Whether the outcome is the expected one, for the expected reason where one is told."""
        expected = self.truth.expected
        if self.verdict.outcome != expected.outcome:
            return False
        if expected.outcome == Outcome.KEPT or not expected.reason:
            return True
        return bool(NAMES.get(expected.reason, {expected.reason}) & self.verdict.reasons)

    def __str__(self) -> str:
        expected = self.truth.expected
        what = ", ".join(d.kind for d in self.truth.defects) or "clean"
        said = ", ".join(sorted(self.verdict.reasons))
        return (
            f"{self.truth.name} ({what}): {self.verdict.outcome}{f' ({said})' if said else ''}, "
            f"expected {expected.outcome}{f' ({expected.reason})' if expected.reason else ''}"
        )


@dataclass(frozen=True)
class Score:
    """Files with a planted defect and clean files, each judged."""

    planted: tuple[Finding, ...]
    clean: tuple[Finding, ...]

    @property
    def found(self) -> int:
        return sum(f.right for f in self.planted)

    @property
    def spared(self) -> int:
        """Clean files that were rightly kept."""
        return sum(f.right for f in self.clean)

    @property
    def misses(self) -> list[Finding]:
        return [f for f in (*self.planted, *self.clean) if not f.right]


def score(truth: CorpusTruth, corpus: Path, verdicts: Path) -> Score:
    """Compares truth.json of `corpus` with the ledger's verdict rows of one run.

    Raises DatasetError when the run never saw a file of the corpus.
    """
    judged = _by_file(pq.read_table(verdicts).to_pylist())
    findings = []
    for file in truth.files:
        path = (corpus / file.name).resolve()
        if path not in judged:
            raise DatasetError(f"{verdicts} holds no verdict on {path}: was the corpus curated?")
        findings.append(Finding(file, judged[path]))
    return Score(
        tuple(f for f in findings if f.truth.defects or f.truth.expected.outcome != Outcome.KEPT),
        tuple(
            f for f in findings if not f.truth.defects and f.truth.expected.outcome == Outcome.KEPT
        ),
    )


def _by_file(rows: Iterable[Mapping[str, Any]]) -> dict[Path, FileVerdict]:
    grouped: dict[Path, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        levels = grouped.setdefault(Path(row["path"]).resolve(), {})
        levels.setdefault(row["level"], []).append(row)
    return {path: _verdict(levels) for path, levels in grouped.items()}


def _verdict(levels: Mapping[str, list[Mapping[str, Any]]]) -> FileVerdict:
    """Of the lowest level that ended the file; kept if one of its clips is."""
    for level in ("file", "asset", "clip"):
        rows = levels.get(level, [])
        outcomes = {Outcome(row["outcome"]) for row in rows}
        if not rows or (level != "clip" and outcomes == {Outcome.KEPT}):
            continue
        ranked = (Outcome.KEPT, Outcome.FAILED, Outcome.REJECTED)
        outcome = next(o for o in ranked if o in outcomes)
        ended = frozenset(row["reason"] for row in rows if row["outcome"] != Outcome.KEPT)
        return FileVerdict(outcome, ended)
    return FileVerdict(Outcome.KEPT, frozenset())
