"""AVSync: its bounds, its corrections, its sign, and that nothing stands in for absent weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.curation.lips.clips import NoWeights, Unopened, clip_of, measured
from tests.frames import broken
from tests.media import flash_beep_clip, flash_beep_offsets, noise_video

from reelmill.curation.cut import CutSettings, cut, cut_key
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.lips.av_sync import AVSync, moved
from reelmill.curation.lips.people import frames_of, people_of
from reelmill.curation.models.lip_sync import LipSync, device_of
from reelmill.curation.models.mouth_sync import MouthConfig, MouthSync, save
from reelmill.curation.models.syncnet import SyncNet, distances
from reelmill.curation.models.weights import Weights
from reelmill.curation.models.yunet import YuNet
from reelmill.curation.stage import Facts, NotApplicable, NotMeasured
from reelmill.datasets.media.encode import write_video
from reelmill.errors import UsageError, WeightsError

TALKS = {"route": "lips", "talker": 0.0, "mean_volume": -20.0}
WELL = {"sync_error": 0, "sync_confidence": 4.0, "sync_volume": -20.0}


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        ({}, []),
        ({"sync_error": 3}, []),
        ({"sync_error": 4}, ["out_of_sync"]),
        ({"sync_confidence": 1.5}, ["unsure_sync"]),
        ({"sync_confidence": np.nextafter(1.5, 2)}, []),
        ({"sync_volume": -60.0}, []),
        ({"sync_volume": np.nextafter(-60, -61)}, ["too_quiet_for_sync"]),
    ],
)
def test_both_sides_of_each_bound(facts, reasons):
    assert broken(AVSync(), WELL | facts) == reasons


@pytest.mark.parametrize("route", ["background", "voice_over", "scene"])
def test_sound_of_other_routes_is_not_judged(route):
    (found,) = measured(AVSync(), NoWeights(), Unopened(TALKS | {"route": route}))
    assert {type(value) for value in found.values()} == {NotApplicable}
    assert route in found["sync_offset"].why


def test_without_weights_nothing_is_measured_and_no_media_opened():
    (found,) = measured(AVSync(), NoWeights(), Unopened(TALKS))
    assert set(found) == {fact.name for fact in AVSync.adds}
    assert {type(value) for value in found.values()} == {NotMeasured}
    assert "syncnet" in found["sync_confidence"].why


def test_a_run_without_weights_says_that_nothing_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("REELMILL_WEIGHTS", raising=False)
    noise_video(tmp_path / "m" / "a.mp4", seconds=2.5)
    recipe = tmp_path / "r.yaml"
    stages = "Probe, Integrity, Shots, Loudness, Voice, SoundClass, Faces, Talking, AVSync, Cut"
    recipe.write_text(f"kind: video\nstages: [{stages}]\n")
    options = CurateOptions((str(tmp_path / "m"),), tmp_path / "w", str(recipe), workers=0)
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    result = curation.result()
    assert result.clips.kept == 1
    record = json.loads((Path(result.report).parent / "run.json").read_text())
    assert "AVSync was not measured: its weights 'syncnet' are absent." in record["notes"]
    together = "Faces, Talking, AVSync were not measured: their weights 'face_yunet' are absent."
    assert together in record["notes"]


def planted(count: int = 110) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count + 60, 32)).astype(np.float32)


def judged(early: int, second_half: int | None = None, stage: AVSync | None = None) -> dict:
    """Lips, and sound that is `early` frames early."""
    row = planted()
    lips, count = row[30:140], 110

    def speech(delay: int) -> np.ndarray:
        other = early if second_half is None else second_half
        at = np.arange(count) + 30 - delay
        at = at + np.where(np.arange(count) < count // 2, early, other)
        return row[at]

    return (stage or AVSync()).judge(lips, speech)


@given(st.integers(-14, 14))
def test_a_constant_offset_is_corrected_and_measured_again(early):
    found = judged(early)
    assert found["sync_first_offset"] == early
    large = abs(early) >= 2
    assert found["sync_correction"] == (early / 25 if large else 0)
    assert found["sync_offset"] == (0 if large else early)
    assert found["sync_error"] == abs(found["sync_offset"])
    assert not broken(AVSync(), found | {"sync_volume": -20.0})


@pytest.mark.parametrize("early", [-15, 15])
def test_an_offset_at_the_end_of_the_reach_may_lie_beyond_it(early):
    found = judged(early)
    assert (found["sync_correction"], found["sync_error"]) == (0, 15)


def test_an_offset_that_changes_is_not_corrected():
    found = judged(6, second_half=-6)
    assert found["sync_correction"] == 0
    assert "out_of_sync" in broken(AVSync(), found | {"sync_volume": -20.0})


def test_an_unsure_offset_is_not_corrected():
    found = judged(6, stage=AVSync(correct_confidence=1e6))
    assert (found["sync_correction"], found["sync_offset"]) == (0, 6)


def test_correction_can_be_switched_off():
    assert judged(6, stage=AVSync(correct=False))["sync_offset"] == 6


def test_what_has_no_relation_is_unsure():
    lips, sound = planted()[:110], planted()[60:]
    found = AVSync().judge(lips, lambda delay: sound)
    assert "unsure_sync" in broken(AVSync(), found | {"sync_volume": -20.0})


def test_sound_is_moved_by_whole_frames_and_silent_where_there_is_none():
    sound = np.arange(1, 10 * 640 + 1, dtype=np.float32)
    assert np.array_equal(moved(sound, 0, 10, 0), sound)
    assert np.array_equal(moved(sound, 2, 5, 0), sound[1280:4480])
    later = moved(sound, 0, 10, 3)
    assert not later[:1920].any()
    assert np.array_equal(later[1920:], sound[:4480])
    earlier = moved(sound, 0, 10, -3)
    assert np.array_equal(earlier[:4480], sound[1920:])
    assert not earlier[4480:].any()
    assert moved(sound, 8, 5, -40).tolist() == [0] * 3200


@pytest.mark.parametrize("early", [-0.2, 0.2])
@pytest.mark.parametrize("container", [True, False])
def test_the_cut_puts_the_sound_where_the_correction_says(tmp_path, early, container):
    shift = {"audio_start_s": -early} if container else {"sound_shift_s": -early}
    if container and early > 0:
        shift = {"start_s": early, "audio_start_s": 0.0}
    flash_beep_clip(tmp_path / "a.mp4", **shift)
    media = clip_of(tmp_path / "a.mp4")
    settings = CutSettings(preset="ultrafast", audio_codec="flac")
    out = tmp_path / "b.mp4"
    for delay, wanted in ((0.0, -early), (early, 0.0)):
        result = cut(media.path, media.info, media.clip, out, settings, delay=delay)
        assert result.delay_s == delay
        assert np.median(flash_beep_offsets(out)) == pytest.approx(wanted, abs=0.002)
    assert cut_key(media.clip, settings, None, early) != cut_key(media.clip, settings)
    assert cut_key(media.clip, settings, None, 0.0) == cut_key(media.clip, settings)


def test_own_networks_are_saved_and_loaded_strictly(tmp_path):
    torch.manual_seed(0)
    network = MouthSync(MouthConfig(32, 16, 2.5)).eval()
    save(network, tmp_path / "syncnet")
    model = LipSync.load(Weights(tmp_path).path("syncnet"))
    faces = np.random.default_rng(0).integers(0, 256, (40, 224, 224, 3), np.uint8)
    sound = np.random.default_rng(1).normal(0, 0.1, 40 * 640).astype(np.float32)
    lips, speech = model.lips(faces), model.speech(sound, 40)
    assert lips.shape == speech.shape == (36, 16)
    assert np.linalg.norm(lips, axis=1) == pytest.approx(2.5, rel=1e-5)
    assert model.lips(faces[10:22]) == pytest.approx(lips[10:18], abs=1e-4)  # whatever the batch
    (tmp_path / "syncnet" / "config.json").write_text('{"channels": 64}')
    with pytest.raises(WeightsError, match="mouths and sound"):
        LipSync.load(tmp_path / "syncnet")
    with pytest.raises(WeightsError, match=r"syncnet_v2\.model"):
        LipSync.load(tmp_path)
    (tmp_path / "syncnet" / "mouth_sync.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"syncnet_v2\.model or mouth_sync"):
        Weights(tmp_path).path("syncnet")


def test_a_device_that_is_not_there_is_named():
    for name in ("abacus", "cuda:77"):
        with pytest.raises(UsageError, match=name):
            device_of(name)
    assert device_of("cpu").type == "cpu"


@pytest.mark.slow
def test_lips_run_through_the_published_network_as_window_by_window():
    torch.manual_seed(0)
    network = SyncNet().eval()
    model = LipSync(network, torch.device("cpu"))
    faces = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), np.uint8)
    bgr = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1])).float().permute(3, 0, 1, 2)
    with torch.inference_mode():
        alone = torch.cat([network.lips(bgr[None, :, i : i + 5]) for i in range(4)])
    assert model.lips(faces) == pytest.approx(alone.numpy(), abs=1e-3)


def apart(path, weights) -> np.ndarray:
    """Distances of lips and speech by frame and offset, of a network that never learned."""
    torch.manual_seed(3)
    model = LipSync(MouthSync(MouthConfig()).eval(), torch.device("cpu"))
    media = clip_of(path)
    person = next(people_of(frames_of(media, 640 * 360), YuNet(weights / "face_yunet"), 50))
    heard = moved(media.audio(16_000), person.first, person.frames, 0)
    rows = distances(model.lips(person.faces), model.speech(heard, person.frames), 15)
    return rows[20:-20]  # where all offsets have sound


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("name", ["real3d_may_5s.mp4", "retalking_face5.mp4"])
def test_shifts_of_real_clips_move_the_distances_by_as_much(tmp_path, media, weights, name):
    """Whatever a network makes of them: the offset is read where the sound went."""
    clip = clip_of(media / "talking" / name)
    frames, sound = clip.frames(25, 360), clip.audio(48_000)[None]
    written = {"fps": 25, "audio_rate": 48_000, "preset": "ultrafast", "crf": 12}
    plain = tmp_path / "plain.mp4"
    write_video(plain, frames, audio=sound, **written)
    base = apart(plain, weights)
    late = 9600  # samples, 0.2 s: 5 frames
    cases = {
        "sound moved later": (5, np.pad(sound, ((0, 0), (late, 0))), {}),
        "sound moved earlier": (-5, sound[:, late:], {}),
        "later by timestamps": (5, sound, {"audio_start_s": 0.2}),
        "earlier by timestamps": (-5, sound, {"start_s": 0.2}),
    }
    for what, (later, given_sound, options) in cases.items():
        path = tmp_path / "shifted.mp4"
        write_video(path, frames, audio=given_sound, **written, **options)
        found = apart(path, weights)
        errors = {
            s: np.abs(found[:, 8 + s : 23 + s] - base[:, 8:23]).mean() for s in range(-8, 9)
        }  # sound that is later agrees s columns further on
        assert min(errors, key=errors.get) == later, what


def found_by(media_clip, weights, **facts) -> Facts:
    media_clip.facts = TALKS | facts
    return measured(AVSync(), weights, media_clip)[0]


@pytest.mark.media
@pytest.mark.slow
def test_real_clips_give_facts_by_random_weights_and_never_pass(tmp_path, media, weights):
    """A network that learned nothing is sure of nothing: no clip passes by it."""
    torch.manual_seed(0)
    save(MouthSync(MouthConfig()), tmp_path / "syncnet")
    (tmp_path / "face_yunet").symlink_to(weights / "face_yunet")
    for name in ("real3d_may_5s.mp4", "ovi_kitchen_generated.mp4"):
        found = found_by(clip_of(media / "talking" / name), Weights(tmp_path))
        assert found["sync_volume"] == -20.0
        assert found["sync_error"] == abs(found["sync_offset"])
        assert "unsure_sync" in broken(AVSync(), found)
