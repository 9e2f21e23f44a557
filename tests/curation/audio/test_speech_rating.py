"""NISQA, SQUIM, UTMOS: networks against independent ones, and scores only where they apply."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from tests.curation.audio.sounds import Heard
from tests.media import noise, tone

from reelmill.curation.audio.speech_rating import NISQA, SQUIM, UTMOS
from reelmill.curation.models import nisqa, squim, utmos
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.datasets.media.decode import decode_audio, probe
from reelmill.errors import WeightsError

SMALL = utmos.UTMOSConfig(
    channels=32, width=48, inner=96, heads=4, layers=2, kernel=16, groups=4, embedding=8,
    recurrent=12, projected=20,
)  # fmt: skip
SPEECH = {"speech_ratio": 0.9, "silence_ratio": 0.05}
STAGES = (NISQA(), SQUIM(), UTMOS())


def scattered(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights, normalisation statistics too."""
    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            spread = torch.rand_like(tensor) * 0.2
            tensor.copy_(spread + 0.5 if "var" in name else spread - 0.1)
    return network.eval()


class Store:
    def __init__(self, folder=None):
        self.folder = folder

    def path(self, name):
        return self.folder


def measured(stage, clips, folder=None):
    with stage.session(Store(folder)) as measure:
        return measure(clips)


def spoken(samples, facts=SPEECH):
    return Heard(np.asarray(samples, np.float32).reshape(-1), facts)


def test_utmos_is_the_wav2vec_of_transformers_with_a_recurrent_head(tmp_path):
    """Against transformers' own network, with the same weights under its names."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    ours = scattered(utmos.UTMOSNetwork(SMALL))
    config = Wav2Vec2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        feat_extract_norm="group", do_stable_layer_norm=False,
    )  # fmt: skip
    position = "encoder.pos_conv_embed.conv"
    names = {
        "feature_extractor.conv_layers.0.2.": "feature_extractor.conv_layers.0.layer_norm.",
        **{
            f"feature_extractor.conv_layers.{i}.0.": f"feature_extractor.conv_layers.{i}.conv."
            for i in range(7)
        },
        "encoder.pos_conv.0.weight_g": f"{position}.parametrizations.weight.original0",
        "encoder.pos_conv.0.weight_v": f"{position}.parametrizations.weight.original1",
        "encoder.pos_conv.0.bias": f"{position}.bias",
        "post_extract_proj.": "feature_projection.projection.",
        ".self_attn_layer_norm.": ".layer_norm.",
        ".self_attn.": ".attention.",
        ".fc1.": ".feed_forward.intermediate_dense.",
        ".fc2.": ".feed_forward.output_dense.",
        "mask_emb": "masked_spec_embed",
    }
    state = {}
    for name, tensor in ours.wav2vec2.state_dict().items():
        theirs = f"feature_projection.{name}" if name.startswith("layer_norm.") else name
        for mine, other in names.items():
            theirs = theirs.replace(mine, other)
        state[theirs] = tensor
    peer = Wav2Vec2Model(config).eval()
    peer.load_state_dict(state, strict=True)
    wave = torch.from_numpy(noise(0.7, 16_000, seed=1)[:1].astype(np.float32))
    with torch.inference_mode():
        heard = peer(wave).last_hidden_state
        torch.testing.assert_close(ours.wav2vec2(wave), heard, rtol=1e-4, atol=1e-4)
        who = torch.cat((ours.domain_emb, ours.judge_emb), 1).expand(heard.shape[1], -1)[None]
        rows = ours.projection(ours.blstm(torch.cat((heard, who), 2))[0])
        assert float(ours(wave)) == pytest.approx(float(rows.mean() * 2 + 3), abs=1e-4)
    torch.save(ours.state_dict(), tmp_path / utmos.FILE)
    rate = utmos.UTMOS(tmp_path, SMALL)
    long = np.tile(wave[0].numpy(), 45)  # 31.5 s: three parts of one length
    parts = [rate(part)[0] for part in np.array_split(long, 3)]
    assert rate(long)[0] == pytest.approx(np.mean(parts), abs=1e-6)


def test_the_published_utmos_has_the_keys_of_its_file():
    keys = utmos.UTMOSNetwork(utmos.UTMOSConfig(layers=1)).state_dict().keys()
    assert {
        "wav2vec2.feature_extractor.conv_layers.0.2.weight",
        "wav2vec2.feature_extractor.conv_layers.6.0.weight",
        "wav2vec2.encoder.pos_conv.0.weight_g",
        "wav2vec2.encoder.layers.0.self_attn.q_proj.bias",
        "wav2vec2.mask_emb",
        "domain_emb",
        "blstm.weight_ih_l0_reverse",
        "projection.2.bias",
    } <= keys


def test_the_spectra_of_nisqa_are_those_of_torchaudio():
    from torchaudio.transforms import MelSpectrogram

    sound = noise(1.0, 48_000, seed=3)[0].astype(np.float32) * np.linspace(0.001, 1, 48_000)
    peer = MelSpectrogram(
        48_000, n_fft=4096, win_length=960, hop_length=480, f_max=20_000.0, n_mels=48, power=1.0,
        norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    level = 20 * np.log10(
        np.maximum(peer(torch.from_numpy(sound.astype(np.float32))).numpy(), 1e-4)
    )
    found = nisqa.mel_decibels(sound.astype(np.float32), 48_000)
    assert found.shape == (48, 101)
    np.testing.assert_allclose(found, np.maximum(level, level.max() - 80), atol=0.02)


def test_nisqa_loads_what_has_its_keys_and_rates_any_length(tmp_path):
    network = scattered(nisqa.NISQANetwork())
    torch.save({"args": {}, "model_state_dict": network.state_dict()}, tmp_path / nisqa.FILE)
    rate = nisqa.NISQA(tmp_path)
    for samples in (1, 700, 54 * 16_000):
        scores = rate(noise(samples / 16_000, 16_000, seed=1)[0, :samples], 16_000)
        assert scores.shape == (5,)
        assert np.isfinite(scores).all()


def test_squim_is_the_network_of_torchaudio(tmp_path):
    from torchaudio.models import squim_objective_base

    torch.manual_seed(0)
    network = squim_objective_base().eval()
    torch.save(network.state_dict(), tmp_path / squim.FILE)
    sound = noise(1.0, 16_000, seed=2)[0].astype(np.float32)
    with torch.inference_mode():
        truth = [float(score[0]) for score in network(torch.from_numpy(sound)[None])]
    np.testing.assert_allclose(squim.SQUIM(tmp_path)(sound), truth, atol=1e-5)
    (facts,) = measured(SQUIM(), [spoken(sound)], tmp_path)
    assert list(facts) == ["squim_stoi", "squim_pesq", "squim_si_sdr"]
    assert list(facts.values()) == pytest.approx(truth, abs=1e-5)
    (silent,) = measured(SQUIM(), [spoken(np.zeros(16_000))], tmp_path)
    assert silent["squim_stoi"] == NotApplicable("silent")


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (nisqa.NISQA, nisqa.FILE),
        (squim.SQUIM, squim.FILE),
        (partial(utmos.UTMOS, config=SMALL), utmos.FILE),
    ],
)
def test_other_files_are_refused_and_no_pickle_is_run(tmp_path, network, name):
    path = tmp_path / name
    for data in (b"", b"no zip", pickle.dumps(Evil(), protocol=2)):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=name):
            network(tmp_path)
    torch.save({"model_state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match="published weights"):
        network(tmp_path)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_without_weights_or_speech_nothing_stands_in(stage):
    clips = [
        spoken(tone(1.0, 16_000)),
        spoken(tone(1.0, 16_000), facts={"speech_ratio": 0.0, "silence_ratio": 0.0}),
        spoken(tone(1.0, 16_000), facts={"speech_ratio": 0.4, "silence_ratio": 0.1}),
        spoken(tone(1.0, 16_000), facts=dict.fromkeys(SPEECH, NotApplicable("no sound"))),
    ]
    found = measured(stage, clips)
    names = {fact.name for fact in stage.adds}
    absent = NotMeasured(f"weights {stage.resources.weights[0]!r} absent")
    mixed = NotApplicable("mostly sounds other than speech")
    wanted = [absent, NotApplicable("no speech"), mixed, NotApplicable("no sound")]
    assert [set(facts) for facts in found] == [names] * 4
    assert [set(facts.values()) for facts in found] == [{value} for value in wanted]


@pytest.mark.parametrize(
    ("stage", "bound", "at", "below"),
    [(NISQA(), "min_overall", 2.0, 1.99), (SQUIM(), "min_si_sdr", 5.0, 4.99),
     (UTMOS(), "min_utmos", 2.0, 1.99)],
)  # fmt: skip
def test_bounds_on_both_sides(stage, bound, at, below):
    holds = stage.bounds()[bound].holds(np.array([at, below, np.nan]))
    assert holds.tolist() == [True, False, True]


@pytest.mark.media
def test_nisqa_hears_noise_that_was_added_to_real_speech(media, weights):
    """Clean and noisy recordings of the same words, and the published weights."""
    rate = nisqa.NISQA(Weights(weights).path("nisqa"))

    def rated(name):
        path = media / f"audio/voicebank_{name}.wav"
        info = probe(path)
        sound = np.concatenate([b.samples[0] for b in decode_audio(path, info)])
        return rate(sound, info.audio.rate)

    clean = np.array([rated(f"p287_00{i}_clean") for i in range(1, 5)])
    noisy = np.array([rated(f"p287_00{i}_noisy") for i in range(1, 5)])
    assert ((clean > 1) & (clean < 5.5)).all()
    assert (clean[:, 0] - noisy[:, 0] > 0.3).all()  # overall
    assert (clean[:, 1] - noisy[:, 1] > 0.5).all()  # noisiness
