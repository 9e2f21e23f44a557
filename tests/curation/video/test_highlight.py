"""Highlight: what happens more scores more; on planted clips through a whole run."""

from __future__ import annotations

import json
import tarfile
from itertools import pairwise

import numpy as np
import pytest
from tests.frames import moving
from tests.media import noise
from tests.small_run import curate, recipe_file

from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.curation.video.highlight import Highlight
from reelmill.datasets.media.encode import write_video

RECIPE = """
kind: video
stages: [Probe, Shots, Motion, Loudness: {min_volume: null}, Highlight, Cut: {preset: ultrafast}]
"""


def score(motion, volume, peak):
    facts = {"motion_peak": motion, "mean_volume": volume, "peak": peak}
    return Highlight().judge(facts)["highlight"]


def test_more_movement_level_and_suddenness_never_score_less():
    steps = np.linspace(0, 1, 9)
    for one in (
        [score(m, -30.0, -10.0) for m in steps],
        [score(0.1, -50 + 30 * s, -20 + 20 * s) for s in steps],
        [score(0.1, -30.0, -30 + 30 * s) for s in steps],
    ):
        assert all(0 <= a <= b <= 1 for a, b in pairwise(one))
        assert one[-1] > one[0]


def test_what_is_not_known_is_no_nought():
    silent = NotApplicable("no sound")
    assert score(NotMeasured("why"), -20.0, 0.0) == NotMeasured("why")
    unheard = Highlight().judge({"motion_peak": 0.15})["highlight"]
    assert unheard == pytest.approx(1 - np.exp(-1))
    assert score(0.15, silent, silent) == pytest.approx(unheard / 3)


def test_a_clap_and_a_jump_stand_out_of_a_film(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    rate = 16_000
    for name, step, clap in (("calm", 1, 0.0), ("moves", 8, 0.0), ("claps", 8, 0.9)):
        sound = noise(3.0, rate, amplitude=0.003)
        sound[:, rate : rate + 400] += clap
        pictures = moving(75, seed=4, step=step)
        write_video(folder / f"{name}.mp4", pictures, fps=25, audio=sound, audio_rate=rate)
    result = curate(folder, tmp_path / "w", recipe=recipe_file(tmp_path, RECIPE), workers=0)
    found = {}
    for shard in result.shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    record = json.loads(tar.extractfile(member).read())
                    found[record["file"]] = record["facts"]["highlight"]
    assert found["calm.mp4"] < found["moves.mp4"] < found["claps.mp4"]
