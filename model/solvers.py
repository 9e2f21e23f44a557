"""Solvers of dz/dt = v from noise (t = 0) to data (t = 1), as pure functions.

A solver's `step(z, v, t, t_next, memory)` gets a state z, the velocity v that the model sees in it
at time t, the time it is to reach, and what it wants to remember of the step before (None at
first); it gives the next state to look at and its new memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from reelmill.errors import UsageError
from reelmill.model.flow import x0


class Step(Protocol):
    def __call__(
        self, z: Tensor, v: Tensor, t: float, t_next: float, memory: Any
    ) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Solver:
    """twice: whether every step but the last asks the model at its end too."""

    name: str
    step: Step
    twice: bool = False

    def calls(self, times: Sequence[float]) -> list[tuple[float, float]]:
        """(t, t_next) of every velocity that is asked for on the way through `times`."""
        pairs = list(itertools.pairwise(times))
        if not self.twice:
            return pairs
        return [call for t, n in pairs[:-1] for call in ((t, n), (n, n))] + pairs[-1:]


def euler(
    z: Tensor, v: Tensor, t: float, t_next: float, memory: None = None
) -> tuple[Tensor, None]:
    return z + (t_next - t) * v, None


class Began(NamedTuple):
    """Where a step of Heun's began."""

    z: Tensor
    v: Tensor
    t: float


def heun(
    z: Tensor, v: Tensor, t: float, t_next: float, memory: Began | None = None
) -> tuple[Tensor, Began | None]:
    """Heun's second order: an Euler step, which remembers its beginning, and at its end
    (t_next = t) the same step again with the mean of both velocities (Karras et al., 2022)."""
    if memory is None:
        return z + (t_next - t) * v, Began(z, v, t)
    return memory.z + (t - memory.t) * (memory.v + v) / 2, None


class Multistep(NamedTuple):
    """UniPC's last step: from z at t, with the data it pointed to; those of the step before;
    and its order."""

    z: Tensor
    t: float
    data: Tensor
    before: tuple[float, Tensor] | None
    order: int


def unipc(
    z: Tensor, v: Tensor, t: float, t_next: float, memory: Multistep | None = None
) -> tuple[Tensor, Multistep]:
    """UniPC of second order, B(h) = e^h - 1, predicting data (Zhao et al., 2023): the default of
    diffusers' UniPCMultistepScheduler, and its limit where the schedule touches 0 and 1.

    The velocity at z first corrects z itself, then predicts the next state: one call of the model
    for both. The last step is of first order.
    """
    data = x0(z, v, t)
    if memory is not None:
        z = _correct(memory, data, t)
    before = None if memory is None else (memory.t, memory.data)
    order = 1 if before is None or t_next >= 1 else 2
    known = Multistep(z, t, data, before, order)
    first, gain = _first_order(known, t_next)
    if order == 2 and before is not None:
        first = first - gain * 0.5 * (before[1] - data) / _ratio(known, t_next)
    return first, known


def _half_log_snr(t: float) -> float:
    if t <= 0:
        return -math.inf
    return math.inf if t >= 1 else math.log(t) - math.log1p(-t)


def _first_order(m: Multistep, t_next: float) -> tuple[Tensor, float]:
    """The step of first order from m, and the factor of all that higher orders take off."""
    gain = t_next * math.expm1(_half_log_snr(m.t) - _half_log_snr(t_next))
    return m.z * ((1 - t_next) / (1 - m.t)) - gain * m.data, gain


def _ratio(m: Multistep, t_next: float) -> float:
    """Length of the step before, against this one, in half log SNR; negative."""
    assert m.before is not None
    here = _half_log_snr(m.t)
    return (_half_log_snr(m.before[0]) - here) / (_half_log_snr(t_next) - here)


def _correct(m: Multistep, data: Tensor, t: float) -> Tensor:
    """The state at t that m's step would have reached, had it known the data seen from there."""
    first, gain = _first_order(m, t)
    if m.order == 1 or m.before is None:
        return first - gain * 0.5 * (data - m.data)
    h = _half_log_snr(m.t) - _half_log_snr(t)  # -h of the paper
    whole = math.expm1(h)
    phi2 = whole / h - 1
    b1, b2 = phi2 / whole, 2 * (phi2 / h - 0.5) / whole
    ratio = _ratio(m, t)
    past = (b1 - b2) / (1 - ratio)
    return first - gain * (past * (m.before[1] - m.data) / ratio + (b1 - past) * (data - m.data))


EULER, HEUN, UNIPC = Solver("euler", euler), Solver("heun", heun, True), Solver("unipc", unipc)
SOLVERS = {solver.name: solver for solver in (EULER, HEUN, UNIPC)}


def solver_named(name: str) -> Solver:
    """Raises UsageError that lists the solvers there are."""
    if name not in SOLVERS:
        raise UsageError(f"no solver {name!r}; there are: {', '.join(SOLVERS)}.")
    return SOLVERS[name]
