"""The Refiner behind a base model: keyframes that it is handed, and its pass (section 4.5).

A base model that was trained to make high-resolution keyframes beside its low-resolution video
makes them in the same pass (PAPER.md M13). Pictures that the user gave are keyframes as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reelmill.model.canvas import BLACK, given_frames
from reelmill.model.codecs.codec import VideoCodec
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.positions import keyframe_indices
from reelmill.model.refiner import RefineOptions, refine, refiner_canvas
from reelmill.model.sampler import KeyframeCanvas
from reelmill.model.tasks import Inputs


def makes_keyframes(model: MMDiT) -> bool:
    """Whether a model was trained to: the embedding of keyframes starts at zero and stays there."""
    marker = model.config.video.patch[0] == 1 and model.video.keyframe
    return isinstance(marker, Tensor) and bool(marker.any())


@dataclass(frozen=True)
class Refining:
    """scale: how many times as high and wide."""

    model: MMDiT
    options: RefineOptions
    scale: int

    def keyframes(
        self,
        codec: VideoCodec,
        inputs: Inputs,
        latents: int,
        height: int,
        width: int,
        *,
        made: bool,
    ) -> KeyframeCanvas | None:
        """Keyframes beside a video of `latents` latent frames of height x width pixels: pictures
        that are given, M = 1, and if they are made, as many as cost what the video costs. None
        where there are none."""
        height, width = height * self.scale, width * self.scale
        given = {n % latents: z for n, z in given_frames(codec, inputs, height, width).items()}
        frames = set(given)
        if made:
            # Tokens of a keyframe are scale^2 of a frame's.
            frames |= set(keyframe_indices(latents, 1, self.scale**2))
        if not frames:
            return None
        black = codec.encode(torch.full((1, 3, 1 + codec.stride[0], height, width), BLACK))
        order = tuple(sorted(frames))
        known = [given.get(n, black[:, :, min(n, 1)][:, :, None]) for n in order]
        mask = torch.tensor([float(n in given) for n in order]).view(1, 1, -1, 1, 1)
        return KeyframeCanvas(
            order, torch.cat(known, 2), mask.expand(-1, -1, -1, *black.shape[3:]).contiguous()
        )

    def apply(
        self,
        low: Tensor,
        text: Text,
        seed: int,
        high: KeyframeCanvas | None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """High-resolution latents. high: keyframes, `known` as given or made. progress(done, calls)
        counts the Refiner's own calls."""
        height, width = (self.scale * n for n in low.shape[3:])
        canvas = refiner_canvas(
            low,
            height,
            width,
            frames=() if high is None else high.frames,
            keyframes=None if high is None else high.known,
            strength=self.options.strength,
        )
        return refine(
            self.model, text, canvas, seeds=[seed], options=self.options, progress=progress
        )
