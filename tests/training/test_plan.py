"""What the paper's curriculum costs: counted on the model, against independent counts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from reelmill.cli import app
from reelmill.errors import UsageError
from reelmill.model.config import preset
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Modality, Text
from reelmill.training.paper import PAPER
from reelmill.training.plan import (
    GPUS,
    LATENT_BYTES,
    Codecs,
    attention_flops,
    cost,
    forward_flops,
    grid,
)

TINY = preset("tiny", video_channels=4, audio_channels=8)


def sized(dual: int, single: int):
    towers = (replace(t, dual=dual, single=single) for t in (TINY.video, TINY.audio))
    video, audio = towers
    return replace(TINY, video=video, audio=audio)


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.integers(0, 20))
def test_flops_are_those_of_the_model_that_runs(dual, single, video, audio):
    config = sized(dual, single)
    model = MMDiT(config)
    seen = Modality(torch.randn(1, video, config.video.token_in), torch.rand(1, video, 3),
                    torch.rand(1, 1))  # fmt: skip
    heard = Modality(torch.randn(1, audio, config.audio.token_in), torch.rand(1, audio, 1),
                     torch.rand(1, 1)) if audio else None  # fmt: skip
    with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(seen, heard, Text(torch.randn(1, 7, config.video.text_dim)))
    assert forward_flops(config, video, audio, 7) == counter.get_total_flops()


def test_what_grows_with_the_square_of_tokens_is_attention():
    config = sized(2, 3)
    a, b, c = (forward_flops(config, n, 0, 7) for n in (1000, 2000, 3000))
    assert (a - 2 * b + c) / 2 == attention_flops(config, 1000)


def test_large_models_take_two_flops_a_weight_and_token():
    config = preset("1.3b")
    with torch.device("meta"):
        model = MMDiT(replace(config, audio=None))
    weights = sum(p.numel() for n, p in model.named_parameters() if "text" not in n)
    tokens = 2000
    matrices = forward_flops(config, tokens, 0, 1) - attention_flops(config, tokens)
    assert matrices == pytest.approx(2 * weights * tokens, rel=0.3)


def test_the_rows_are_those_of_table_1():
    known = {stage.name: stage for stage in PAPER}
    assert list(known)[:6] == [f"video_{n}" for n in range(1, 7)]
    assert known["video_2"].samples == 3 * 1.4e9
    assert known["video_6"].tasks == {"t2v": 0.6, "image_ref": 0.2, "video_ref": 0.2}
    assert known["sft_2"].samples == 3e6
    assert all(sum(stage.tasks.values()) == pytest.approx(1) for stage in PAPER)


def test_clips_of_720_lines_and_five_seconds():
    assert grid(720, 5, 16, Codecs()) == (21, 90, 160)
    assert grid(1080, 0, 16, Codecs()) == (1, 136, 240)


def test_costs_follow_gpu_share_and_recomputation():
    stage = next(row for row in PAPER if row.name == "sft_2")
    plain = cost(stage, TINY, Codecs(), recompute=False)
    again = cost(stage, TINY, Codecs(), gpu="b200", mfu=0.9)
    assert again.flops == pytest.approx(plain.flops * 4 / 3)
    ratio = GPUS["h200"] * 0.45 / (GPUS["b200"] * 0.9) * 4 / 3
    assert again.gpu_hours == pytest.approx(plain.gpu_hours * ratio)
    frames, rows, columns = grid(720, 10, 16, Codecs())
    each = frames * rows * columns * 4 + 10 * 44_100 / 1024 * 8
    only = replace(stage, heights=(720,), seconds=(10, 10))
    stored = cost(only, TINY, Codecs()).latent_bytes
    assert stored == pytest.approx(stage.clips * each * LATENT_BYTES, rel=1e-3)
    with pytest.raises(UsageError, match="known: a100"):
        cost(stage, TINY, Codecs(), gpu="tpu")
    with pytest.raises(UsageError, match="mfu"):
        cost(stage, TINY, Codecs(), mfu=2)


def test_the_command_adds_up_and_needs_no_workspace():
    done = CliRunner().invoke(app, ["train", "plan", "--model", "tiny", "--gpus", "8", "--json"])
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["stages"]) == len(PAPER)
    hours = sum(row["gpu_hours"] for row in told["stages"])
    assert told["total"]["gpu_hours"] == pytest.approx(hours)
    assert told["total"]["days"] == pytest.approx(hours / 8 / 24)
    without = CliRunner().invoke(app, ["train"])
    assert isinstance(without.exception, UsageError)
    assert "--workspace" in str(without.exception)


def test_keyframes_cost_no_more_tokens_than_the_clip_they_stand_in():
    row = next(stage for stage in PAPER if stage.name == "keyframes")
    with_them = cost(row, TINY, Codecs())
    without = cost(replace(row, keyframes=0), TINY, Codecs())
    assert 1 < with_them.tokens / without.tokens <= 2
