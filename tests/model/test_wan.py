"""T18: the video tower with Wan's weights is Wan (random weights, diffusers as the oracle)."""

import math
from dataclasses import replace

import pytest
import torch

from reelmill.errors import CheckpointError
from reelmill.model.conditioning import video_modality, video_velocity
from reelmill.model.config import MMDiTConfig, preset
from reelmill.model.flow import from_sigma_velocity
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.pretrained.wan import wan_video_weights


def config(dual: int, single: int) -> MMDiTConfig:
    video = replace(
        preset("tiny").video, dim=48, heads=4, ffn=96, dual=dual, single=single, text_dim=24,
        in_ch=33, out_ch=16, rope_dims=(),
    )  # fmt: skip
    return MMDiTConfig(video, None)


@pytest.fixture(scope="module")
def wan():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=24,
        ffn_dim=96, num_layers=3, freq_dim=256,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


@pytest.mark.parametrize(("dual", "single"), [(1, 2), (3, 0), (0, 3)])
def test_video_tower_with_wan_weights_gives_wans_velocity_with_opposite_sign(wan, dual, single):
    c = config(dual, single)
    model = MMDiT(c).double().eval()
    missing, unexpected = model.load_state_dict(
        wan_video_weights(wan.state_dict(), c), strict=False
    )
    assert not missing
    assert not unexpected
    model.video.text_bias = -math.inf  # Wan's self-attention has no text
    z, words = torch.randn(2, 16, 3, 8, 6).double(), torch.randn(2, 7, 24).double()
    t = torch.tensor([0.3, 0.8]).double()
    tokens = video_modality(c, z, t, torch.randn_like(z), torch.rand_like(z[:, :1]))
    with torch.no_grad():
        ours, _ = model(tokens, None, Text(words))
        theirs = wan(z, 1000 * (1 - t), words, return_dict=False)[0]
    ours = video_velocity(c, ours, (3, 8, 6))
    expected = from_sigma_velocity(theirs)
    assert expected.abs().max() > 1
    # diffusers computes norms and time in float32, hence no better than that
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()


def test_wan_weights_of_another_depth_are_refused(wan):
    with pytest.raises(CheckpointError, match="more blocks than this config's 2"):
        wan_video_weights(wan.state_dict(), config(1, 1))
    with pytest.raises(CheckpointError, match=r"4 blocks.*missing"):
        wan_video_weights(wan.state_dict(), config(2, 2))
