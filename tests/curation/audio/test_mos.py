"""MOS: the scores of speechmos itself, and none where there is no speech to score."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from tests.curation.audio.sounds import Heard, Shelf, facts_of_file, read_mono
from tests.media import noise, tone

from reelmill.curation.audio.mos import MOS
from reelmill.curation.audio.voice import Voice
from reelmill.curation.models.dnsmos import DNSMOS
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured

pytestmark = pytest.mark.long

SPEECH = {"speech_ratio": 0.9, "silence_ratio": 0.05}
NAMES = ("mos_signal", "mos_background", "mos_overall")


@pytest.fixture(scope="module")
def folder():
    found = Weights().path("dnsmos")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def peer():
    """speechmos's own function. It imports librosa, which is not here, for the mel spectrum of a
    fourth score (P.808); an empty spectrum stands in for that one, which is not compared."""
    librosa = ModuleType("librosa")
    librosa.feature = ModuleType("librosa.feature")
    librosa.feature.melspectrogram = lambda **_: np.zeros((120, 900), np.float32)
    librosa.power_to_db = lambda spectrum, ref: spectrum
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "librosa", librosa)
        from speechmos import dnsmos

        def rate(sound: np.ndarray) -> list[float]:
            found = dnsmos.run(sound, 16_000)
            return [found["sig_mos"], found["bak_mos"], found["ovrl_mos"]]

        yield rate
    sys.modules.pop("speechmos.dnsmos", None)


def rated(clips: list[Heard], stage: MOS | None = None, weights=None) -> list:
    with (stage or MOS()).session(weights or Weights()) as measure:
        return measure(clips)


def test_scores_are_those_of_speechmos_at_any_length(folder, peer):
    """Shorter than a window, just short of two windows, and several; in one batch."""
    sounds = [noise(s, 16_000, 0.05, seed=i)[0] for i, s in enumerate((0.3, 9.5, 11.2))]
    sounds[1] += tone(9.5, 16_000, 300)[0]
    found = DNSMOS(folder)(sounds)
    assert found.shape == (3, 3)
    for scores, sound in zip(found, sounds, strict=True):
        assert scores == pytest.approx(peer(sound), abs=1e-4)


def test_sound_over_full_scale_is_clipped_as_a_player_would(folder):
    over = tone(9.1, 16_000, 300, 1.7)[0]
    clipped = np.clip(over, -1, 1)
    assert np.array_equal(DNSMOS(folder)([over]), DNSMOS(folder)([clipped]))


def test_clips_without_speech_are_not_scored_and_not_decoded():
    sound = noise(9.1, 16_000)[0]
    clips = [
        Heard(sound, {"speech_ratio": 0.0, "silence_ratio": 0.0}),
        Heard(sound, {"speech_ratio": 0.2, "silence_ratio": 0.1}),  # mostly other sounds
        Heard(sound, {"speech_ratio": NotApplicable("no sound"), "silence_ratio": 0.0}),
        Heard(sound, {"speech_ratio": 0.2, "silence_ratio": 0.7}),  # mostly pauses
    ]
    found = rated(clips)
    for facts in found[:3]:
        assert {type(facts[name]) for name in NAMES} == {NotApplicable}
    assert found[2]["mos_overall"].why == "no sound"
    assert all(isinstance(found[3][name], float) for name in NAMES)
    assert [clip.asked for clip in clips] == [0, 0, 0, 1]


def test_absent_weights_are_not_measured():
    found = rated([Heard(noise(1, 16_000)[0], SPEECH)], weights=Shelf({}))[0]
    assert {type(found[name]) for name in NAMES} == {NotMeasured}
    assert found["mos_overall"].why == "weights 'dnsmos' absent"


def test_bound_is_at_poor():
    assert MOS().min_overall.holds(np.array([1.99, 2.0, np.nan])).tolist() == [False, True, True]


def mos_of(path) -> dict:
    return rated([Heard(read_mono(path), facts_of_file(Voice(), path))])[0]


@pytest.mark.slow
@pytest.mark.media
def test_real_speech_and_its_noisy_copies_lie_on_their_sides_of_the_bound(media, peer):
    stage = MOS()
    for name, low, high in (
        ("audio/voicebank_p287_003_clean.wav", 3.0, 4.0),
        ("audio/voicebank_p287_003_noisy.wav", 1.0, 2.0),
        ("audio/voicebank_p287_004_noisy.wav", 1.0, 2.0),
        ("audio/lj001_0002.wav", 2.5, 4.0),
        ("talking/real3d_may_5s.mp4", 3.0, 4.0),
        ("talking/panda_carshow_hosts.mp4", 2.0, 2.5),
    ):
        found = mos_of(media / name)
        assert low <= found["mos_overall"] < high, name
        keeps = stage.min_overall.holds(np.array([found["mos_overall"]])).tolist()
        assert keeps == [low >= 2], name
    sound = read_mono(media / "audio/lj001_0001.wav")
    ours = rated([Heard(sound, SPEECH)])[0]
    assert [ours[name] for name in NAMES] == pytest.approx(peer(sound), abs=1e-4)


@pytest.mark.media
def test_real_sound_without_speech_is_not_applicable(media):
    for name in ("audio/vad_zero.wav", "audio/music_bach_piano.ogg", "audio/vad_n.wav"):
        assert isinstance(mos_of(media / name)["mos_overall"], NotApplicable), name
