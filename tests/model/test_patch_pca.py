"""PatchPCAVideo: planted subspaces, exactness, causality, and what it refuses to load."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from reelmill.errors import CheckpointError, UsageError
from reelmill.model.codecs.codec import to_frames, to_pixels
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.codecs.patch_pca import PatchPCAVideo


def moving_disc(seed: int, frames: int = 9, size: int = 48) -> np.ndarray:
    r = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    at, speed = r.uniform(12, size - 12, 2), r.uniform(-2, 2, 2)
    colours = r.integers(20, 235, (2, 3))
    out = np.empty((frames, size, size, 3), np.uint8)
    for i in range(frames):
        inside = (y - at[0] - i * speed[0]) ** 2 + (x - at[1] - i * speed[1]) ** 2 < 81
        out[i] = np.where(inside[..., None], *colours)
    return out


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return (10 * torch.log10(4 / (a - b).square().mean())).item()


@pytest.fixture(scope="module")
def codec() -> PatchPCAVideo:
    return PatchPCAVideo.fit([moving_disc(i) for i in range(40)])


def test_shapes_are_those_of_a_4_8_8_causal_codec(codec):
    assert (codec.channels, codec.stride) == (16, (4, 8, 8))
    z = codec.encode(torch.zeros(2, 3, 17, 48, 32))
    assert z.shape == (2, 16, 5, 6, 4)
    assert codec.decode(z).shape == (2, 3, 17, 48, 32)
    assert codec.decode(codec.encode(torch.zeros(1, 3, 1, 8, 8))).shape == (1, 3, 1, 8, 8)


def test_pictures_never_seen_come_back_recognisable(codec):
    x = torch.cat([to_pixels(moving_disc(i)) for i in range(1000, 1010)])
    flat = x.mean((2, 3, 4), keepdim=True).expand_as(x)
    assert psnr(x, codec.decode(codec.encode(x))) > psnr(x, flat) + 6


def test_encoding_what_was_decoded_gives_the_same_latents(codec):
    z = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(codec.encode(codec.decode(z)), z, atol=1e-4)


def test_a_latent_depends_on_its_own_frames_and_place_alone(codec):
    x = to_pixels(moving_disc(1001))
    changed = x.clone()
    changed[:, :, 3, 10, 20] += 0.5  # frame 3 is in latent 1, row 1, column 2
    where = (codec.encode(changed) != codec.encode(x)).any(1)[0].nonzero().tolist()
    assert where == [[1, 1, 2]]


def test_latents_have_about_unit_variance(codec):
    z = codec.encode(torch.cat([to_pixels(moving_disc(i)) for i in range(40)]))
    assert z.mean((0, 2, 3, 4)).abs().max() < 0.2
    assert 0.2 < z.std((0, 2, 3, 4)).min() <= z.std((0, 2, 3, 4)).max() < 1.3


def test_pictures_in_a_planted_subspace_come_back_exactly():
    r = np.random.default_rng(0)
    ways = np.linalg.qr(r.normal(size=(192, 5)))[0]

    def clip(n):  # still: all patches of all frames lie in five dimensions
        patches = 128 + (r.normal(size=(n, 4, 4, 5)) * 60) @ ways.T
        x = patches.reshape(n, 4, 4, 3, 8, 8).transpose(0, 3, 1, 4, 2, 5).reshape(n, 3, 32, 32)
        return np.repeat(x[:1], 5, 0).transpose(0, 2, 3, 1)

    clips = [clip(1).round().clip(0, 255).astype(np.uint8) for _ in range(60)]
    codec = PatchPCAVideo.fit(clips, channels=5)
    new = to_pixels(clip(1).round().clip(0, 255).astype(np.uint8))
    error = (codec.decode(codec.encode(new)) - new) * 127.5
    assert error.abs().max() < 4  # rounding to bytes is outside the five dimensions
    assert error.square().mean().sqrt() < 0.6


def test_still_pictures_have_nearly_the_same_latents_at_all_times():
    stills = [np.repeat(moving_disc(i, 1), 5, 0) for i in range(60)]
    codec = PatchPCAVideo.fit(stills)
    z = codec.encode(to_pixels(np.repeat(moving_disc(99, 1), 5, 0)))
    assert torch.allclose(z[:, :, 0], z[:, :, 1], atol=0.05)


def test_images_alone_are_enough_to_fit():
    codec = PatchPCAVideo.fit([moving_disc(i, 1) for i in range(40)])
    x = to_pixels(np.repeat(moving_disc(99, 1), 5, 0))
    assert psnr(x, codec.decode(codec.encode(x))) > 20


def test_the_same_clips_give_the_same_codec_and_other_clips_another():
    clips = [moving_disc(i) for i in range(4)]
    assert PatchPCAVideo.fit(clips).fingerprint() == PatchPCAVideo.fit(clips).fingerprint()
    assert PatchPCAVideo.fit(clips).fingerprint() != PatchPCAVideo.fit(clips[1:]).fingerprint()


def test_nothing_to_fit_on_is_said():
    with pytest.raises(UsageError, match="no clip"):
        PatchPCAVideo.fit([np.zeros((3, 4, 4, 3), np.uint8)])


@pytest.mark.parametrize("shape", [(1, 3, 4, 8, 8), (1, 3, 5, 12, 8), (1, 3, 5, 8, 0)])
def test_sizes_that_do_not_fit_are_refused(codec, shape):
    with pytest.raises(ValueError, match="multiple"):
        codec.encode(torch.zeros(shape))


def test_bytes_survive_the_way_to_pixels_and_back():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(to_frames(to_pixels(frames)), frames)
    assert to_frames(torch.tensor([-9.0, 9.0, 0.0]).reshape(1, 3, 1, 1, 1)).ravel().tolist() == [
        0,
        255,
        128,
    ]


def test_a_saved_codec_is_the_same(codec, tmp_path):
    codec.save(tmp_path)
    again = load_video_codec(tmp_path)
    assert again.fingerprint() == codec.fingerprint()
    x = to_pixels(moving_disc(7))
    assert torch.equal(again.encode(x), codec.encode(x))
    with pytest.raises(CheckpointError, match="audio codecs"):
        load_audio_codec(tmp_path)


def _other_kind(folder):
    (folder / "codec.json").write_text('{"kind": "Other"}')


def _no_json(folder):
    (folder / "codec.json").write_text("{")


def _list(folder):
    (folder / "codec.json").write_text("[]")


def _other_version(folder):
    head = json.loads((folder / "codec.json").read_text())
    (folder / "codec.json").write_text(json.dumps(head | {"version": 99}))


def _pickle(folder):
    torch.save({"first.mean": torch.zeros(192)}, folder / "codec.safetensors")


def _cut(folder):
    data = (folder / "codec.safetensors").read_bytes()
    (folder / "codec.safetensors").write_bytes(data[:-9])


def _change(name, value):
    def do(folder):
        tensors = safetensors.torch.load_file(folder / "codec.safetensors")
        tensors[name] = value
        safetensors.torch.save_file(tensors, folder / "codec.safetensors")

    return do


@pytest.mark.parametrize(
    "damage",
    [
        _other_kind,
        _other_version,
        _no_json,
        _list,
        _pickle,
        _cut,
        _change("more", torch.zeros(1)),
        _change("first.scale", torch.zeros(3)),
        _change("first.mean", torch.full((192,), torch.nan)),
        lambda folder: (folder / "codec.safetensors").unlink(),
        lambda folder: (folder / "codec.json").write_text("[" * 100_000),
    ],
)
def test_a_damaged_codec_is_a_checkpoint_error(codec, tmp_path, damage):
    codec.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError):
        load_video_codec(tmp_path)
