"""From given pictures and sounds to what the sampler starts from."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reelmill.errors import PromptError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec, to_pixels
from reelmill.model.conditioning import latent_mask, masked_pixels
from reelmill.model.sampler import AudioCanvas, VideoCanvas
from reelmill.model.tasks import Inputs, Job

BLACK = -1.0


def video_canvas(
    codec: VideoCodec, job: Job, inputs: Inputs, frames: int, height: int, width: int
) -> VideoCanvas | None:
    """I, M, references and source of a task; None for one without picture.

    I holds latents of what is given and the black picture's elsewhere. For editing, it is what the
    codec makes of the kept pixels on black.
    """
    if job.video == "absent":
        return None
    pictures = None if inputs.video is None else to_pixels(inputs.video[:frames])
    references = reference_latents(codec, inputs, height, width)
    if job.video == "held" and pictures is not None:
        known = codec.encode(pictures)
        return VideoCanvas(known, torch.ones_like(known[:, :1]), held=True)
    if inputs.keep is not None:
        if inputs.source is None:
            raise ValueError("keep without a picture")
        return _edited(codec, to_pixels(inputs.source[:frames]), inputs.keep, references)
    known = codec.encode(torch.full((1, 3, frames, height, width), BLACK))
    mask = torch.zeros_like(known[:, :1])
    for n, z in given_frames(codec, inputs, height, width).items():
        known[:, :, n], mask[:, :, n] = z[:, :, 0], 1.0
    if inputs.strength is None or pictures is None:
        return VideoCanvas(known, mask, references)
    source = codec.encode(pictures)
    return VideoCanvas(known, mask, references, source=source, strength=inputs.strength)


def given_frames(codec: VideoCodec, inputs: Inputs, height: int, width: int) -> dict[int, Tensor]:
    """Latents [1, C, 1, h, w] of the first and last picture where they are given, by latent frame:
    0 and -1."""
    out = {}
    if inputs.image is not None:
        out[0] = codec.encode(cover(inputs.image, height, width))
    if inputs.end is not None:
        # The last latent is that of a still that lasts: SkyReels-V3 repeats its anchors so.
        still = cover(inputs.end, height, width).expand(-1, -1, 1 + codec.stride[0], -1, -1)
        out[-1] = codec.encode(still)[:, :, -1:]
    return out


def continued(
    codec: VideoCodec, job_inputs: Inputs, before: np.ndarray, frames: int
) -> VideoCanvas:
    """A canvas of `frames` whose first ones are `before`, uint8 RGB [k, H, W, 3], k = 1 + a
    multiple of the codec's stride."""
    _, height, width, _ = before.shape
    first = codec.encode(to_pixels(before))
    known = codec.encode(torch.full((1, 3, frames, height, width), BLACK))
    mask = torch.zeros_like(known[:, :1])
    known[:, :, : first.shape[2]], mask[:, :, : first.shape[2]] = first, 1.0
    return VideoCanvas(known, mask, reference_latents(codec, job_inputs, height, width))


def _edited(
    codec: VideoCodec, pixels: Tensor, keep: np.ndarray, references: Tensor | None
) -> VideoCanvas:
    each = np.broadcast_to(keep[: pixels.shape[2]] if keep.ndim == 3 else keep, pixels.shape[2:])
    mask = torch.from_numpy(each.astype(np.float32))[None, None]
    known = codec.encode(masked_pixels(pixels, mask))
    return VideoCanvas(known, latent_mask(mask, codec.stride), references)


def reference_latents(codec: VideoCodec, inputs: Inputs, height: int, width: int) -> Tensor | None:
    """Clean latents [1, C, n, h, w] of images and clips, in the order given (paper section 3.3),
    padded to one size; a clip is cut to 1 + a multiple of the codec's stride."""
    parts = []
    for name, picture in inputs.references.items():
        if name in inputs.of_kind("audio"):
            continue
        clip = picture if picture.ndim == 4 else picture[None]
        clip = clip[: 1 + (len(clip) - 1) // codec.stride[0] * codec.stride[0]]
        parts.append(codec.encode(letterbox(clip, height, width)))
    return torch.cat(parts, 2) if parts else None


def audio_canvas(
    codec: AudioCodec, job: Job, inputs: Inputs, latents: int, samples: int
) -> AudioCanvas | None:
    """latents: latent frames of the video. samples: the sound's length. None for no sound."""
    if job.audio == "absent":
        return None
    references = [_encode_sound(codec, n, s) for n, s in inputs.of_kind("audio").items()]
    held = None
    if job.audio == "held" and inputs.audio is not None:
        held = _encode_sound(codec, "audio", inputs.audio)
    return AudioCanvas(
        samples // codec.hop, latents, torch.cat(references, 2) if references else None, held
    )


def _encode_sound(codec: AudioCodec, name: str, sound: np.ndarray) -> Tensor:
    if sound.shape[1] < codec.hop:
        raise PromptError(
            f"{name} has {sound.shape[1]} samples; at least {codec.hop} at {codec.rate} Hz are "
            "needed."
        )
    return codec.encode(torch.from_numpy(sound.mean(0, keepdims=True, dtype=np.float32)))


def fit_sound(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut to the length of the video; rounding may leave it a sample short, which is repeated."""
    sound = audio[:, :samples].astype(np.float32)
    return np.pad(sound, ((0, 0), (0, samples - sound.shape[1])), mode="edge")


def cover(image: np.ndarray, height: int, width: int) -> Tensor:
    """uint8 RGB [h, w, 3] -> float [1, 3, 1, height, width] in [-1, 1]: scaled until it covers,
    then cut in the middle."""
    x = to_pixels(image[None])[:, :, 0]
    scale = max(height / x.shape[2], width / x.shape[3])
    size = [max(height, round(x.shape[2] * scale)), max(width, round(x.shape[3] * scale))]
    x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return x[:, :, None, top : top + height, left : left + width]


def letterbox(clip: np.ndarray, height: int, width: int) -> Tensor:
    """uint8 RGB [F, h, w, 3] -> float [1, 3, F, height, width] in [-1, 1]: scaled until it fits,
    in the middle of white (SkyReels-V3)."""
    x = to_pixels(clip)[0].transpose(0, 1)
    scale = min(height / x.shape[2], width / x.shape[3])
    size = [min(height, max(1, round(x.shape[2] * scale))), 0]
    size[1] = min(width, max(1, round(x.shape[3] * scale)))
    out = torch.ones(len(x), 3, height, width)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    scaled = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
    out[:, :, top : top + size[0], left : left + size[1]] = scaled
    return out.transpose(0, 1)[None]
