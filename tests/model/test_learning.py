"""T23: the model learns one clip with sound, and samples it back."""

import pytest
import torch

from reelmill.model.conditioning import (
    audio_modality,
    audio_velocity,
    video_modality,
    video_velocity,
)
from reelmill.model.config import preset
from reelmill.model.flow import interpolate, target
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.sampler import AudioCanvas, VideoCanvas, sample

pytestmark = pytest.mark.long


@pytest.mark.slow
def test_one_clip_is_learned_and_sampled_back():
    config = preset("tiny")
    g = torch.Generator().manual_seed(0)
    picture, sound = torch.randn(1, 16, 3, 2, 4, generator=g), torch.randn(1, 40, 9, generator=g)
    words = torch.randn(1, 3, 64, generator=g)
    torch.manual_seed(0)
    model = MMDiT(config)
    black, mask = torch.zeros_like(picture), torch.zeros(1, 1, 3, 2, 4)

    def loss(batch: int, generator: torch.Generator) -> torch.Tensor:
        t = torch.rand(batch, generator=generator)
        z0, a0 = picture.expand(batch, -1, -1, -1, -1), sound.expand(batch, -1, -1)
        eps_v = torch.randn(z0.shape, generator=generator)
        eps_a = torch.randn(a0.shape, generator=generator)
        known = black.expand_as(z0), mask.expand(batch, -1, -1, -1, -1)
        v, a = model(
            video_modality(config, interpolate(z0, eps_v, t), t, *known),
            audio_modality(config, interpolate(a0, eps_a, t), t, 3),
            Text(words.expand(batch, -1, -1)),
        )
        video = (video_velocity(config, v, (3, 2, 4)) - target(z0, eps_v)).square().mean()
        return video + (audio_velocity(a, 9) - target(a0, eps_a)).square().mean()

    def held_out() -> float:
        with torch.no_grad():
            return loss(256, torch.Generator().manual_seed(99)).item()

    before = held_out()
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=250)
    for _ in range(250):
        optimizer.zero_grad()
        loss(16, g).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert held_out() < before / 10

    z, a = sample(
        model.eval(),
        Text(words.expand(2, -1, -1)),
        video=VideoCanvas(black.expand(2, -1, -1, -1, -1), mask.expand(2, -1, -1, -1, -1)),
        audio=AudioCanvas(9, 3),
        seeds=[1, 2],
        steps=20,
        s=1.0,
    )
    for made, given in ((z, picture), (a, sound)):
        for one in made:
            assert torch.corrcoef(torch.stack((one.flatten(), given.flatten())))[0, 1] > 0.8
