"""Presets, the JSON round trip of a config, and what a config refuses."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.errors import CheckpointError, UsageError
from reelmill.model.config import PRESETS, MMDiTConfig, preset, rope_split
from reelmill.model.mmdit import MMDiT, part_of

# Millions of parameters: video and audio tower, each with its half of the attention between them,
# and how far they were rounded.
PARAMETERS = {
    "tiny": (0.3, 0.2, 0.05),
    "demo": (1.9, 1.6, 0.06),
    "small": (8, 6, 0.5),
    "1.3b": (2070, 1790, 5),
    "5b": (7400, 6300, 50),
    "full": (13700, 11400, 50),
    "14b": (21700, 17500, 50),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_known_numbers_of_parameters(name):
    with torch.device("meta"):
        model = MMDiT(preset(name))
    count = {"video": 0, "audio": 0, "cross": 0}
    for parameter, value in model.named_parameters():
        count[part_of(parameter)] += value.numel()
    towers = [(count[m] + count["cross"] / 2) / 1e6 for m in ("video", "audio")]
    assert towers == pytest.approx(PARAMETERS[name][:2], abs=PARAMETERS[name][2])


@pytest.mark.parametrize("name", PRESETS)
def test_towers_are_twins(name):
    config = preset(name)
    assert config.audio is not None
    twins = replace(config.audio, in_ch=33, out_ch=16, patch=(1, 2, 2), text_xattn=True)
    assert twins == replace(config.video, in_ch=33, out_ch=16)
    assert config.video.in_ch == 2 * config.video.out_ch + 1
    assert (config.video.text_xattn, config.audio.text_xattn) == (True, False)


def test_towers_of_different_width_are_refused():
    config = preset("tiny")
    with pytest.raises(UsageError, match="agree in dim: video 64, audio 128"):
        replace(config, audio=replace(config.audio, dim=128, rope_dims=()))


@given(st.integers(1, 64).map(lambda n: 2 * n))
def test_rope_split_uses_every_dimension_in_pairs(head_dim):
    split = rope_split(head_dim)
    assert sum(split) == head_dim
    assert all(n % 2 == 0 for n in split)


def test_rope_split_is_wans():
    assert rope_split(128) == (44, 42, 42)


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name):
    config = preset(name)
    text = json.dumps(config.to_json())
    again = MMDiTConfig.from_json(json.loads(text))
    assert again == config
    assert again.hash == config.hash


def test_hash_changes_with_every_field():
    config = preset("tiny")
    others = [
        replace(config, av_order="parallel"),
        replace(config, rope_scale="physical"),
        replace(config, ref_time_offset=1024),
        replace(config, audio=None),
        replace(config, video=replace(config.video, ffn=512)),
    ]
    assert len({c.hash for c in (config, *others)}) == 6


def test_unknown_preset_names_those_there_are():
    with pytest.raises(UsageError, match="tiny, demo, small"):
        preset("huge")


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 65},
        {"dim": 10**9},
        {"dual": 10**6},
        {"dual": 0, "single": 0},
        {"heads": 0},
        {"ffn": "many"},
        {"patch": [1, 2, 10**9]},
        {"rope_dims": [3, 3, 10]},
        {"qk_norm": "none"},
        {"patch": 3},
        {"surprise": 1},
    ],
)
def test_json_that_is_no_config_is_a_checkpoint_error(change):
    data = preset("tiny").to_json()
    data["video"] |= change
    with pytest.raises(CheckpointError, match="no model config"):
        MMDiTConfig.from_json(data)


@pytest.mark.parametrize("data", [None, [], 3, "x", {}, {"video": None}, {"video": []}])
def test_json_of_another_shape_is_a_checkpoint_error(data):
    with pytest.raises(CheckpointError):
        MMDiTConfig.from_json(data)


def test_a_model_of_before_a_field_came_keeps_its_hash():
    """The hash of the JSON as it was without them; another value than theirs is another model."""
    config = preset("tiny")
    data = config.to_json()
    for tower in (data["video"], data["audio"]):
        del tower["predicts"], tower["sparse"]
    assert MMDiTConfig.from_json(data) == config
    text = json.dumps(data, sort_keys=True).encode()
    assert config.hash == hashlib.sha256(text).hexdigest()
    for change in ({"predicts": "data"}, {"predicts": "residual"}, {"sparse": True}):
        assert replace(config, video=replace(config.video, **change)).hash != config.hash


def test_sound_has_nothing_that_a_residual_could_be_about():
    with pytest.raises(UsageError, match="residual"):
        replace(preset("tiny").audio, predicts="residual")
