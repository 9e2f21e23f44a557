"""T6, A11, A12, A14, A15: what enters the model for each kind of condition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.model.conditioning import (
    audio_modality,
    audio_velocity,
    channel_concat,
    latent_mask,
    masked_pixels,
    patchify,
    unpatchify,
    video_modality,
    video_velocity,
)
from reelmill.model.config import preset
from reelmill.model.modality import REFERENCE, TARGET, Text

CONFIG = preset("tiny")


@given(
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.integers(1, 2),
    st.integers(1, 4),
)
def test_unpatchify_undoes_patchify(counts, patch, batch, channels):
    grid = [n * p for n, p in zip(counts, patch, strict=True)]
    z = torch.arange(batch * channels * grid[0] * grid[1] * grid[2]).reshape(batch, channels, *grid)
    tokens = patchify(z, patch)
    assert tokens.shape[1] == counts[0] * counts[1] * counts[2]
    assert torch.equal(unpatchify(tokens, grid, patch), z)


def test_a_token_holds_its_own_cells_channels_fastest():
    z = torch.randn(1, 5, 2, 4, 6)
    token = patchify(z, (1, 2, 2))[0, 1 * 6 + 1 * 3 + 2]  # time 1, row 1, column 2
    expected = z[0, :, 1, 2:4, 4:6].permute(1, 2, 0).flatten()
    assert torch.equal(token, expected)


def test_a_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="do not divide"):
        patchify(torch.zeros(1, 5, 2, 5, 6), (1, 2, 2))


@given(st.integers(0, 3), st.integers(0, 2**31))
def test_a_latent_is_known_only_if_all_its_pixels_are(groups, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = 1 + 4 * groups
    mask = (torch.rand(1, 1, frames, 16, 24, generator=generator) > 0.01).float()
    mask[:, :, :, :8, :8] = 1
    found = latent_mask(mask)
    assert found.shape == (1, 1, groups + 1, 2, 3)
    for j in range(groups + 1):
        first, last = (0, 1) if j == 0 else (4 * j - 3, 4 * j + 1)
        for y in range(2):
            for x in range(3):
                cell = mask[0, 0, first:last, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
                assert found[0, 0, j, y, x] == cell.min()


def test_a_mask_of_frames_that_no_codec_can_hold_is_refused():
    with pytest.raises(ValueError, match="3 frames"):
        latent_mask(torch.ones(1, 1, 3, 8, 8))


def test_unknown_pixels_become_black():
    pixels, mask = torch.rand(1, 3, 1, 2, 2), torch.tensor([[[[[1.0, 0], [0, 1]]]]])
    out = masked_pixels(pixels, mask)
    assert torch.equal(out[..., 0, 0], pixels[..., 0, 0])
    assert (out[..., 0, 1] == -1).all()


def test_video_enters_as_noisy_known_mask():
    z, known = torch.randn(2, 2, 16, 3, 4, 4)
    mask = torch.zeros(2, 1, 3, 4, 4)
    mask[:, :, 0] = 1
    joined = channel_concat(z, known, mask)
    assert joined.shape[1] == 33 == CONFIG.video.in_ch
    m = video_modality(CONFIG, z, torch.tensor([0.2, 0.7]), known, mask)
    assert torch.equal(m.x, patchify(joined, (1, 2, 2)))
    assert m.x.shape == (2, 12, 132)
    assert m.t.tolist() == [[pytest.approx(0.2)], [pytest.approx(0.7)]]
    assert m.kind is None
    assert m.pad is None


def test_references_are_prepended_clean_known_and_before_time_zero():
    z, refs = torch.randn(2, 16, 3, 4, 4), torch.randn(2, 16, 2, 4, 4)
    m = video_modality(CONFIG, z, torch.tensor([0.2, 0.7]), z, torch.zeros(2, 1, 3, 4, 4), refs)
    count = 2 * 4
    assert m.x.shape == (2, count + 12, 132)
    expected = patchify(channel_concat(refs, refs, torch.ones(2, 1, 2, 4, 4)), (1, 2, 2))
    assert torch.equal(m.x[:, :count], expected)
    assert (m.t[:, :count] == 1).all()
    assert torch.equal(m.t[:, count:], torch.tensor([0.2, 0.7])[:, None].expand(2, 12))
    assert m.pos[0, :count, 0].tolist() == [-2.0] * 4 + [-1.0] * 4
    assert m.pos[0, count, 0] == 0
    assert m.kind.tolist() == [[REFERENCE] * count + [TARGET] * 12]


def test_a_time_per_frame_reaches_all_tokens_of_the_frame():
    t = torch.tensor([[1.0, 0.5, 0.25]])
    z = torch.randn(1, 16, 3, 4, 4)
    m = video_modality(CONFIG, z, t, z, torch.zeros(1, 1, 3, 4, 4))
    assert m.t.tolist() == [[1.0] * 4 + [0.5] * 4 + [0.25] * 4]


def test_audio_has_no_mask_and_stands_on_the_video_clock():
    z = torch.randn(2, 40, 218)
    m = audio_modality(CONFIG, z, torch.tensor([0.1, 0.9]), 21)
    assert m.x.shape == (2, 218, 40)
    assert m.pos[0, 100, 0] == pytest.approx(100 * 21 / 218)
    with_refs = audio_modality(CONFIG, z, torch.tensor([0.1, 0.9]), 21, torch.randn(2, 40, 5))
    assert with_refs.pos[0, :5, 0].tolist() == pytest.approx(
        [-i * 21 / 218 for i in (5, 4, 3, 2, 1)]
    )
    assert torch.equal(with_refs.pos[:, 5:], m.pos)
    assert torch.equal(with_refs.x[:, 5:], m.x)


def test_velocities_are_those_of_the_targets():
    z, refs = torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 2, 4, 4)
    tokens = torch.cat((patchify(refs, (1, 2, 2)), patchify(z, (1, 2, 2))), 1)
    assert torch.equal(video_velocity(CONFIG, tokens, (3, 4, 4)), z)
    sound = torch.randn(1, 40, 9)
    padded = torch.cat((torch.zeros(1, 2, 40), sound.transpose(1, 2)), 1)
    assert torch.equal(audio_velocity(padded, 9), sound)


def test_prompts_stack_and_unstack():
    prompts = [torch.randn(n, 4) for n in (3, 5, 1)]
    text = Text.stack(prompts)
    assert text.pad.sum(1).tolist() == [2, 0, 4]
    assert all(torch.equal(a, b) for a, b in zip(text.unstack(), prompts, strict=True))
    assert Text.stack(prompts[:1]).pad is None
    with pytest.raises(ValueError, match="at least one token"):
        Text.stack([torch.zeros(0, 4)])
