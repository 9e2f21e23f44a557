"""T8, T9: identities of the flow, and Euler steps along a velocity known in closed form."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.model import flow
from reelmill.model.sampler import schedule

times = st.floats(0, 1)


@given(times, st.integers(0, 2**31))
def test_velocity_leads_back_to_data_and_noise(t, seed):
    generator = torch.Generator().manual_seed(seed)
    z0, eps = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64, generator=generator)
    at = torch.tensor([t, t / 2], dtype=torch.float64)
    z, v = flow.interpolate(z0, eps, at), flow.target(z0, eps)
    assert torch.allclose(flow.x0(z, v, at), z0, atol=1e-12)
    assert torch.allclose(flow.eps(z, v, at), eps, atol=1e-12)


@given(times, st.integers(0, 2**31))
def test_predicted_data_is_where_its_velocity_leads(t, seed):
    z, z0 = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    at = torch.tensor([0.9 * t, 0.95 + 0.05 * t], dtype=torch.float64)
    v = flow.velocity(z, z0, at)
    assert torch.allclose(flow.x0(z, v, at)[0], z0[0], atol=1e-12)
    assert torch.allclose(v[1], (z0 - z)[1] / 0.05)


def test_ends_are_exact():
    z0, eps, v = torch.randn(3, 2, 4)
    assert torch.equal(flow.interpolate(z0, eps, torch.ones(2)), z0)
    assert torch.equal(flow.interpolate(z0, eps, torch.zeros(2)), eps)
    assert torch.equal(flow.x0(z0, v, 1.0), z0)
    assert torch.equal(flow.x0(z0, v, 0.0), z0 + v)


def test_sigma_velocity_is_the_same_path_walked_backwards():
    z0, eps = torch.randn(2, 8).double()
    sigma, step = 0.4, 1e-6
    ahead = (1 - sigma - step) * z0 + (sigma + step) * eps
    u = (ahead - ((1 - sigma) * z0 + sigma * eps)) / step
    assert torch.allclose(flow.from_sigma_velocity(u), flow.target(z0, eps), atol=1e-8)


@given(times, st.floats(0.2, 12))
def test_shift_is_the_published_one_in_sigma(t, s):
    sigma = 1 - t
    expected = 1 - s * sigma / (1 + (s - 1) * sigma)
    assert flow.shift(torch.tensor(t, dtype=torch.float64), s).item() == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("s", [1.0, 5.0])
def test_schedule_rises_from_noise_to_data(s):
    t = schedule(50, s)
    assert (t[0], t[-1], len(t)) == (0, 1, 51)
    assert (t.diff() > 0).all()
    assert t[25] <= 0.5


def test_euler_steps_turn_noise_into_the_gaussian_whose_velocity_they_follow():
    mean, std = 2.0, 0.5
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ts = schedule(200, 1.0).tolist()
    for t, after in itertools.pairwise(ts):
        slope = (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)
        z = z + (after - t) * (mean + slope * (z - t * mean))
    assert z.mean() == pytest.approx(mean, abs=0.02)
    assert z.std() == pytest.approx(std, abs=0.01)
