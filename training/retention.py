"""What a stage made of what was learned before it: held-out losses, and whether they may be so.

<stage>/held_out.json    the judgement of a stage that is done, for its page (reports/training.py)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import GateError
from reelmill.training.curriculum import Check, TrainStage

FILE = "held_out.json"


@dataclass(frozen=True)
class Kept:
    """A held-out loss over a stage.

    before, after: at its start and end. own: whether the stage trains it. learned: what it was when
    an earlier stage trained it last, None where none did. bound: how high it may be.
    """

    name: str
    before: float
    after: float
    own: bool
    learned: float | None
    bound: float | None

    @property
    def broken(self) -> bool:
        return self.bound is not None and self.after > self.bound


@dataclass(frozen=True)
class Judgement:
    """before, after: the stage's own loss, over its tasks. reasons: why it is not promoted."""

    before: float
    after: float
    tasks: tuple[Kept, ...]
    reasons: tuple[str, ...]


def judge(
    stage: TrainStage,
    checks: Sequence[Check],
    first: Mapping[str, float],
    last: Mapping[str, float],
    learned: Mapping[str, float],
) -> Judgement:
    """first, last: held-out losses at the start and the end of the stage, by name. learned: those
    at the end of the stages that trained them last."""
    rule = stage.retention
    found, reasons = [], []
    for check in checks:
        name, known = check.name, learned.get(check.name)
        bound = None if rule is None or known is None else known * (1 + rule.allowed(name))
        kept = Kept(name, first[name], last[name], check.weight > 0, known, bound)
        if kept.broken and rule is not None:
            reasons.append(
                f"the held-out loss of {name} is {kept.after:.4f}, was {known:.4f}, and may rise "
                f"by {rule.allowed(name):.0%}"
            )
        found.append(kept)
    before, after = (_own(checks, losses) for losses in (first, last))
    if rule is not None and rule.must_fall and not after < before:
        reasons.append(
            f"its own held-out loss went from {before:.4f} to {after:.4f} and did not fall"
        )
    return Judgement(before, after, tuple(found), tuple(reasons))


def _own(checks: Sequence[Check], losses: Mapping[str, float]) -> float:
    total = sum(check.weight for check in checks)
    return sum(check.weight * losses[check.name] for check in checks) / total


def write(folder: Path, found: Judgement) -> None:
    """Keeps a judgement in a stage's folder."""
    data = asdict(found) | {"tasks": [asdict(k) | {"broken": k.broken} for k in found.tasks]}
    commit_bytes(folder / FILE, (json.dumps(data, indent=1) + "\n").encode())


def require(stage: TrainStage, found: Judgement) -> None:
    """Raises GateError for a stage that forgot more than it may, or learned nothing."""
    if found.reasons:
        raise GateError(
            f"stage {stage.name!r} is not promoted: {'; '.join(found.reasons)}. No later stage was "
            "started. See training.html; give it more of the earlier tasks, a lower optim.lr or "
            "other steps, or change its retention."
        )
