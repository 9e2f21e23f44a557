"""Loss spikes: which updates are left out, which clips they are traced to, and when to go back.

A clip's loss is compared with the last ones of its task, modality and tenth of t; the gradient's
norm with those of its task. What lies far above their median, or is no number, is a spike: the
update is left out and named with its clips. A clip that spikes again is barred for good. Spikes at
several steps in a row are no clip's fault: the run goes back to its last checkpoint, without those
clips, and after that has not helped a few times it ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reelmill.datasets.loader import Batch
from reelmill.training.curriculum import SpikeRule
from reelmill.training.metrics import T_BUCKETS
from reelmill.training.objective import Losses

MEMORY = 64  # losses of a kind that are remembered, at least SpikeRule.after
LEAST_SPREAD = 0.25  # of the logarithm: where losses hardly differ, a little is no spike
NORMAL = 1.4826  # standard deviations in a median absolute deviation


@dataclass
class Spikes:
    """What has been seen so far. seen: logarithms of losses by kind, the last ones; strikes: by
    clip; row: clips and reasons of the steps in a row that were left out."""

    rule: SpikeRule
    seen: dict[str, list[float]] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)
    row: list[dict[str, str]] = field(default_factory=list)

    def judge(self, batch: Batch, losses: Losses, grad_norm: float) -> dict[str, str]:
        """Clips of this step that spike, and why; {}: the update is sound, and remembered."""
        found: dict[str, str] = {}
        sound: list[tuple[str, float]] = []
        for key, kind, t, loss in _of_clips(batch, losses):
            tenth = min(int(t * T_BUCKETS), T_BUCKETS - 1)
            names = (f"{batch.task}/{kind}/t{tenth}", f"{batch.task}/{kind}")
            if why := self._spike(names, loss):
                found[key] = f"{kind} loss at t = {t:.2f} {why}"
            else:
                sound += [(name, loss) for name in names]
        norm = f"{batch.task}/gradient"
        if not found and (why := self._spike((norm,), grad_norm)):
            found = dict.fromkeys(batch.keys, f"gradient norm of its batch {why}")
        if found:
            for key in found:
                self.strikes[key] = self.strikes.get(key, 0) + 1
            self.row.append(found)
        else:
            self.row.clear()
            sound.append((norm, grad_norm))
        for name, value in sound:
            of_kind = self.seen.setdefault(name, [])
            of_kind.append(math.log(max(value, 1e-30)))
            del of_kind[:-MEMORY]
        return found

    def barred(self, clips: Mapping[str, str]) -> list[str]:
        """Those of the clips of a spike that are to be left out from now on."""
        return [key for key in clips if self.strikes.get(key, 0) >= self.rule.strikes]

    @property
    def must_go_back(self) -> bool:
        return len(self.row) >= self.rule.in_a_row

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen, "strikes": self.strikes, "row": self.row}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.seen = {name: [float(v) for v in values] for name, values in state["seen"].items()}
        self.strikes = {key: int(count) for key, count in state["strikes"].items()}
        self.row = [dict(found) for found in state["row"]]

    def _spike(self, names: tuple[str, ...], value: float) -> str:
        """Why a value is a spike, among the first of these kinds of which enough is known."""
        if not math.isfinite(value):
            return f"is {value}"
        name = next((n for n in names if len(self.seen.get(n, ())) >= self.rule.after), "")
        if not name or not self.rule.above:
            return ""
        known = np.array(self.seen[name])
        median = float(np.median(known))
        spread = max(NORMAL * float(np.median(np.abs(known - median))), LEAST_SPREAD)
        far = (math.log(max(value, 1e-30)) - median) / spread
        if far <= self.rule.above:
            return ""
        return f"is {value:.3g}, {math.exp(median):.3g} in the median of {name}"


def _of_clips(batch: Batch, losses: Losses) -> Iterator[tuple[str, str, float, float]]:
    """(clip, modality, t, loss) of a batch."""
    for kind, values in (("video", losses.video), ("audio", losses.audio)):
        if values is not None:
            for key, t, loss in zip(batch.keys, losses.t.tolist(), values.tolist(), strict=True):
                yield key, kind, t, loss
