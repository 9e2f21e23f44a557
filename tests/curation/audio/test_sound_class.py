"""SoundClass: YAMNet from its TFLite file, and the classes of real sound."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.curation.audio.singing import choir, in_a_room, sung
from tests.curation.audio.sounds import Heard, Shelf, read_mono

from reelmill.curation.audio.sound_class import CLASSES, SoundClass, class_scores
from reelmill.curation.models.tflite import TFLite
from reelmill.curation.models.weights import Weights
from reelmill.curation.models.yamnet import WINDOW, YAMNet
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.errors import WeightsError

pytestmark = pytest.mark.long

LOUD = {"mean_volume": -20.0}
TRUTH = {  # MEDIA.md
    "speech": """talking/lrs3_ted_00018.mp4 talking/latentsync_demo1_woman.mp4
        talking/latentsync_demo3_man.mp4 talking/latentsync_demo1_otheraudio.wav
        talking/retalking_face1.mp4 talking/retalking_face2.mp4 talking/retalking_face4.mp4
        talking/retalking_face5.mp4 talking/real3d_may_5s.mp4 talking/mmaction_makeup_speech.avi
        talking/wan_animate_woman_speech.mp4 audio/whisper_jfk.flac audio/lj001_0001.wav
        audio/lj001_0002.wav audio/lj001_0005.wav audio/voicebank_p287_001_noisy.wav
        audio/voicebank_p287_002_noisy.wav audio/voicebank_p287_003_noisy.wav
        audio/voicebank_p287_004_noisy.wav audio/silero_test_60s.wav audio/sr_english.wav
        audio/sr_french.aiff audio/sr_chinese.flac audio/fw_stereo_two_speakers.wav
        audio/cosyvoice_zh_prompt.wav audio/funasr_zh_example.wav
        audio/pyannote_phone_sample.wav general/dj_video5_woman_dress.mp4""",
    "music": """audio/music_bach_piano.ogg audio/music_dcoffset.wav audio/music_electro_1.mp3
        audio/music_xylophone_2min.ogg audio/music_guitar.mp3 general/chaplin_pillarbox.mp4
        general/dj_video2_vertical_text.mp4""",
    "effects": """audio/esc_dog_1-100032-A-0.wav audio/esc_carhorn_2-100648-A-43.wav
        audio/esc_thunder_3-103051-C-19.wav audio/sfx_rain_60s.mp3 audio/sfx_crunching_quiet.mp3
        general/vggsound_tennis_360p.mp4""",
}


def classed(clips: list[Heard], weights) -> list:
    with SoundClass().session(weights) as measure:
        return measure(clips)


def test_without_weights_it_is_not_measured():
    found = classed([Heard(np.zeros(16_000, np.float32), LOUD)], Shelf({}))[0]
    assert {type(value) for value in found.values()} == {NotMeasured}


def test_without_sound_it_is_not_applicable():
    mute = Heard(np.zeros(0, np.float32), {"mean_volume": NotApplicable("no sound")})
    found = classed([mute], Shelf({}))[0]
    assert {type(value) for value in found.values()} == {NotApplicable}
    assert mute.asked == 0


def test_scores_are_means_over_windows_that_are_not_silent():
    probability = np.zeros((3, 521), np.float32)
    probability[0, [0, 132]] = 0.9, 0.3
    probability[1, [3, 300]] = 0.5, 0.1
    probability[2, [494, 0]] = 0.9, 0.8  # silence
    assert class_scores(probability) == pytest.approx([0.7, 0, 0.15, 0.05])
    assert class_scores(probability[2:]) is None


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.9, 0.0, 0.2, 0.1), "speech"),
        ((0.1, 0.41, 1.0, 0.0), "singing"),
        ((0.1, 0.39, 1.0, 0.0), "music"),
        ((0.0, 0.0, 0.5, 0.41), "effects"),
        ((0.0, 0.0, 0.5, 0.39), "music"),
        ((0.0, 0.0, 0.0, 0.0), "effects"),
    ],
)
def test_rules_on_both_sides(scores, expected):
    assert SoundClass().decide(np.array(scores)) == expected


@pytest.mark.parametrize("content", [b"", b"TFL3" * 8, b"\0\0\0\0TFL3" + b"\xff" * 64])
def test_what_is_no_tflite_file_is_an_error(tmp_path, content):
    path = tmp_path / "yamnet.tflite"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        TFLite(path)


@pytest.fixture(scope="module")
def weights(media) -> Path:
    found = Weights().path("yamnet")
    if found is None:
        pytest.skip("weights 'yamnet' absent")
    return found


def read_all(path: Path) -> None:
    model = TFLite(path)
    for operator in model.operators:
        if operator.code in (3, 4):
            model.tensor(operator.inputs[1])


@pytest.mark.media
def test_damaged_weights_are_an_error_or_other_numbers_never_a_crash(weights, tmp_path):
    whole = (weights / "yamnet.tflite").read_bytes()
    rng = np.random.default_rng(0)
    for cut in (*rng.integers(8, 4_000, 6), 100_000, len(whole) - 60_000):
        path = tmp_path / "yamnet.tflite"
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            read_all(path)
    huge = bytearray(whole)
    struct.pack_into("<I", huge, 0, 0xFFFFFFF0)
    path.write_bytes(huge)
    with pytest.raises(WeightsError):
        TFLite(path)


@pytest.mark.media
def test_windows(weights):
    model = YAMNet(weights)
    assert len(model(np.zeros(1, np.float32))) == 1
    assert len(model(np.zeros(WINDOW + 7_680, np.float32))) == 2
    silence = model(np.zeros(WINDOW, np.float32))
    assert model.names[silence[0].argmax()] == "Silence"


@pytest.mark.slow
@pytest.mark.media
def test_real_sound_and_its_confusion_table(media, weights):
    """There is no singing among the real sounds: `test_made_singing` is of that class."""
    table: Counter[tuple[str, str]] = Counter()
    for truth, names in TRUTH.items():
        clips = [Heard(read_mono(media / name), LOUD) for name in names.split()]
        for facts in classed(clips, Weights()):
            table[truth, facts["sound_class"]] += 1
    for truth in CLASSES:
        print(f"{truth:8}", *(f"{table[truth, found]:4}" for found in CLASSES))
    right = sum(table[name, name] for name in CLASSES)
    assert right >= 0.95 * table.total()
    silent = classed([Heard(read_mono(media / "audio/vad_zero.wav"), LOUD)], Weights())[0]
    assert isinstance(silent["sound_class"], NotApplicable)


@pytest.mark.slow
@pytest.mark.media
def test_made_singing(media, weights):
    """Words of real speech, sung by a vocoder in a room, alone and as a choir; and spoken there."""
    names = ["lj001_0001", "lj001_0005", *(f"voicebank_p287_00{i}_clean" for i in range(1, 5))]
    table: Counter[tuple[str, str]] = Counter()
    for name in names:
        said = read_mono(media / f"audio/{name}.wav")
        alone = sung(said)
        made = {
            "spoken": in_a_room(said), "sung": in_a_room(alone), "choir": in_a_room(choir(said)),
            "sung, dry": alone,
        }  # fmt: skip
        for way, sound in made.items():
            (facts,) = classed([Heard(sound, LOUD)], Weights())
            table[way, facts["sound_class"]] += 1
    for way in made:
        print(f"{way:9}", *(f"{table[way, found]:4}" for found in CLASSES))
    assert table["spoken", "speech"] == 6
    assert table["sung", "singing"] + table["choir", "singing"] >= 10
