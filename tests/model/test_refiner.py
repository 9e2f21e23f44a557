"""The Refiner's input, its weights, its sampling, and windows (A18, A19, T16, T20)."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.errors import PromptError
from reelmill.model.conditioning import video_modality
from reelmill.model.config import preset
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.refiner import RefineOptions, refine, refiner_canvas, refiner_of, upsample
from reelmill.model.sampler import VideoCanvas, denoise
from reelmill.model.windows import Windows, spans

BASE = preset("tiny")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively(model: MMDiT) -> MMDiT:
    """Every parameter has a value, so that all that should matter does."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
    return model.eval()


def test_low_latents_lie_on_every_second_one_and_others_in_the_middle():
    low = randn(2, 3, 4, 5, 6)
    up = upsample(low, 5, 6)
    assert up.shape == (2, 3, 7, 5, 6)
    assert torch.equal(up[:, :, ::2], low)
    assert torch.allclose(up[:, :, 1::2], (low[:, :, 1:] + low[:, :, :-1]) / 2)


def test_a_linear_field_stays_linear_in_time_and_space():
    """The oracle is the field itself, at the centres of the smaller cells."""
    t, y, x = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), torch.arange(5.0), indexing="ij")
    field = 2 * t - 3 * (y + 0.5) + 5 * (x + 0.5)
    up = upsample(field[None, None], 8, 10)[0, 0]
    t, y, x = torch.meshgrid(
        torch.arange(5.0), torch.arange(8.0), torch.arange(10.0), indexing="ij"
    )
    wanted = t - 3 * (y + 0.5) / 2 + 5 * (x + 0.5) / 2
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert torch.allclose(up[inner], wanted[inner], atol=1e-4)


def test_keyframes_replace_their_latents_and_are_not_to_stay():
    low, high = randn(1, 3, 4, 2, 2), randn(1, 3, 2, 4, 4, seed=1)
    canvas = refiner_canvas(low, 4, 4, frames=(0, 3), keyframes=high)
    assert torch.equal(canvas.known[:, :, [0, 6]], high)
    assert torch.equal(canvas.known[:, :, 1:6], upsample(low, 4, 4)[:, :, 1:6])
    assert not canvas.mask.any()


def test_what_stays_is_the_source_and_the_mask_says_so():
    low, source = randn(1, 3, 4, 2, 2), randn(1, 3, 7, 4, 4, seed=1)
    keep = torch.zeros(1, 1, 7, 4, 4)
    keep[..., 2:] = 1
    canvas = refiner_canvas(low, 4, 4, source=source, keep=keep)
    assert torch.equal(canvas.mask, keep)
    assert torch.equal(canvas.known[..., 2:], source[..., 2:])
    assert torch.equal(canvas.known[..., :2], upsample(low, 4, 4)[..., :2])
    made = refine(
        lively(refiner_of(MMDiT(BASE))),
        Text(randn(1, 4, 64)),
        refiner_canvas(
            randn(1, 16, 2, 4, 4), 4, 4, source=randn(1, 16, 3, 4, 4), keep=keep[:, :, :3]
        ),
        seeds=[1],
        options=RefineOptions(steps=2),
    )
    assert torch.equal(made[..., 2:], randn(1, 16, 3, 4, 4)[..., 2:])


def test_keyframes_of_another_size_are_refused():
    with pytest.raises(ValueError, match="keyframes"):
        refiner_canvas(randn(1, 3, 4, 2, 2), 4, 4, frames=(0,), keyframes=randn(1, 3, 1, 2, 2))


def test_it_starts_as_the_base_models_video_tower():
    """The same velocities as the base model's video tower alone, dense and with gates at zero."""
    base = lively(MMDiT(BASE))
    refiner = refiner_of(base).eval()
    assert refiner.config.audio is None
    canvas = VideoCanvas(randn(1, 16, 3, 4, 4), torch.zeros(1, 1, 3, 4, 4))
    text = Text(randn(1, 4, 64))
    made = [
        denoise(model, text, video=canvas, seeds=[3], steps=3, av=False).video
        for model in (base, refiner)
    ]
    assert torch.allclose(*made, atol=1e-4)


@pytest.mark.parametrize("how", [{"steps": 1, "strength": 1.0}, {"steps": 5}])
def test_one_that_predicts_the_residual_starts_as_interpolation(how):
    """Untrained it gives Z_up back, from noise and in any number of steps."""
    refiner = refiner_of(lively(MMDiT(BASE)), residual=True).eval()
    canvas = refiner_canvas(randn(1, 16, 3, 4, 4), 8, 8, strength=how.get("strength", 0.9))
    made = refine(refiner, Text(randn(1, 4, 64)), canvas, seeds=[3], options=RefineOptions(**how))
    assert torch.allclose(made, canvas.known, atol=1e-5)


def test_the_residuals_tower_is_the_base_models_but_for_its_head():
    base = lively(MMDiT(BASE))
    loaded, before = refiner_of(base, residual=True).state_dict(), base.state_dict()
    for name, value in loaded.items():
        if name.startswith("video.head.") or ".gate." in name:
            assert not value.any(), name
        else:
            assert torch.equal(value, before[name]), name


def test_latents_of_the_low_rate_are_told_from_those_between():
    """Where all latents are equal and tokens see nothing else, only the marker tells frames."""
    refiner = lively(refiner_of(MMDiT(BASE)))
    with torch.no_grad():
        for name, p in refiner.named_parameters():
            if ".qkv." in name or ".gate." in name:
                p.zero_()
    canvas = refiner_canvas(randn(1, 16, 1, 1, 1).expand(-1, -1, 3, 2, 2), 2, 2)
    z, t = torch.zeros_like(canvas.known), torch.zeros(1)
    m = video_modality(refiner.config, z, t, canvas.known, canvas.mask, marked=canvas.marked)
    out, _ = refiner(m, None, Text(randn(1, 4, 64)))
    assert out is not None
    frames = out[0]
    assert torch.allclose(frames[[2, 4]], frames[[0, 0]], atol=1e-5)
    assert torch.allclose(frames[3], frames[1], atol=1e-5)
    assert (frames[0] - frames[1]).abs().mean() > 0.1


def test_refining_is_repeatable_and_leaves_the_base_models_latents_alone():
    refiner, text = lively(refiner_of(MMDiT(BASE))), Text(randn(1, 4, 64))
    low = randn(1, 16, 3, 4, 4)
    canvas = refiner_canvas(low, 8, 8, strength=0.9)
    options = RefineOptions(steps=3, sparsity=0.5)
    first, again = (refine(refiner, text, canvas, seeds=[7], options=options) for _ in "ab")
    assert first.shape == (1, 16, 5, 8, 8)
    assert torch.equal(first, again)
    assert torch.equal(low, randn(1, 16, 3, 4, 4))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"s": 0.0}, {"strength": 0.0}, {"strength": 1.5}]
)
def test_options_that_make_no_sense_are_told(options):
    with pytest.raises(PromptError, match="refining takes"):
        RefineOptions(**options).check()


@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_spans_cover_everything_once_or_in_overlaps(length, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    found = spans(length, size, overlap)
    assert found[0].start == 0
    assert found[-1].stop == length
    assert all(s.stop - s.start == min(size, length) for s in found)
    assert all(b.start <= a.stop - max(0, overlap - 1) for a, b in itertools.pairwise(found))


@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(2, 9)] * 3))
def test_blending_what_does_not_depend_on_the_window_gives_it_back(shape, size):
    z = torch.arange(float(shape[0] * shape[1] * shape[2])).reshape(1, 1, *shape)
    windows = Windows(size, tuple(n // 2 for n in size))
    assert torch.allclose(windows.blend(z, lambda box: z[(..., *box)]), z, rtol=1e-5)


def test_windows_see_what_is_large_in_parts_and_nearly_the_same():
    """Of a model whose attention is cut, tokens see nothing else: windows change nothing then."""
    model = lively(refiner_of(MMDiT(BASE)))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".qkv." in name or ".gate." in name:
                p.zero_()
    text, canvas = Text(randn(1, 4, 64)), refiner_canvas(randn(1, 16, 3, 8, 8), 8, 8)
    whole = refine(model, text, canvas, seeds=[1], options=RefineOptions(steps=2, strength=1.0))
    for windows in (Windows((3, 4, 6), (1, 2, 2)), Windows((2, 8, 8), (1, 0, 0))):
        parts = RefineOptions(steps=2, strength=1.0, windows=windows)
        made = refine(model, text, canvas, seeds=[1], options=parts)
        assert torch.allclose(made, whole, atol=1e-4)


@pytest.mark.parametrize("overlap", [(0, 0, 3), (-1, 0, 0)])
def test_windows_that_overlap_by_more_than_half_are_told(overlap):
    with pytest.raises(PromptError, match="half"):
        Windows((4, 4, 4), overlap)


def test_windows_take_no_references():
    canvas = replace(refiner_canvas(randn(1, 16, 2, 4, 4), 4, 4), references=randn(1, 16, 1, 4, 4))
    with pytest.raises(ValueError, match="references"):
        canvas.part((slice(0, 1), slice(0, 2), slice(0, 2)))


def test_layers_and_steps_that_stay_dense_see_everything():
    """All layers dense is no sparsity at all, as are as many dense steps as there are steps."""
    refiner, text = lively(refiner_of(MMDiT(BASE))), Text(randn(1, 4, 64))
    canvas = refiner_canvas(randn(1, 16, 3, 8, 8), 16, 16)

    def run(**how: object) -> torch.Tensor:
        options = RefineOptions(steps=2, strength=1.0, **how)  # type: ignore[arg-type]
        return refine(refiner, text, canvas, seeds=[1], options=options)

    dense = run(sparsity=0.0)
    assert not torch.equal(run(sparsity=0.8), dense)
    assert torch.equal(run(sparsity=0.8, dense_layers=(0, 1)), dense)
    assert torch.equal(run(sparsity=0.8, dense_steps=2), dense)
    assert not torch.equal(run(sparsity=0.8, dense_layers=(1,)), dense)
