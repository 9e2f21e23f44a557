"""No score of sound stands in for one that did not apply or was not measured: all stages."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.audio.sounds import Shelf, info_of, span, tracks_of
from tests.curation.lips.clips import Unopened
from tests.media import noise_video, tone
from tests.small_run import recipe_file

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.recipes import KNOWN
from reelmill.curation.stage import AudioStage, ClipStage, NotApplicable, NotMeasured, NoValue
from reelmill.curation.units import facts_row
from reelmill.datasets.media.decode import MediaInfo
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.sample import Clip, Kind

FOLDERS = ("reelmill.curation.audio.", "reelmill.curation.lips.")
STAGES = {n: s for n, s in KNOWN.items() if type(s).__module__.startswith(FOLDERS)}
LISTENERS = [s for s in STAGES.values() if isinstance(s, AudioStage)]
OF_CLIPS = [s for s in STAGES.values() if isinstance(s, ClipStage)]
GIVEN = {
    "speech_ratio": 0.5, "silence_ratio": 0.1, "mean_volume": -20.0, "sound_class": "speech",
    "transcript": "a cab", "word_times": "[]", "people": "single", "route": "lips", "talker": 0.0,
    "seconds": 1.0,
}  # fmt: skip
RATE = 8_000


def sound(kind: str, length: int, seed: int) -> np.ndarray:
    """float32 [2, length]."""
    hiss = np.random.default_rng(seed).normal(0, 0.1, (2, length))
    made = {
        "silence": np.zeros((2, length)),
        "constant": np.full((2, length), 0.3),
        "tone": np.resize(tone(1.0, RATE), (2, length)),
        "noise": hiss,
        "one side": hiss * [[1], [0]],
        "least": np.full((2, length), 1e-30),
    }
    return made[kind].astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["silence", "constant", "tone", "noise", "one side", "least"]),
    st.integers(1, 3 * RATE), st.integers(-2_000, 3 * RATE), st.integers(1, 3 * RATE),
    st.integers(0, 9),
)  # fmt: skip
def test_every_fact_of_every_sound_is_a_number_or_says_why_not(kind, length, first, last, seed):
    """Of any stretch, inside the sound or beyond it; `facts_row` takes no other."""
    wave = sound(kind, length, seed)
    clip = span(first, first + last, RATE)
    for stage in LISTENERS:
        facts = stage.facts(tracks_of(stage, wave, RATE), clip, info_of(wave, RATE))
        row = facts_row("unit", stage, facts)
        for fact in stage.adds:
            assert (fact.name in row) != (f"{fact.name}?" in row)
            if isinstance(facts[fact.name], NoValue):
                assert facts[fact.name].why


@pytest.mark.parametrize("stage", LISTENERS, ids=lambda stage: stage.name)
def test_a_file_without_sound_has_no_fact_of_sound(stage):
    mute = MediaInfo(Kind.VIDEO, "mov", 1.0, 0, None, None)
    tracks = stage.open(mute).finish(None)
    clip = Clip("5" * 64, Kind.VIDEO, 0, 25, Fraction(1, 25), 25, 0, 0)
    facts = stage.facts(tracks, clip, mute)
    for name in {fact.name for fact in stage.adds} - {"seconds"}:  # the clip's, not its sound's
        assert isinstance(facts[name], NotApplicable), name


@pytest.mark.parametrize(
    "stage", [s for s in OF_CLIPS if s.resources.weights], ids=lambda stage: stage.name
)
def test_absent_weights_are_named_and_nothing_is_opened(stage):
    facts = {name: GIVEN[name] for name in (*stage.needs, *stage.reads) if name in GIVEN}
    with stage.session(Shelf({})) as measure:
        (found,) = measure([Unopened(facts, clip=span(0, RATE, RATE))])
    assert {fact.name for fact in stage.adds} == set(found)
    for value in found.values():
        assert isinstance(value, NotMeasured)
        assert any(name in value.why for name in stage.resources.weights)


@pytest.mark.parametrize("kind", [NotApplicable, NotMeasured])
@pytest.mark.parametrize("stage", [s for s in OF_CLIPS if s.needs], ids=lambda stage: stage.name)
def test_what_has_no_value_gives_none(stage, kind):
    """Whatever a stage needs: where none of it is there, nothing is made up, and why is kept."""
    facts = dict.fromkeys((*stage.needs, *stage.reads), kind("planted"))
    with stage.session(Shelf({})) as measure:
        (found,) = measure([Unopened(facts, clip=span(0, RATE, RATE))])
    assert {fact.name for fact in stage.adds} == set(found)
    assert set(found.values()) == {kind("planted")}


def test_ledger_and_report_count_what_has_no_value(tmp_path, monkeypatch):
    """A whole run without weights over films that are heard, silent, and mute."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("REELMILL_WEIGHTS", raising=False)
    media = tmp_path / "m"
    media.mkdir()
    noise_video(media / "heard.mp4", seconds=2.0)
    frames = np.random.default_rng(1).integers(0, 255, (50, 64, 64, 3)).astype(np.uint8)
    quiet = np.zeros((1, 32_000), np.float32)
    write_video(media / "silent.mp4", frames, fps=25, audio=quiet, audio_rate=16_000)
    write_video(media / "mute.mp4", frames[::-1], fps=25)
    order = [n for n in STAGES if n not in ("Chunks", "SoundClassByModel", "Loudness", "Voice")]
    stages = ", ".join(["Loudness: {min_volume: null}", "Voice", *order])
    text = f"kind: video\nstages: [Probe, Integrity, Shots, {stages}, Cut]\n".replace(
        "Loudness: {min_volume: null}", "{Loudness: {min_volume: null}}"
    )
    options = CurateOptions(
        (str(media),), tmp_path / "w", recipe_file(tmp_path, text), workers=0, allow_missing=True
    )
    curation = Curation(options)
    for step in curation.steps():
        step.run()
    reports = {}
    for path in Path(curation.result().report).parent.glob("*/stage.json"):
        told = json.loads(path.read_text())
        reports[told["name"]] = told
    for name in ("Loudness", "Voice", *order):
        stage = STAGES[name]
        rows = [
            row
            for path in (tmp_path / "w/ledger/facts" / name).rglob("*.parquet")
            for row in pq.read_table(path).to_pylist()
        ]
        assert len(rows) == 3
        shown = {one["fact"]: one for one in reports[name]["histograms"]}
        for fact in stage.adds:
            values = [row[fact.name] for row in rows if row[fact.name] is not None]
            why = [row[f"{fact.name}?"] for row in rows if row[f"{fact.name}?"] is not None]
            assert len(values) + len(why) == 3, (name, fact.name)
            assert all(w.startswith(("not applicable: ", "not measured: ")) for w in why)
            if fact.name in shown:
                counted = shown[fact.name]
                assert counted["not_applicable"] == sum(w.startswith("not a") for w in why)
                assert counted["not_measured"] == sum(w.startswith("not m") for w in why)
                assert sum(counted["kept"]) + sum(counted["rejected"]) <= len(values)
