"""Clocks and rotary positions: T3, T4, T5 and the paper's 21 / 218."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.model.config import rope_split
from reelmill.model.positions import (
    audio_positions,
    audio_scale,
    reference_positions,
    video_positions,
)
from reelmill.model.rope import rope, rotate

DIMS = rope_split(128)


def test_papers_clip_has_21_latents_and_218_tokens_and_their_ratio_is_the_scale():
    assert (81 - 1) // 4 + 1 == 21
    assert math.floor(81 / 16 * 44100 / 1024) == 218
    assert audio_scale(218, 21, "ratio") == 21 / 218 == audio_scale(500, 70, "fixed")


@pytest.mark.parametrize(("latents", "tokens"), [(21, 218), (41, 433), (61, 648)])
def test_ratio_keeps_the_last_sound_within_a_quarter_second_and_physical_is_exact(latents, tokens):
    last = {m: audio_positions(tokens, latents, m)[-1].item() / 4 for m in ("ratio", "physical")}
    true = (tokens - 1) * 1024 / 44100
    assert last["physical"] == pytest.approx(true, abs=1e-3)
    assert abs(last["ratio"] - true) < 0.25


def test_audio_tokens_look_straight_at_the_video_frame_of_their_time():
    torch.manual_seed(0)
    # One content everywhere: its dot products then depend on positions alone, best at distance 0.
    x = torch.ones(1, 1, 1, 128)
    video = rope(video_positions(21, 1, 1)[None, :, :1], DIMS)
    audio = rope(audio_positions(218, 21)[None], DIMS)
    unscaled = rope(torch.arange(218.0)[None, :, None], DIMS)
    q = rotate(x.expand(1, 21, 1, 128), video)[0, :, 0]

    def looks_at(table):
        k = rotate(x.expand(1, 218, 1, 128), table)[0, :, 0]
        return (q @ k.T).argmax(1).double()

    diagonal = torch.arange(21) * 218 / 21
    assert (looks_at(audio) - diagonal).abs().max() <= 0.5
    assert (looks_at(unscaled) - diagonal).abs().max() > 150


def test_video_positions_are_time_row_column_in_raster_order():
    pos = video_positions(2, 2, 3, t0=5)
    assert pos.shape == (12, 3)
    assert pos[0].tolist() == [5, 0, 0]
    assert pos[4].tolist() == [5, 1, 1]
    assert pos[11].tolist() == [6, 1, 2]


def test_references_stand_before_time_zero_and_keep_their_place_in_the_picture():
    pos = reference_positions(3, 2, 2)
    assert pos[:, 0].unique().tolist() == [-3, -2, -1]
    assert torch.equal(pos[:, 1:], video_positions(3, 2, 2)[:, 1:])
    assert reference_positions(2, 1, 1, 1024)[:, 0].tolist() == [1024, 1025]


def test_audio_references_stand_before_time_zero_on_the_same_clock():
    pos = audio_positions(218, 21, references=2)
    assert pos[:3, 0].tolist() == pytest.approx([-2 * 21 / 218, -21 / 218, 0])


@given(
    pos=st.tuples(*[st.floats(-40, 40)] * 6),
    shift=st.tuples(*[st.floats(-40, 40)] * 3),
)
def test_dot_products_depend_on_distances_alone_also_before_zero(pos, shift):
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, 128, generator=generator)

    def dot(offset):
        where = torch.tensor(pos).reshape(2, 1, 1, 3) + torch.tensor(offset)
        return (rotate(q, rope(where[0], DIMS)) * rotate(k, rope(where[1], DIMS))).sum().item()

    assert dot(shift) == pytest.approx(dot((0.0, 0.0, 0.0)), abs=2e-3)


def test_rotation_is_that_of_complex_numbers():
    pos, x = torch.rand(2, 5, 3) * 20 - 5, torch.randn(2, 5, 4, 128)
    angle = torch.cat(
        [
            pos[..., i : i + 1].double() / 10_000 ** (torch.arange(0, d, 2).double() / d)
            for i, d in enumerate(DIMS)
        ],
        -1,
    )
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[:, :, None])
    assert torch.allclose(rotate(x, rope(pos, DIMS)).double(), expected.flatten(-2), atol=1e-6)
    half = rotate(x.bfloat16(), rope(pos, DIMS))
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.double(), expected.flatten(-2), atol=0.05)


def test_position_zero_and_missing_axes_turn_nothing():
    x = torch.randn(1, 3, 2, 128)
    assert torch.equal(rotate(x, rope(torch.zeros(1, 3, 3), DIMS)), x)
    turned = rotate(x, rope(torch.tensor([[[1.0], [2.0], [3.0]]]), DIMS))
    assert torch.equal(turned[..., 44:], x[..., 44:])
    assert not torch.equal(turned[..., :44], x[..., :44])


def test_sound_turns_as_in_ovi():
    """Ovi: complex turns of the first 44 of a head's 128 dimensions, times scaled by .19676."""
    x = np.random.default_rng(0).standard_normal((1, 157, 2, 128))
    times = np.arange(157) * 0.19676
    turn = np.exp(1j * np.outer(times, 10_000.0 ** (-np.arange(0, 44, 2) / 44)))
    pairs = x[..., :44].reshape(1, 157, 2, 22, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turn[None, :, None]
    wanted = x.copy()
    wanted[..., :44] = np.stack((turned.real, turned.imag), -1).reshape(1, 157, 2, 44)
    found = rotate(torch.from_numpy(x), rope(torch.from_numpy(times)[None, :, None], DIMS))
    assert DIMS[0] == 44
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
