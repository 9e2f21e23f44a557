"""T15, M13: high-resolution keyframes beside the low-resolution video."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.model.conditioning import (
    Keyframes,
    audio_modality,
    keyframe_velocity,
    video_modality,
    video_velocity,
)
from reelmill.model.config import preset
from reelmill.model.guidance import Guider, TextCFG
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import KEYFRAME, REFERENCE, TARGET, Text
from reelmill.model.positions import keyframe_indices, keyframe_positions, video_positions
from reelmill.model.sampler import AudioCanvas, KeyframeCanvas, VideoCanvas, denoise, sample

CONFIG = preset("tiny")
FRAMES, LOW, HIGH = 3, 4, 8
CELLS = FRAMES * 4  # tokens of the video
PLANE = 16  # tokens of a keyframe


@pytest.fixture(scope="module")
def model() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(CONFIG)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
            elif "norm" not in name:
                p.copy_(0.1 * torch.randn_like(p))
    return model.double().eval()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(frames=(0, 2), batch=2, order=None, refs=None, t=None):
    z, mask = randn(batch, 16, FRAMES, LOW, LOW), torch.zeros(batch, 1, FRAMES, LOW, LOW).double()
    high, known = randn(2, batch, 16, 3, HIGH, HIGH, seed=1)[..., list(frames), :, :]
    keys = Keyframes(frames, high, known, torch.zeros(batch, 1, len(frames), HIGH, HIGH).double())
    t = torch.tensor([0.3, 0.8]).double() if t is None else t
    return video_modality(CONFIG, z, t, z, mask, refs, keys if frames else None)


@torch.no_grad()
def run(model, video, audio=None):
    text = Text(randn(2, 5, 64, seed=2))
    return model(video, audio, text)


def test_no_keyframes_are_the_model_without_them(model):
    plain = inputs(frames=())
    assert plain.kind is None
    before = run(model, plain)[0]
    with torch.no_grad():
        model.video.keyframe.add_(torch.arange(64) % 3)
        after = run(model, plain)[0]
        with_keys = run(model, inputs())[0]
        model.video.keyframe.sub_(torch.arange(64) % 3)
    assert torch.equal(before, after)
    assert not torch.allclose(with_keys, run(model, inputs())[0], atol=1e-3)


def test_the_embedding_of_keyframes_starts_at_zero():
    fresh = MMDiT(CONFIG)
    assert fresh.video.keyframe.shape == (64,)
    assert not fresh.video.keyframe.any()
    assert fresh.audio.keyframe is None


def test_keyframes_hidden_from_the_rest_leave_it_unchanged(model):
    video = inputs()
    hidden = video.kind.expand(2, -1) == KEYFRAME
    v = run(model, replace(video, pad=hidden))[0]
    assert torch.allclose(v[:, :CELLS], run(model, inputs(frames=()))[0], atol=1e-9)


def test_permuting_keyframes_permutes_their_outputs_and_nothing_else(model):
    v = run(model, inputs(frames=(0, 1, 2)))[0]
    w = run(model, inputs(frames=(2, 0, 1)))[0]
    assert torch.allclose(v[:, :CELLS], w[:, :CELLS], atol=1e-9)
    keys, others = (x[:, CELLS:].unflatten(1, (3, PLANE)) for x in (v, w))
    assert torch.allclose(keys[:, [2, 0, 1]], others, atol=1e-9)
    assert not torch.allclose(keys, others, atol=1e-3)


def test_layout_is_references_video_keyframes():
    refs = randn(2, 16, 1, LOW, LOW, seed=4)
    m = inputs(refs=refs)
    assert m.kind.tolist() == [[REFERENCE] * 4 + [TARGET] * CELLS + [KEYFRAME] * 2 * PLANE]
    assert m.x.shape == (2, 4 + CELLS + 2 * PLANE, CONFIG.video.token_in)
    assert m.t[:, 4:].unique(dim=1).shape == (2, 1)
    tokens = torch.arange(m.x.shape[1]).double()[None, :, None].expand(1, -1, 64)
    low = video_velocity(CONFIG, tokens, (FRAMES, LOW, LOW), behind=2 * PLANE)
    assert (low.min(), low.max()) == (4, 4 + CELLS - 1)
    high = keyframe_velocity(CONFIG, tokens, (2, HIGH, HIGH))
    assert (high.min(), high.max()) == (4 + CELLS, 4 + CELLS + 2 * PLANE - 1)


def test_a_time_per_frame_reaches_its_keyframe():
    m = inputs(frames=(0, 2), t=torch.tensor([[1.0, 0.5, 0.25]] * 2).double())
    assert m.t[0, CELLS:].tolist() == [1.0] * PLANE + [0.25] * PLANE
    assert inputs(frames=(0, 2)).t.shape == (2, 1)


def test_sound_attends_the_video_not_its_keyframes(model):
    sound = audio_modality(CONFIG, randn(2, 40, 10, seed=3), torch.tensor([0.3, 0.8]), FRAMES)
    link = model.link(inputs(), sound)
    assert link.video_mask[..., :CELLS].all()
    assert not link.video_mask[..., CELLS:].any()


def test_keyframes_stand_where_their_frame_stands():
    pos = keyframe_positions([0, 2], 4, 6, (2, 3))
    assert pos.shape == (48, 3)
    assert pos[24:, 0].unique().tolist() == [2.0]
    assert torch.equal(
        pos[:24].unflatten(0, (4, 6))[::2, ::2].flatten(0, 1), video_positions(1, 2, 3)
    )
    assert pos[1].tolist() == [0.0, 0.0, 0.5]


@given(st.integers(1, 61), st.integers(1, 40), st.integers(1, 400))
def test_keyframe_indices_are_the_densest_that_cost_no_more_than_the_video(frames, low, high):
    chosen = keyframe_indices(frames, low, high)
    assert chosen == tuple(sorted(set(chosen)))
    assert chosen[-1] == frames - 1
    if len(chosen) == 1:
        assert frames == 1 or 2 * high > frames * low
        return
    assert len(chosen) * high <= frames * low
    n = chosen[1] - chosen[0]
    assert chosen == tuple(sorted({*range(0, frames, n), frames - 1}))
    if n > 1:
        denser = {*range(0, frames, n - 1), frames - 1}
        assert len(denser) * high > frames * low


def test_one_pass_samples_video_keyframes_and_sound():
    torch.manual_seed(0)
    model = MMDiT(CONFIG).eval()
    with torch.no_grad():
        model.video.head.weight.normal_(std=0.1)
    known = torch.randn(1, 16, FRAMES, LOW, LOW)
    mask, high_mask = torch.zeros(1, 1, FRAMES, LOW, LOW), torch.zeros(1, 1, 2, HIGH, HIGH)
    high = torch.randn(1, 16, 2, HIGH, HIGH)
    high_mask[..., :4, :] = 1
    keys = KeyframeCanvas((0, 2), high, high_mask)
    options = {
        "audio": AudioCanvas(10, FRAMES),
        "seeds": [1],
        "steps": 2,
        "null": Text(torch.zeros(1, 1, 64)),
        "guider": Guider(text=TextCFG(3, 2)),
    }
    text = Text(torch.randn(1, 4, 64))
    out = denoise(model, text, video=VideoCanvas(known, mask, keyframes=keys), **options)
    assert out.video.shape == known.shape
    assert out.audio.shape == (1, 40, 10)
    assert out.keyframes.shape == high.shape
    assert torch.equal(out.keyframes[..., :4, :], high[..., :4, :])
    assert not torch.isclose(out.keyframes[..., 4:, :], high[..., 4:, :]).any(1).all()
    plain = denoise(model, text, video=VideoCanvas(known, mask), **options)
    assert plain.keyframes is None
    assert not torch.allclose(plain.video, out.video, atol=1e-4)
    pair = sample(model, text, video=VideoCanvas(known, mask), **options)
    assert torch.equal(pair[0], plain.video)


def test_patches_over_time_take_no_keyframes():
    video = replace(CONFIG.video, patch=(3, 2, 2))
    z = torch.zeros(1, 16, 3, LOW, LOW)
    keys = Keyframes((0,), *torch.zeros(2, 1, 16, 1, HIGH, HIGH), torch.zeros(1, 1, 1, HIGH, HIGH))
    with pytest.raises(ValueError, match="patch of one frame"):
        video_modality(replace(CONFIG, video=video), z, torch.zeros(1), z, z[:, :1], keyframes=keys)
