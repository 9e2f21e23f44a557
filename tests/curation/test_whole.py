"""WholeFile: one clip per asset, whatever its kind."""

from __future__ import annotations

import pytest
from tests.frames import measured
from tests.media import noise_video, sound_file, still, tone

from reelmill.curation.stage import NotApplicable
from reelmill.curation.whole import WholeFile


def test_one_clip_of_each_kind(tmp_path):
    still(tmp_path / "a.png")
    sound_file(tmp_path / "b.flac", tone(1.5))
    noise_video(tmp_path / "c.mp4", seconds=2)
    picture, sound, video = (measured(WholeFile(), p) for p in sorted(tmp_path.iterdir()))
    for file in (picture, sound, video):
        assert file.clips() == [file.whole]
        assert file.tracks
    assert isinstance(picture.facts["seconds"], NotApplicable)
    assert sound.facts["seconds"] == 1.5
    assert video.facts["seconds"] == pytest.approx(2.0)
