"""CodedMotion: planted speeds, other codecs, and the order of real clips by optical flow."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
from tests.frames import measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.coded_motion import CodedMotion
from reelmill.curation.video.motion import Motion
from reelmill.datasets.media.decode import decode, decode_frames, probe
from reelmill.datasets.media.encode import write_video


def speed_of(path):
    return measured(CodedMotion(), path).facts["coded_motion"]


@pytest.mark.parametrize("step", [0, 1, 3, 6])
def test_a_pan_has_its_speed(tmp_path, step):
    """A picture of 256 pixels that moves `step` of them in 1/25 s."""
    path = tmp_path / "pan.mp4"
    write_video(path, moving(50, seed=2, step=step), fps=25)
    assert speed_of(path) == pytest.approx(step * 25 / 256, rel=0.15, abs=0.01)


def test_clips_have_their_own(tmp_path):
    path = tmp_path / "two.mp4"
    write_video(
        path, np.concatenate([moving(50, seed=2, step=1), moving(50, seed=3, step=6)]), fps=25
    )
    film = measured(CodedMotion(), path)
    slow, fast = (
        film.stage.facts(film.tracks, clip, film.info)["coded_motion"]
        for clip in (
            replace(film.whole, end_frame=50),
            replace(film.whole, start_frame=50),
        )
    )
    assert slow == pytest.approx(25 / 256, rel=0.15)
    assert fast == pytest.approx(150 / 256, rel=0.15)


def test_codecs_without_vectors_have_no_value(tmp_path):
    path = tmp_path / "film.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 144, "yuvj420p"
        for picture in moving(8, seed=1):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    assert isinstance(speed_of(path), NotApplicable)


def test_vectors_are_given_only_where_asked_for(tmp_path):
    path = tmp_path / "pan.mp4"
    write_video(path, moving(10, seed=2, step=3), fps=25)
    info = probe(path)
    assert all(len(frame.vectors()[1]) == 0 for frame in decode_frames(path, info))
    seen = []
    decode(path, info, on_frame=lambda frame: seen.append(frame.vectors()), vectors=True)
    assert seen[0][0] == "I"
    assert sum(len(vectors) for _, vectors in seen) > 0


@pytest.mark.media
@pytest.mark.slow
def test_real_clips_rank_as_by_optical_flow(media):
    flow, coded = [], []
    for path in sorted(media.glob("*/*.mp4")):
        if path.name.startswith("fmt_") or path.parent.name == "broken":
            continue
        if path.stat().st_size > 700_000 or len(flow) == 12:
            continue
        told = speed_of(path)
        if isinstance(told, float):
            flow.append(measured(Motion(), path).facts["motion"])
            coded.append(told)
    ranks = [np.argsort(np.argsort(values)) for values in (flow, coded)]
    assert len(flow) >= 10
    assert np.corrcoef(*ranks)[0, 1] >= 0.8
