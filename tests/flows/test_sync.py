"""`reelmill sync train`, directly and as a flow, on drawn faces with made voices."""

from __future__ import annotations

import hashlib

import pytest
from tests.curation.lips.test_sync_training import RATE, babble
from tests.flows.test_flows import reelmill

from reelmill.datasets.corpus.talker import Talker, mouth_of
from reelmill.datasets.media.encode import write_video

pytestmark = [pytest.mark.media, pytest.mark.slow]


def test_the_flow_gives_the_network_of_the_direct_command(tmp_path, weights):
    for seed in range(10):
        said = babble(seed, 2.5)
        frames = Talker(seed, 128).frames(mouth_of(said, RATE))
        path = tmp_path / "clips" / f"{seed}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, frames, fps=25, audio=said[None], audio_rate=RATE)
    common = [tmp_path / "clips", "--steps", 3, "--batch", 4, "--channels", 16, "--threads", 1]
    found = []
    for way in ((), ("flow",)):
        out = tmp_path / "-".join(("net", *way))
        answer = reelmill(*way, "sync", "train", *common, "--output", out, "--weights", weights)
        assert answer["clips"]["trained_on"] == 6
        assert answer["clips"]["skipped"] == {}
        assert 0 <= answer["accuracy"] <= 1
        found.append(hashlib.sha256((out / "mouth_sync.safetensors").read_bytes()).hexdigest())
    assert found[0] == found[1]
