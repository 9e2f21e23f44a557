"""T9 for every solver, their orders, and UniPC against diffusers'."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reelmill.errors import UsageError
from reelmill.model.flow import from_sigma_velocity
from reelmill.model.sampler import schedule
from reelmill.model.solvers import EULER, HEUN, SOLVERS, UNIPC, Solver, solver_named, unipc

MEAN, STD = 2.0, 0.5


def gaussian(z: Tensor, t: float) -> Tensor:
    """The velocity whose data are N(2, .5^2) (notes on flow matching, T9)."""
    variance = t**2 * STD**2 + (1 - t) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (z - t * MEAN)


def solve(solver: Solver, velocity: Callable[[Tensor, float], Tensor], z: Tensor, times) -> Tensor:
    memory = None
    for t, t_next in solver.calls(list(times)):
        z, memory = solver.step(z, velocity(z, t), t, t_next, memory)
    return z


def exact(z: Tensor) -> Tensor:
    return MEAN + STD * z  # the flow moves quantiles to quantiles


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_turns_noise_into_the_planted_gaussian(name):
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = solve(solver_named(name), gaussian, z, schedule(100, 1.0).tolist())
    assert data.mean() == pytest.approx(MEAN, abs=0.02)
    assert data.std() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize(("solver", "order"), [(EULER, 1), (HEUN, 2), (UNIPC, 2)])
def test_the_error_falls_with_the_order_of_the_solver(solver, order):
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    error = []
    for steps in (40, 80):  # inside (0, 1): end points are of first order by design
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64).tolist()
        fine = solve(HEUN, gaussian, z, torch.linspace(0.1, 0.9, 4001).double().tolist())
        error.append((solve(solver, gaussian, z, times) - fine).abs().max().item())
    assert math.log2(error[0] / error[1]) > order - 0.2


def test_better_solvers_need_fewer_calls_for_the_same_error():
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    error = {}
    for solver, steps in ((EULER, 20), (HEUN, 10), (UNIPC, 20)):
        data = solve(solver, gaussian, z, schedule(steps, 1.0).tolist())
        error[solver.name] = (data - exact(z)).abs().max().item()
    assert error["heun"] < error["euler"] / 2
    assert error["unipc"] < error["euler"] / 2


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
def test_unipc_is_that_of_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    scheduler.set_timesteps(steps)
    g = torch.Generator().manual_seed(1)
    z = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    mix = torch.randn(4, 4, generator=g, dtype=torch.float64)

    def their_velocity(z: Tensor, sigma: float) -> Tensor:
        return torch.tanh(z @ mix + sigma) - 0.3 * z

    theirs, ours, memory = z, z, None
    sigmas = scheduler.sigmas.double().tolist()
    for i, timestep in enumerate(scheduler.timesteps):
        theirs = scheduler.step(
            their_velocity(theirs, sigmas[i]), timestep, theirs, return_dict=False
        )[0]
        v = from_sigma_velocity(their_velocity(ours, sigmas[i]))
        ours, memory = unipc(ours, v, 1 - sigmas[i], 1 - sigmas[i + 1], memory)
        assert torch.allclose(ours, theirs, atol=2e-5, rtol=2e-5), i


@given(st.integers(1, 12), st.floats(0.5, 12), st.sampled_from(sorted(SOLVERS)))
def test_a_constant_velocity_is_followed_exactly_by_all(steps, shift, name):
    z = torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64)
    v = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    end = solve(solver_named(name), lambda z, t: v, z, schedule(steps, shift).tolist())
    assert torch.allclose(end, z + v, atol=1e-9)


def test_heun_asks_twice_but_for_the_last_step():
    assert HEUN.calls([0.0, 0.5, 1.0]) == [(0.0, 0.5), (0.5, 0.5), (0.5, 1.0)]
    assert EULER.calls([0.0, 0.5, 1.0]) == UNIPC.calls([0.0, 0.5, 1.0]) == [(0.0, 0.5), (0.5, 1.0)]


def test_an_unknown_solver_names_those_there_are():
    with pytest.raises(UsageError, match="euler, heun, unipc"):
        solver_named("rk45")
