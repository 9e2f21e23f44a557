"""A SyncNet of one's own: trained on drawn faces that follow real speech, judged on other ones."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.curation.audio.sounds import read_mono
from tests.curation.lips.clips import clip_of, measured
from tests.curation.lips.test_av_sync import TALKS
from tests.frames import broken

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.lips.av_sync import AVSync
from reelmill.curation.lips.examples import Example, Examples, read_examples
from reelmill.curation.lips.sync_training import (
    SyncOptions,
    calibrate,
    fit,
    measure_sync,
    split,
    train_sync,
)
from reelmill.curation.models.mouth_sync import SIDE, MouthConfig, MouthSync, centred
from reelmill.curation.models.weights import Weights
from reelmill.curation.models.yunet import YuNet
from reelmill.datasets.corpus.talker import Talker, mouth_of
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.media.encode import write_video
from reelmill.errors import DatasetError, UsageError, WeightsError

RATE, SECONDS = 16_000, 4


def babble(seed: int, seconds: float = 2.2) -> np.ndarray:
    """Syllables of a made voice: float32 at 16 kHz."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    hertz = rng.uniform(90, 220)
    t = np.arange(count) / RATE
    voice = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 12))
    syllables = np.arange(0, seconds + 1, 0.12)
    loud = np.interp(t, syllables, rng.uniform(0, 1, len(syllables)) ** 3)
    return (0.2 * voice * loud + rng.normal(0, 1e-3, count)).astype(np.float32)


def drawn(seed: int, speech: np.ndarray) -> Example:
    """A talker's mouth, cut out where it is drawn."""
    frames = Talker(seed, 96).frames(mouth_of(speech, RATE))
    grey = frames[:, 40:88, 24:72].mean(axis=3).astype(np.uint8)
    assert grey.shape[1:] == (SIDE, SIDE)
    return Example(f"{seed}", f"{seed}", grey, speech[: 640 * len(frames)])


@pytest.fixture(scope="module")
def babblers() -> list[Example]:
    return [drawn(i, babble(i)) for i in range(6)]


def test_the_mouth_follows_the_sound():
    speech = babble(3)
    speech[RATE:] *= 1e-4
    mouth = mouth_of(speech, RATE)
    assert len(mouth.open) == 55
    assert mouth.open[:24].max() > 0.7
    assert mouth.open[26:].max() < 0.05
    frames = Talker(5).frames(mouth)
    dark = (frames[:, 115:140, 75:117].max(axis=3) < 80).mean(axis=(1, 2))
    assert np.corrcoef(dark, mouth.open)[0, 1] > 0.8
    assert np.array_equal(Talker(5).frames(mouth), frames)


def test_training_lowers_the_loss_and_gives_the_same_network_again(tmp_path, babblers):
    options = SyncOptions((), tmp_path, steps=15, batch=4, frames=12, channels=16, width=16)
    network, (start, end) = fit(babblers, options, lambda a, b, c: None)
    assert end < 0.9 * start
    again, _ = fit(babblers, options, lambda a, b, c: None)
    for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_network_that_tells_nothing_apart_passes_no_swapped_pair(babblers):
    torch.manual_seed(0)
    network, separated = calibrate(MouthSync(MouthConfig(16, 16)), babblers)
    figures = measure_sync(network, babblers)
    assert not separated
    assert (figures.swapped, figures.swapped_passed) == (30, 0)
    assert figures.accuracy < 0.6


def test_clips_of_one_file_are_kept_together():
    small = np.zeros((50, SIDE, SIDE), np.uint8), np.zeros(50 * 640, np.float32)
    found = [Example(f"{file}.{i}", str(file), *small) for file in range(20) for i in range(3)]
    parts = split(Examples(found), Examples())
    files = [{e.asset for e in part} for part in parts]
    assert [len(part) for part in parts] == [36, 12, 12]
    assert not files[0] & files[1]
    assert not files[0] & files[2]
    assert not files[1] & files[2]
    assert [len(part) for part in split(Examples(found[:36]), Examples(found[36:]))] == [30, 6, 24]
    with pytest.raises(DatasetError, match="too few"):
        split(Examples(found[:6]), Examples())


def test_what_cannot_be_trained_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("REELMILL_WEIGHTS", raising=False)
    with pytest.raises(UsageError, match="at most"):
        SyncOptions((), tmp_path, frames=60)
    with pytest.raises(UsageError):
        SyncOptions((), tmp_path, batch=1)
    with pytest.raises(WeightsError, match="face_yunet"):
        train_sync(SyncOptions((tmp_path,), tmp_path / "out"))


# From here on: real speech, real detector, real files.

TRAIN = """audio/lj001_0001.wav audio/lj001_0005.wav audio/sr_english.wav audio/silero_test_60s.wav
    audio/pyannote_phone_sample.wav audio/fw_stereo_two_speakers.wav talking/lrs3_ted_00018.mp4
    talking/latentsync_demo1_woman.mp4 talking/latentsync_demo3_man.mp4
    talking/panda_pressconf.mp4 audio/voicebank_p287_003_clean.wav"""
OTHERS = """audio/whisper_jfk.flac audio/echomimic_en_tts.wav audio/funasr_zh_example.wav
    talking/latentsync_demo1_otheraudio.wav talking/real3d_may_5s.mp4
    talking/retalking_face2.mp4 general/dj_video5_woman_dress.mp4"""


def write_talkers(media, names: str, folder, seed: int, most: int) -> None:
    folder.mkdir(parents=True)
    for name in names.split():
        sound = read_mono(media / name)
        starts = range(0, len(sound) - SECONDS * RATE + 1, SECONDS * RATE)
        for i, start in enumerate(list(starts)[:most]):
            seed += 1
            said = sound[start : start + SECONDS * RATE]
            said = said * 0.7 / max(1e-3, float(np.abs(said).max()))
            frames = Talker(seed).frames(mouth_of(said, RATE))
            path = folder / f"{(media / name).stem}_{i}.mp4"
            options = {"audio_rate": RATE, "preset": "ultrafast"}
            write_video(path, frames, fps=25, audio=said[None], **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, media, weights):
    """(folder of weights, result): the training of the flow in a shorter form."""
    home = tmp_path_factory.mktemp("talkers")
    write_talkers(media, TRAIN, home / "train", 0, 5)
    write_talkers(media, OTHERS, home / "others", 500, 2)
    torch.set_num_threads(1)
    options = SyncOptions(
        (home / "train",),
        home / "nets" / "syncnet",
        (home / "others",),
        steps=220,
        batch=6,
        frames=28,
        channels=64,
        learning_rate=3e-3,
        weights=weights,
    )
    result = train_sync(options)
    for name in ("face_yunet", "light_asd", "yamnet"):
        (home / "nets" / name).symlink_to(weights / name)
    return home, result


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_shifts_of_held_out_clips_are_found_and_no_swapped_pair_passes(trained):
    home, result = trained
    print(result)
    assert result.separated
    assert result.figures.clips >= 10
    assert result.figures.accuracy >= 0.9
    assert result.figures.swapped_passed == 0
    assert result.figures.in_sync >= 0.9
    told = json.loads((home / "nets/syncnet/training.json").read_text())
    assert told["figures"]["accuracy"] == result.figures.accuracy


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("early", [-5, 5])
@pytest.mark.parametrize("container", [True, False])
def test_the_stage_corrects_what_the_sound_was_shifted_by(trained, tmp_path, early, container):
    """200 ms, moved in the sound itself or by timestamps alone."""
    home, _ = trained
    clip = clip_of(home / "others" / "whisper_jfk_0.mp4")
    frames, sound = clip.frames(25, 192), clip.audio(RATE)[None]
    late = -early * 640
    options = {}
    if container:
        options = {"audio_start_s": 0.2} if late > 0 else {"start_s": 0.2}
    else:
        sound = np.pad(sound, ((0, 0), (late, 0))) if late > 0 else sound[:, -late:]
    path = tmp_path / "shifted.mp4"
    write_video(path, frames, fps=25, audio=sound, audio_rate=RATE, **options)
    (found,) = measured(AVSync(), Weights(home / "nets"), clip_of(path, **TALKS))
    assert abs(found["sync_first_offset"] - early) <= 1
    assert found["sync_correction"] == found["sync_first_offset"] / 25
    assert found["sync_error"] <= 1
    assert not broken(AVSync(), found)


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("wrong", ["another's sound", "silence", "a still photo"])
def test_what_is_no_speech_of_these_lips_does_not_pass(trained, tmp_path, wrong):
    home, _ = trained
    clip = clip_of(home / "others" / "whisper_jfk_0.mp4")
    frames, sound = clip.frames(25, 192), clip.audio(RATE)
    if wrong == "another's sound":
        sound = clip_of(home / "others" / "echomimic_en_tts_0.mp4").audio(RATE)[: len(sound)]
    elif wrong == "silence":
        sound = np.zeros_like(sound)
    else:
        frames = np.broadcast_to(frames[30:31], frames.shape)
    path = tmp_path / "wrong.mp4"
    write_video(path, frames, fps=25, audio=sound[None], audio_rate=RATE)
    (found,) = measured(AVSync(), Weights(home / "nets"), clip_of(path, **TALKS))
    assert "unsure_sync" in broken(AVSync(), found)


def curated(source, work, weights) -> tuple[list[dict], list[bytes]]:
    """(records, mp4s) of a run with AVSync over a folder."""
    recipe = work.parent / "recipe.yaml"
    stages = "Probe, Integrity, Shots, Loudness, Voice, SoundClass, Faces, Talking, AVSync, Cut"
    recipe.write_text(f"kind: video\nstages: [{stages}]\n")
    options = CurateOptions((str(source),), work, str(recipe), weights=weights, workers=0)
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    with ShardIndex.read(work / "shards" / "video") as index:
        found = [index.sample(key) for key in index.keys]
    return [json.loads(one["json"]) for one in found], [one["mp4"] for one in found]


def check_the_shard_is_corrected(home, tmp_path) -> None:
    """A talker whose sound is 200 ms late, and one with another's sound, through a whole run."""
    clip = clip_of(home / "others" / "whisper_jfk_0.mp4")
    frames, sound = clip.frames(25, 192), clip.audio(RATE)[None]
    other = clip_of(home / "others" / "echomimic_en_tts_0.mp4").audio(RATE)[None]
    source = tmp_path / "media"
    source.mkdir()
    written = {"fps": 25, "audio_rate": RATE}
    write_video(source / "late.mp4", frames, audio=sound, audio_start_s=0.2, **written)
    write_video(source / "other.mp4", frames, audio=other, **written)
    records, clips = curated(source, tmp_path / "work", home / "nets")
    assert [record["file"] for record in records] == ["late.mp4"]  # the other is rejected
    facts = records[0]["facts"]
    assert (facts["route"], facts["sync_error"] <= 1) == ("lips", True)
    assert facts["sync_correction"] == pytest.approx(-0.2, abs=0.04)
    assert records[0]["cut"]["delay_s"] == facts["sync_correction"]
    path = tmp_path / "cut.mp4"
    path.write_bytes(clips[0])
    (found,) = measured(AVSync(correct=False), Weights(home / "nets"), clip_of(path, **TALKS))
    assert found["sync_error"] <= 1  # of the written file, as it is


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_shard_holds_the_corrected_clip_and_no_swapped_one(trained, tmp_path):
    check_the_shard_is_corrected(trained[0], tmp_path)


@pytest.mark.media
@pytest.mark.slow
def test_what_is_skipped_is_named(tmp_path, media, weights):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("audio/vad_s.wav", "general/panda_whales.mp4", "talking/real3d_may_5s.mp4"):
        (folder / (media / name).name).symlink_to(media / name)
    found = read_examples([folder], YuNet(weights / "face_yunet"))
    assert [e.name for e in found.found] == ["real3d_may_5s.mp4"]
    assert found.found[0].mouths.shape == (found.found[0].frames, SIDE, SIDE)
    assert found.skipped == {
        "vad_s.wav": "no picture or no sound",
        "panda_whales.mp4": "no face for 50 frames",
    }


@pytest.mark.parametrize("training", [False, True])
def test_lips_are_seen_as_the_tower_of_three_dimensions_sees_them(training):
    """The quick way folds time; statistics and all, it is the network whose weights are stored."""
    torch.manual_seed(0)
    network = MouthSync(MouthConfig(16, 8)).train(training)
    plain = copy.deepcopy(network)
    mouths = torch.rand(2, 9, 48, 48) * 255
    seen = plain.lip_tower(centred(mouths))[..., 0, 0].transpose(1, 2)
    found = network.lips(mouths)
    torch.testing.assert_close(found, F.normalize(seen, dim=-1), atol=2e-5, rtol=1e-4)
    for name, value in plain.lip_tower.state_dict().items():
        torch.testing.assert_close(network.lip_tower.state_dict()[name], value)
