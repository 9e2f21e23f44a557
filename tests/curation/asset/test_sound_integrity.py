"""Audio files that hold less than they state fail; the others do not."""

from pathlib import Path

import numpy as np
import pytest
from tests.media import noise, sound_file, truncated_copy

from reelmill.curation.asset.sound_integrity import SoundIntegrity
from reelmill.curation.media_table import summary_tracks, whole_clip
from reelmill.datasets.media.decode import decode, probe
from reelmill.errors import MediaError


def facts(path: Path):
    stage, info = SoundIntegrity(), probe(path)
    analyser = stage.open(info)
    summary = decode(path, info, on_audio=analyser.block)
    whole = whole_clip("0" * 64, info, summary_tracks(summary))
    return stage.facts(analyser.finish(summary), whole, info)


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
def test_a_whole_file_is_whole(tmp_path, name):
    codec = {"a.flac": "flac", "a.wav": "pcm_s16le"}[name]
    found = facts(sound_file(tmp_path / name, noise(3.0), codec=codec))
    assert found["sound_seconds"] == pytest.approx(3.0, abs=1e-3)
    assert found["sound_missing"] == 0
    assert found["sound_errors"] == 0


@pytest.mark.parametrize("share", np.linspace(0.2, 0.9, 8))
def test_a_flac_cut_off_anywhere_fails(tmp_path, share):
    whole = sound_file(tmp_path / "a.flac", noise(3.0), codec="flac")
    with pytest.raises(MediaError, match=r"ends early|no sound|after"):
        facts(truncated_copy(whole, tmp_path / "cut.flac", float(share)))


@pytest.mark.media
def test_every_good_sound_of_the_real_clips_passes(media):
    for path in sorted((media / "audio").iterdir()):
        if path.stat().st_size < 1_000_000:
            facts(path)


@pytest.mark.media
@pytest.mark.parametrize("name", ["mp3_trailing_garbage.mp3", "m4a_named_aac.aac"])
def test_odd_but_playable_files_pass(media, name):
    assert facts(media / "broken" / name)["sound_seconds"] > 1
