"""Published autoencoders behind our protocols: small random weights of the same architecture."""

import json

import numpy as np
import pytest
import torch

from reelmill.errors import CheckpointError, WeightsError
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.codecs.published import open_published, write_published
from reelmill.model.codecs.vae_audio import VAEAudio
from reelmill.model.codecs.vae_video import VAEVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import Pipeline

diffusers = pytest.importorskip("diffusers")


def wan(residual: bool = False):
    """residual: as in Wan 2.2's 5B, 4 x 16 x 16 with pixels in patches of 2."""
    more = (
        {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
         "scale_factor_spatial": 16, "decoder_base_dim": 8}
        if residual
        else {}
    )  # fmt: skip
    return diffusers.AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 2.0, 1.0], **more,
    )  # fmt: skip


def hunyuan():
    return diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 8, 16, 16, 16), layers_per_block=1
    )


def ltx():
    return diffusers.AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 32), layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
    )  # fmt: skip


MODELS = {
    "wan2.1": (lambda: wan(), 4, (4, 8, 8)),
    "wan2.2": (lambda: wan(True), 4, (4, 16, 16)),
    "hunyuan": (hunyuan, 4, (4, 16, 16)),
    "ltx": (ltx, 8, (8, 32, 32)),
}


@pytest.fixture(scope="module", params=MODELS)
def video(request):
    build, channels, stride = MODELS[request.param]
    torch.manual_seed(0)
    return VAEVideo(build().eval()), channels, stride


@pytest.fixture(scope="module")
def sound() -> VAEAudio:
    torch.manual_seed(0)
    vae = diffusers.MMAudioVAE(hidden_channels=32, layers_per_block=1).eval()
    vocoder = diffusers.MMAudioVocoder(
        upsample_initial_channel=64, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),)
    ).eval()
    return VAEAudio(vae, vocoder)


def pixels(stride, steps=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.rand(1, 3, 1 + steps * stride[0], 2 * stride[1], 2 * stride[2], generator=g) * 2 - 1
    )


def test_latents_have_the_shape_that_the_protocol_says(video):
    codec, channels, stride = video
    assert (codec.channels, codec.stride) == (channels, stride)
    x = pixels(stride)
    z = codec.encode(x)
    assert z.shape == (1, channels, 3, 2, 2)
    assert codec.decode(z).shape == x.shape
    assert codec.encode(x[:, :, :1]).shape == (1, channels, 1, 2, 2)


def test_the_first_latent_is_of_the_first_frame_alone(video):
    codec, _, stride = video
    a, b = pixels(stride), pixels(stride, seed=2)
    b[:, :, 0] = a[:, :, 0]
    z, y = codec.encode(a), codec.encode(b)
    assert torch.allclose(z[:, :, 0], y[:, :, 0], atol=1e-5)
    assert torch.allclose(z[:, :, 0], codec.encode(a[:, :, :1])[:, :, 0], atol=1e-5)
    assert not torch.allclose(z[:, :, 1:], y[:, :, 1:], atol=1e-5)


def test_streamed_pieces_are_the_whole(video):
    codec, _, stride = video
    z = torch.randn(1, codec.channels, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    pieces = list(codec.stream(z))
    assert len(pieces) == (3 if "wan" in codec.family.lower() else 1)
    assert torch.allclose(torch.cat(pieces, 2), codec.decode(z), atol=1e-5)
    assert pieces[0].shape[2] == (1 if len(pieces) > 1 else 1 + 2 * stride[0])


def test_latents_are_normalised_as_published():
    model = wan().eval()
    codec, x = VAEVideo(model), pixels((4, 8, 8))
    with torch.no_grad():
        raw = model.encode(x).latent_dist.mode()
        mean = torch.tensor(model.config.latents_mean)[None, :, None, None, None]
        std = torch.tensor(model.config.latents_std)[None, :, None, None, None]
        assert torch.allclose(codec.encode(x), (raw - mean) / std, atol=1e-6)
        assert torch.allclose(codec.decode((raw - mean) / std), model.decode(raw).sample, atol=1e-5)
        other = hunyuan().eval()
        y = pixels((4, 16, 16))
        raw = other.encode(y).latent_dist.mode()
        assert torch.allclose(VAEVideo(other).encode(y), raw * 1.03682, atol=1e-5)
        third = ltx().eval()
        third.latents_mean.fill_(0.5)
        third.latents_std.fill_(2.0)
        w = pixels((8, 32, 32))
        raw = third.encode(w).latent_dist.mode()
        assert torch.allclose(VAEVideo(third).encode(w), (raw - 0.5) / 2, atol=1e-5)


def test_saved_and_opened_it_is_the_same_codec(video, tmp_path):
    codec, _, stride = video
    codec.save(tmp_path / "codec")
    again = load_video_codec(tmp_path / "codec")
    assert isinstance(again, VAEVideo)
    assert again.fingerprint() == codec.fingerprint()
    x = pixels(stride)
    assert torch.equal(again.encode(x), codec.encode(x))


def test_another_weight_or_setting_is_another_fingerprint():
    torch.manual_seed(0)
    first = wan()
    prints = {VAEVideo(first).fingerprint()}
    with torch.no_grad():
        next(first.parameters()).add_(1e-3)
    prints.add(VAEVideo(first).fingerprint())
    torch.manual_seed(0)
    other = diffusers.AutoencoderKLWan(**(dict(wan().config) | {"latents_std": [1.0] * 4}))
    prints.add(VAEVideo(other).fingerprint())
    assert len(prints) == 3


def test_sizes_that_no_latent_holds_are_refused(video):
    codec, _, stride = video
    with pytest.raises(ValueError, match="frames of"):
        codec.encode(torch.zeros(1, 3, 2, stride[1], stride[2]))
    with pytest.raises(ValueError, match="multiples of"):
        codec.encode(torch.zeros(1, 3, 1, stride[1] + 1, stride[2]))


def test_five_seconds_of_sound_are_218_tokens(sound):
    assert (sound.channels, sound.rate, sound.hop) == (40, 44_100, 1024)
    wave = torch.rand(1, round(5.0625 * 44_100)) - 0.5
    z = sound.encode(wave)
    assert z.shape == (1, 40, 218)
    assert sound.decode(z[:, :, :4]).shape == (1, 4096)
    assert sound.decode(z[:, :, :4], 4700).shape == (1, 4700)
    assert sound.decode(z[:, :, :4], 100).shape == (1, 100)


def test_sound_latents_are_those_of_mmaudio(sound):
    wave = torch.rand(2, 8 * 1024, generator=torch.Generator().manual_seed(1)) - 0.5
    with torch.no_grad():
        raw = sound.vae.encode(wave).latent_dist.mode()
        assert torch.allclose(sound.encode(wave), raw * 0.417, atol=1e-6)
        mel = sound.vae.decode(raw).sample
        expected = sound.vocoder(mel).sample[:, 0]
    assert torch.allclose(sound.decode(raw * 0.417), expected, atol=1e-5)
    with pytest.raises(ValueError, match="2048 or more"):
        sound.encode(wave[:, :2000])


def test_a_saved_sound_codec_is_the_same(sound, tmp_path):
    sound.save(tmp_path / "codec")
    again = load_audio_codec(tmp_path / "codec")
    wave = torch.rand(1, 4096) - 0.5
    assert again.fingerprint() == sound.fingerprint()
    assert torch.equal(again.encode(wave), sound.encode(wave))
    assert torch.equal(again.decode(again.encode(wave)), sound.decode(sound.encode(wave)))


def test_a_vocoder_of_another_hop_is_refused(sound):
    other = diffusers.MMAudioVocoder(
        upsample_initial_channel=64, upsample_rates=(8, 4, 2), upsample_kernel_sizes=(16, 8, 4),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="128 mels, 64 samples each"):
        VAEAudio(sound.vae, other)


def test_folders_that_are_no_autoencoder_are_refused(tmp_path):
    write_published(tmp_path / "vae", wan())
    config = tmp_path / "vae" / "config.json"
    whole = json.loads(config.read_text())
    with pytest.raises(CheckpointError, match="'AutoencoderKLWan'; MMAudioVAE is wanted"):
        open_published(tmp_path / "vae", ("MMAudioVAE",))
    config.write_text(json.dumps(whole | {"base_dim": 16}))
    with pytest.raises(CheckpointError, match="do not fit"):
        VAEVideo.open(tmp_path / "vae")
    config.write_text(json.dumps(whole | {"_class_name": "DiffusionPipeline"}))
    with pytest.raises(CheckpointError, match="'DiffusionPipeline'"):
        VAEVideo.open(tmp_path / "vae")
    config.write_text(json.dumps(whole))
    for file in (tmp_path / "vae").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(WeightsError, match="only safetensors"):
        VAEVideo.open(tmp_path / "vae")


def test_a_pipeline_runs_on_published_codecs(sound, tmp_path):
    torch.manual_seed(0)
    model = MMDiT(preset("tiny", video_channels=4)).eval()
    with torch.no_grad():
        model.video.head.weight.normal_(std=0.1)
    pipeline = Pipeline(model, VAEVideo(wan().eval()), sound, HashTextEncoder())
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    options = {"height": 32, "width": 32, "frames": 9, "steps": 1}
    clip = pipeline.generate("a ball", image=image, task="i2av", **options)
    assert clip.video.shape == (9, 32, 32, 3)
    assert clip.audio.shape == (1, round(9 / 16 * 44_100))
    again = Pipeline.load(pipeline.save(tmp_path / "export"))
    other = again.generate("a ball", image=image, task="i2av", **options)
    assert np.array_equal(clip.video, other.video)
    assert clip.provenance["codecs"]["video"] == "VAEVideo"
