"""Every metric must answer to the damage it claims: the original first, then level by level."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.footage import bouncing, falls, heard, hopping, ladder, panning, prompt, seen

from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.decode import clip_frames, clip_samples, probe
from reelmill.datasets.sample import Clip, Kind
from reelmill.evaluation.clip import ClipMedia
from reelmill.evaluation.damage import LEVELS, Damage, Footage, damaged
from reelmill.evaluation.ladder import Rungs, climb, damaged_clips, read_footage
from reelmill.evaluation.metric import Metric, NotApplicable
from reelmill.evaluation.metrics.sync import AVAlign, OnsetClarity, OnsetLag
from reelmill.evaluation.suite import weight_free

CLAIMS = [(m, d) for m in weight_free() for d in Damage if d in m.claims]
OF_SOUND = {
    Damage.CLIPPING,
    Damage.BAND_LIMIT,
    Damage.SOUND_NOISE,
    Damage.DROPOUTS,
    Damage.NARROWED,
}
# Real clips that move evenly at the rate they were shot at, and have sound in stereo or mono.
REAL = ("talking/real3d_may_5s.mp4", "general/panda_romans.mp4", "general/panda_whales.mp4")


def footage(damage: Damage) -> Footage:
    if damage is Damage.SHIFTED_SOUND:
        return hopping([0.5, 1.3, 1.9, 2.8, 3.3])
    if damage in OF_SOUND:
        return heard(bouncing())
    return panning(seconds=3.0)


@pytest.fixture(scope="module")
def ladders(tmp_path_factory: pytest.TempPathFactory):
    made: dict[Damage, list[ClipMedia]] = {}

    def get(damage: Damage) -> list[ClipMedia]:
        if damage not in made:
            folder = tmp_path_factory.mktemp(damage.name)
            made[damage] = ladder(folder, footage(damage), damage, prompt())
        return made[damage]

    return get


def test_every_damage_is_claimed_by_a_metric():
    assert {damage for _, damage in CLAIMS} == set(Damage)


@pytest.mark.parametrize(("metric", "damage"), CLAIMS, ids=lambda x: getattr(x, "name", None))
def test_a_metric_falls_with_the_level_of_the_damage_it_claims(
    metric: Metric, damage: Damage, ladders
):
    found = falls(metric, ladders(damage))
    assert not isinstance(found, str), found
    correlation, bad = found
    assert correlation >= 0.9, bad
    assert min(bad[1:]) > bad[0], bad


@pytest.mark.parametrize("damage", [d for d in Damage if d not in OF_SOUND])
def test_level_nought_changes_nothing_and_levels_stay_footage(damage: Damage):
    whole = bouncing(seconds=1.0)
    assert damaged(whole, damage, 0) is whole
    last = damaged(whole, damage, LEVELS)
    assert last.frames.dtype == np.uint8
    assert last.samples.shape == whole.samples.shape
    assert last.frames.shape[1:] == whole.frames.shape[1:]
    again = damaged(whole, damage, LEVELS)
    assert np.array_equal(last.frames, again.frames)
    assert np.array_equal(last.samples, again.samples)


def test_there_is_no_sixth_level():
    with pytest.raises(ValueError, match="levels 0 to 5"):
        damaged(bouncing(seconds=0.5), Damage.BLUR, 6)


def real(path: Path, seconds: float = 3.0, height: int = 144) -> Footage:
    """The first seconds of a real clip, at its own rate, small."""
    info = probe(path)
    assert info.video is not None
    assert info.audio is not None
    base = info.video.time_base
    start = round(Fraction(info.video.start_s) / base)
    clip = Clip(
        asset="0" * 64,
        kind=Kind.VIDEO,
        start_pts=start,
        end_pts=start + round(seconds / base),
        time_base=base,
        origin_pts=start,
        start_frame=0,
        end_frame=1,
    )
    fps = float(info.video.average_rate or 25)
    samples, _ = clip_samples(path, info, *sound_span(clip, info))
    return Footage(clip_frames(path, info, clip, fps, height), fps, samples[:2], info.audio.rate)


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_ladder_on_real_clips(name: str, media: Path, tmp_path: Path):
    """All but shifted sound: these clips have no distinct events."""
    whole = real(media / name)
    applied = 0
    for damage in Damage:
        if damage is Damage.SHIFTED_SOUND:
            continue
        part = heard(whole) if damage in OF_SOUND else seen(whole)
        clips = ladder(tmp_path / damage.name, part, damage, prompt())
        for metric in weight_free():
            if damage not in metric.claims:
                continue
            found = falls(metric, clips)
            if isinstance(found, str):
                continue
            correlation, bad = found
            assert correlation >= 0.9, (metric.name, damage, bad)
            assert min(bad[1:]) > bad[0], (metric.name, damage, bad)
            applied += 1
    assert applied >= 12


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["general/vggsound_tennis_360p.mp4", "multishot/dj_video1_cartoon_logo.mp4"]
)
def test_shifted_sound_on_whole_real_clips_with_clear_events(
    name: str, media: Path, tmp_path: Path
):
    shifted = Damage.SHIFTED_SOUND
    clips = damaged_clips(tmp_path, read_footage(media / name, 30, 256), shifted)
    for metric in weight_free():
        if shifted in metric.claims:
            found = climb(metric, clips)
            assert isinstance(found, Rungs), found
            assert found.holds, (metric.name, found.badness)


def test_sound_of_another_clip_has_no_clear_lag(tmp_path: Path):
    seen_, heard_ = hopping([0.5, 1.3, 1.9, 2.8, 3.3]), hopping([0.3, 0.75, 2.3, 2.45, 3.8])
    mixed = Footage(seen_.frames, seen_.fps, heard_.samples, heard_.rate)
    own = damaged_clips(tmp_path / "own", seen_, Damage.SHIFTED_SOUND)[0]
    other = damaged_clips(tmp_path / "other", mixed, Damage.SHIFTED_SOUND)[0]
    for metric in (OnsetLag(), AVAlign()):
        assert isinstance(metric.measure(own), float)
        assert isinstance(metric.measure(other), NotApplicable)
    assert OnsetClarity().measure(other) < OnsetClarity().measure(own)
