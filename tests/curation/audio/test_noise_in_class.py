"""NoiseInClass: rain is no fault, hiss is; by made-up facts and real recordings."""

from __future__ import annotations

import numpy as np
import pytest
from tests.curation.audio.sounds import Heard, facts_of, read_mono
from tests.frames import broken

from reelmill.curation.audio.noise import Noise
from reelmill.curation.audio.noise_in_class import NoiseInClass
from reelmill.curation.audio.sound_class import SoundClass
from reelmill.curation.models.weights import Weights
from reelmill.curation.recipes import audio, video
from reelmill.curation.stage import Facts, NotApplicable, NotMeasured

ABSENT = NotMeasured("weights 'yamnet' absent")


def judged(snr, kind, noise) -> Facts:
    return NoiseInClass().judge({"snr": snr, "sound_class": kind, "noise_score": noise})


@pytest.mark.parametrize(
    ("kind", "noise", "applies"),
    [
        ("effects", 0.0, False),
        ("effects", 0.0999, False),
        ("effects", 0.1, True),
        ("speech", 0.0, True),
        ("singing", 0.0, True),
        ("music", 0.0, True),
        (ABSENT, ABSENT, True),
    ],
)
def test_what_is_judged(kind, noise, applies):
    found = judged(3.0, kind, noise)["judged_snr"]
    assert isinstance(found, NotApplicable) is not applies
    assert broken(NoiseInClass(), judged(4.99, kind, noise)) == ["noisy"] * applies
    assert not broken(NoiseInClass(), judged(5.0, kind, noise))


def test_what_has_no_snr_is_not_judged():
    steady = NotApplicable("steady sound")
    assert judged(steady, "speech", 0.0)["judged_snr"] is steady


def test_recipes_judge_noise_once():
    for recipe in (video(), audio()):
        assert recipe.stage("Noise").bounds()["min_snr"].value is None
        assert recipe.stage("NoiseInClass").bounds()["min_snr"].value == 5.0


@pytest.mark.media
def test_rain_is_kept_and_sounds_under_hiss_are_not(media, weights):
    rain = read_mono(media / "audio/sfx_rain_60s.mp3")
    rng = np.random.default_rng(0)
    t = np.arange(8 * 16_000) / 16_000
    tones = sum(0.3 * np.sin(2 * np.pi * h * t) * (np.sin(4.4 * t + h) > 0.6) for h in (300, 800))
    speech = read_mono(media / "audio/voicebank_p287_004_noisy.wav")
    cases = {f"rain {s}": (rain[s * 16_000 : (s + 15) * 16_000], True) for s in (0, 15, 30, 45)}
    cases |= {
        "thunder": (read_mono(media / "audio/esc_thunder_3-103051-C-19.wav"), True),
        "hiss": ((tones + rng.normal(0, tones.std(), len(t))).astype(np.float32), False),
        "speech": (speech, False),
    }
    before = {}
    with SoundClass().session(Weights(weights)) as measure:
        for name, (sound, keeps) in cases.items():
            snr = facts_of(Noise(), sound[None], 16_000)["snr"]
            (classed,) = measure([Heard(sound, {"mean_volume": -20.0})])
            found = NoiseInClass().judge({**classed, "snr": snr})
            assert bool(broken(NoiseInClass(), found)) is not keeps, (name, snr, classed)
            before[name] = bool(broken(Noise(), {"snr": snr}))
    assert before["rain 45"]  # Noise alone would reject it
