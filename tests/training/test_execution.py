"""How a run is carried out changes nothing that it learns, but for rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.training.test_ranks import alone, assert_near_runs, exact, latents, ranks
from tests.training.test_trainer import make_curriculum, metrics, options

from reelmill.errors import UsageError
from reelmill.training import layers
from reelmill.training.config import Execution
from reelmill.training.trainer import train

pytestmark = pytest.mark.slow
__all__ = ["alone", "latents"]
COMPILED = 1e-4  # relative, of losses and weights in float32: sums are taken in another order
BF16 = 0.02  # relative, of a step's loss in 12 steps; 8 bits of mantissa round by 0.004


def run(latents, output, curriculum=None, count=1, **how):
    return train(ranks(latents, output, curriculum or exact(), count, **how))


def test_accumulated_parts_give_the_gradient_of_the_whole(latents, alone, tmp_path):
    run(latents, tmp_path / "one", accumulate=4)
    assert_near_runs(alone, tmp_path / "one")
    run(latents, tmp_path / "two", count=2, accumulate=2)
    assert_near_runs(alone, tmp_path / "two")


def test_recomputed_activations_give_the_same_bits(latents, alone, tmp_path, monkeypatch):
    again = []
    checkpoint = layers.checkpoint

    def counted(*args, **kwargs):
        again.append(1)
        return checkpoint(*args, **kwargs)

    monkeypatch.setattr(layers, "checkpoint", counted)
    run(latents, tmp_path / "one", recompute=True)
    assert len(again) >= 12 * 2  # steps times layers
    assert_near_runs(alone, tmp_path / "one", 0.0)
    run(latents, tmp_path / "two", count=2, recompute=True)
    assert_near_runs(alone, tmp_path / "two")
    run(latents, tmp_path / "shared", count=2, context=2, recompute=True)
    assert_near_runs(alone, tmp_path / "shared")


def test_recomputed_layers_save_none_of_their_activations(latents, tmp_path):
    kept = {}
    for recompute in (False, True):
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(latents, tmp_path / f"{recompute}", exact(2), recompute=recompute)
        kept[recompute] = sum(sizes)
    assert kept[True] < kept[False]


@pytest.mark.timeout(1800)  # most of it is spent in g++
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
@pytest.mark.parametrize("count", [1, 2])
def test_compiled_layers_learn_the_same(latents, tmp_path, count):
    # In float32: torch 2.11 compiles attention in float64 wrongly on the CPU.
    few = make_curriculum(12, tasks={"t2v": 1.0}, validate_every=12)
    run(latents, tmp_path / "plain", few)
    torch._dynamo.utils.counters.clear()
    run(latents, tmp_path / "compiled", few, count, compile=True)
    assert count > 1 or torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert_near_runs(tmp_path / "plain", tmp_path / "compiled", COMPILED)


def test_bf16_learns_nearly_the_same_with_weights_in_fp32(latents, tmp_path):
    plain, half = make_curriculum(), make_curriculum(precision="bf16")
    train(options(latents, tmp_path / "fp32", plain))
    train(options(latents, tmp_path / "bf16", half))
    pairs = list(zip(metrics(tmp_path / "fp32"), metrics(tmp_path / "bf16"), strict=True))
    losses = [(a["loss"], b["loss"]) for a, b in pairs if "loss" in a]
    assert [b for _, b in losses] == pytest.approx([a for a, _ in losses], rel=BF16)
    assert any(a != b for a, b in losses)
    train(ranks(latents, tmp_path / "two", half, 2))
    two = [m["loss"] for m in metrics(tmp_path / "two") if "loss" in m]
    assert two == pytest.approx([b for _, b in losses], rel=BF16)


@pytest.mark.gpu
def test_a_gpu_learns_nearly_what_the_cpu_learns(latents, alone, tmp_path):
    run(latents, tmp_path, device="cuda")
    assert_near_runs(alone, tmp_path, 1e-6)


def test_a_gpu_that_is_not_there_is_told(latents, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no GPU here"):
        run(latents, tmp_path, device="cuda")


def test_checkpoints_in_the_background_are_those_written_at_once(latents, tmp_path):
    job = options(latents, tmp_path / "a", make_curriculum())
    train(job)
    train(replace(job, output=tmp_path / "b", execution=Execution(background=False)))
    names = ("weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")
    for step in (8, 12):
        for name in names:
            one, other = (
                tmp_path / x / "joint" / "checkpoints" / f"step-{step:08d}" / name for x in "ab"
            )
            assert one.read_bytes() == other.read_bytes()
