"""Ranks that share the tokens of a sample compute what one computes alone, gradients too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from tests.training.test_ranks import alone, assert_near_runs, exact, latents, ranks

from reelmill.errors import UsageError
from reelmill.model.mmdit import MMDiT
from reelmill.training.context_parallel import share_context
from reelmill.training.ranks import Ranks
from reelmill.training.trainer import train

pytestmark = pytest.mark.slow
__all__ = ["alone", "latents"]

TOLERANCE = 1e-10  # relative to the largest value, in float64

# Every rank runs the model alone and shared, on the same inputs, and compares.
CODE = """
import json, sys
import torch, torch.distributed as dist
from dataclasses import replace
from reelmill.model.conditioning import audio_modality, video_modality
from reelmill.model.config import preset
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.training.context_parallel import share_context
from reelmill.training.ranks import joined

torch.set_num_threads(1)
SIZES = {"even": (2, 3, 4, 4), "uneven": (2, 3, 3, 5), "one token": (1, 1, 1, 1),
         "many tiles": (1, 5, 8, 8)}


def inputs(config, size, seed, audio, references, lengths):
    draw = torch.Generator().manual_seed(seed)
    def noise(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)
    batch, frames, rows, columns = size
    patch = config.video.patch
    grid = (frames, rows * patch[1], columns * patch[2])
    z = noise(batch, 4, *grid)
    t = torch.rand(batch, generator=draw, dtype=torch.float64)
    known, mask = noise(batch, 4, *grid), torch.zeros(batch, 1, *grid, dtype=torch.float64)
    refs = noise(batch, 4, 1, *grid[1:]) if references else None
    video = video_modality(config, z, t, known, mask, references=refs)
    sound = audio_modality(config, noise(batch, 40, 7), t, frames) if audio else None
    words = [noise(n, config.video.text_dim) for n in lengths[:batch]]
    return video, sound, Text.stack(words)


def outcome(model, given, mean):
    model.zero_grad()
    shares = [0.5] * model.config.video.blocks if model.config.video.sparse else None
    out = [x for x in model(*given, sparsity=shares) if x is not None]
    sum((x.square() * (1 + torch.arange(x.shape[1])[:, None] % 3)).mean() for x in out).backward()
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
             for n, p in model.named_parameters()}
    for grad in grads.values() if mean else ():
        dist.all_reduce(grad)
        grad /= dist.get_world_size()
    return out, grads


def far(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


with joined(2) as ranks:
    found = {}
    for kind in ("dense", "sparse"):
        base = preset("tiny", video_channels=4, audio_channels=40, text_dim=8)
        config = replace(base, video=replace(base.video, patch=(1, 2, 2), sparse=kind == "sparse"))
        torch.manual_seed(0)
        models = [MMDiT(config).double() for _ in range(2)]
        for p in models[0].parameters():
            p.data.add_(0.05 * torch.randn_like(p))
        models[1].load_state_dict(models[0].state_dict())
        share_context(models[1], ranks)
        for name, size in SIZES.items():
            for audio, references, lengths in ((0, 0, (3, 3)), (1, 1, (5, 2))):
                given = inputs(config, size, 1, audio, references, lengths)
                one, grads = outcome(models[0], given, False)
                two, shared = outcome(models[1], given, True)
                known = max(float(g.abs().max()) for g in grads.values())
                found[f"{kind}, {name}, {'sound and references' if audio else 'video'}"] = [
                    max(far(b, a) for a, b in zip(one, two)),
                    max(float((shared[n] - grads[n]).abs().max()) for n in grads) / known,
                    known,
                ]
    if ranks.first:
        print(json.dumps(found))
"""


def test_outputs_and_gradients_of_two_ranks_are_those_of_one(tmp_path):
    script = tmp_path / "check.py"
    script.write_text(CODE)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 16
    for outputs, gradients, largest in found.values():
        assert outputs < TOLERANCE
        assert gradients < TOLERANCE
        assert largest > 1e-3  # there was something to compare


def test_a_run_with_shared_tokens_learns_what_one_rank_learns(latents, alone, tmp_path):
    train(ranks(latents, tmp_path, exact(), 2, context=2))
    assert_near_runs(alone, tmp_path)


def test_heads_that_ranks_cannot_share_are_named():
    from reelmill.model.config import preset

    with torch.device("meta"):
        model = MMDiT(preset("tiny", video_channels=4, audio_channels=40, text_dim=8))
    heads = model.config.video.heads
    with pytest.raises(UsageError, match=f"{heads} heads cannot be shared by {heads + 1} ranks"):
        share_context(model, Ranks(0, heads + 1, heads + 1))
