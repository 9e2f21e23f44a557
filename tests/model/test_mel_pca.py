"""MelPCAAudio: 218 tokens, planted tones and onsets, exact lengths, determinism."""

import numpy as np
import pytest
import torch
import torchaudio

from reelmill.errors import CheckpointError, UsageError
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.codecs.mel_pca import MelPCAAudio, log_mel

RATE = 44_100


def bells(seed: int, seconds: float = 2.0) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Decaying tones at random times; returns samples and (onset seconds, Hz) of each."""
    r = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    notes = [(0.1 + 0.6 * i + r.uniform(0, 0.2), r.uniform(250, 2000)) for i in range(3)]
    sound = np.zeros_like(t)
    for onset, hz in notes:
        since = np.clip(t - onset, 0, None)
        sound += (t >= onset) * 0.4 * np.exp(-9 * since) * np.sin(2 * np.pi * hz * since)
    return sound.astype(np.float32), notes


@pytest.fixture(scope="module")
def codec() -> MelPCAAudio:
    return MelPCAAudio.fit([bells(i)[0] for i in range(60)])


def test_the_papers_clip_has_218_tokens_of_40_channels(codec):
    samples = round(81 / 16 * RATE)
    assert codec.encode(torch.zeros(1, samples)).shape == (1, 40, 218)
    assert (codec.channels, codec.rate, codec.hop) == (40, 44_100, 1024)


@pytest.mark.parametrize("samples", [1024, 1535, 2047, 2048, 44_100, 46_856])
def test_lengths_are_exact(codec, samples):
    z = codec.encode(torch.zeros(2, samples))
    assert z.shape == (2, 40, samples // 1024)
    assert codec.decode(z, samples).shape == (2, samples)
    assert codec.decode(z).shape == (2, samples // 1024 * 1024)


def test_mel_front_end_is_torchaudios():
    x = torch.from_numpy(bells(3)[0])[None]
    theirs = torchaudio.transforms.MelSpectrogram(
        RATE, 2048, hop_length=512, n_mels=128, power=1, norm="slaney", mel_scale="slaney",
        center=False, f_max=RATE / 2,
    )(torch.nn.functional.pad(x, (768, 768), mode="reflect"))  # fmt: skip
    expected = theirs.clamp(min=1e-5).log().transpose(1, 2)
    assert torch.allclose(log_mel(x), expected, atol=1e-3)


def test_planted_tones_come_back_at_their_time_and_pitch(codec):
    sound, notes = bells(1000)
    out = codec.decode(codec.encode(torch.from_numpy(sound)[None]), len(sound))[0].numpy()
    loudness = np.sqrt(np.convolve(out**2, np.ones(256) / 256, "same"))
    for onset, hz in notes:
        start = round(onset * RATE)
        before, after = loudness[start - 2500 : start - 1200], loudness[start : start + 2500]
        assert after.max() > 3 * before.max()
        spectrum = np.abs(np.fft.rfft(out[start : start + 8192] * np.hanning(8192)))
        loudest = np.fft.rfftfreq(8192, 1 / RATE)[spectrum.argmax()]
        assert loudest == pytest.approx(hz, rel=0.06)


def test_decoded_sound_has_the_mel_that_it_was_decoded_from(codec):
    x = torch.from_numpy(bells(1001)[0])[None]
    out = codec.decode(codec.encode(x), x.shape[1])
    a, b = log_mel(x), log_mel(out)
    assert torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1] > 0.95
    assert (a - b).abs().mean() < 0.4


def test_silence_comes_back_as_silence(codec):
    out = codec.decode(codec.encode(torch.zeros(1, RATE)))
    assert out.abs().max() < 0.02


def test_decoding_is_deterministic_and_each_sound_stands_alone(codec):
    z = torch.cat([codec.encode(torch.from_numpy(bells(i)[0])[None]) for i in (1, 2)])
    torch.manual_seed(1)
    first = codec.decode(z)
    torch.manual_seed(2)
    assert torch.equal(first, codec.decode(z))
    assert torch.allclose(first[1:], codec.decode(z[1:]), atol=1e-3)


def test_any_latents_decode_to_finite_sound(codec):
    out = codec.decode(20 * torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(0)))
    assert out.isfinite().all()


def test_latents_have_about_unit_variance(codec):
    z = torch.cat([codec.encode(torch.from_numpy(bells(i)[0])[None]) for i in range(60)])
    assert z.mean((0, 2)).abs().max() < 0.05
    assert 0.1 < z.std((0, 2)).min() <= z.std((0, 2)).max() < 1.1


def test_nothing_to_fit_or_encode_is_said(codec):
    with pytest.raises(UsageError, match="no sound"):
        MelPCAAudio.fit([np.zeros(1000, np.float32)])
    with pytest.raises(ValueError, match="1024 or more"):
        codec.encode(torch.zeros(1, 1023))


def test_a_saved_codec_is_the_same(codec, tmp_path):
    codec.save(tmp_path)
    again = load_audio_codec(tmp_path)
    assert again.fingerprint() == codec.fingerprint()
    z = again.encode(torch.from_numpy(bells(5)[0])[None])
    assert torch.equal(again.decode(z), codec.decode(z))
    with pytest.raises(CheckpointError, match="video codecs"):
        load_video_codec(tmp_path)
    text = (tmp_path / "codec.json").read_text()
    (tmp_path / "codec.json").write_text(text.replace('"iterations": 32', '"iterations": 1e12'))
    with pytest.raises(CheckpointError, match="iterations"):
        load_audio_codec(tmp_path)
