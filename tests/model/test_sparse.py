"""Sparse attention inside the model: what is left out changes it, nothing else does (A19, T17)."""

from dataclasses import replace

import pytest
import torch

from reelmill.model.conditioning import Keyframes, video_modality, video_velocity
from reelmill.model.config import preset
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text

CONFIG = replace(preset("tiny"), audio=None)
SPARSE = replace(CONFIG, video=replace(CONFIG.video, sparse=True))
GRID = (5, 6, 9)  # no multiple of a tile


def models(gate: float = 0.0) -> tuple[MMDiT, MMDiT]:
    """The same weights, dense and sparse."""
    torch.manual_seed(0)
    dense = MMDiT(CONFIG)
    with torch.no_grad():
        for p in dense.parameters():
            p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
    sparse = MMDiT(SPARSE)
    missing = sparse.load_state_dict(dense.state_dict(), strict=False)
    assert all(".gate." in name for name in missing.missing_keys)
    assert not missing.unexpected_keys
    with torch.no_grad():
        for name, p in sparse.named_parameters():
            if ".gate." in name:
                assert not p.any()
                p.copy_(gate * torch.randn_like(p))
    return dense.double().eval(), sparse.double().eval()


def randn(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def clip(refs: int = 0, each: bool = False, batch: int = 2):
    t, h, w = GRID
    z, known = randn(batch, 16, t, 2 * h, 2 * w), randn(batch, 16, t, 2 * h, 2 * w, seed=2)
    mask = (randn(batch, 1, t, 2 * h, 2 * w, seed=3) > 0).double()
    times = torch.linspace(0.1, 0.9, batch * t).double().reshape(batch, t)
    references = randn(batch, 16, refs, 2 * h, 2 * w, seed=4) if refs else None
    return video_modality(CONFIG, z, times if each else times[:, 0], known, mask, references)


@pytest.mark.parametrize("refs", [0, 2])
@pytest.mark.parametrize("each", [False, True])
def test_with_nothing_left_out_it_is_the_dense_model(refs, each):
    dense, sparse = models()
    video, text = clip(refs, each), Text(randn(2, 6, 64))
    wanted, _ = dense(video, None, text)
    for shares in (None, [0.0, 0.0], [None, 0.0]):
        found, _ = sparse(video, None, text, sparsity=shares)
        assert torch.allclose(found, wanted, atol=1e-9)


def test_prompts_of_different_lengths_are_as_each_alone():
    _, sparse = models(gate=0.5)
    video = clip(refs=1)
    prompts = [randn(3, 64), randn(7, 64, seed=9)]
    both, _ = sparse(video, None, Text.stack(prompts), sparsity=[0.5, 0.5])
    for i, prompt in enumerate(prompts):
        one = replace(video, x=video.x[i : i + 1], t=video.t[i : i + 1])
        alone, _ = sparse(one, None, Text(prompt[None]), sparsity=[0.5, 0.5])
        assert torch.allclose(both[i], alone[0], atol=1e-9)


def test_leaving_out_tiles_and_the_gate_change_the_outcome():
    video, text = clip(), Text(randn(2, 6, 64))
    _, sparse = models()
    _, gated = models(gate=0.5)
    whole, _ = sparse(video, None, text)
    assert not torch.allclose(sparse(video, None, text, sparsity=[0.6, 0.6])[0], whole, atol=1e-3)
    assert not torch.allclose(gated(video, None, text)[0], whole, atol=1e-3)


def test_gradients_reach_every_parameter():
    _, sparse = models(gate=0.5)
    out, _ = sparse(clip(), None, Text(randn(2, 6, 64)), sparsity=[0.5, 0.5])
    video_velocity(SPARSE, out, (5, 12, 18)).square().sum().backward()
    silent = [n for n, p in sparse.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in silent if n != "video.keyframe" and ".c." not in n] == []


def test_keyframes_are_refused():
    _, sparse = models()
    z = randn(1, 16, 3, 4, 4)
    more = Keyframes((0,), randn(1, 16, 1, 8, 8), randn(1, 16, 1, 8, 8), torch.zeros(1, 1, 1, 8, 8))
    m = video_modality(SPARSE, z, torch.tensor([0.5]), z, z[:, :1], keyframes=more)
    with pytest.raises(ValueError, match="keyframes"):
        sparse(m, None, Text(randn(1, 4, 64)))
