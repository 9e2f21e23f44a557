"""Interlace, Blockiness, Detail: faults planted in real and made footage."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.curation.video.planting import footage
from tests.frames import broken, measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.blockiness import Blockiness
from reelmill.curation.video.detail import Detail
from reelmill.curation.video.interlace import Interlace
from reelmill.datasets.media.encode import write_image, write_video

REAL = (
    "general/panda_soccer_50fps.mp4",
    "general/panda_romans.mp4",
    "general/cotracker_cat.mp4",
)


def woven(frames):
    """Even lines of one frame, odd lines of the next, as interlaced cameras give them."""
    fields = frames[:-1:2].copy()
    fields[:, 1::2] = frames[1::2][: len(fields), 1::2]
    return fields


def enlarged(frames, times):
    h, w = frames.shape[1:3]
    small = (w // times, h // times)
    return np.stack(
        [
            cv2.resize(
                cv2.resize(f, small, interpolation=cv2.INTER_AREA),
                (w, h),
                interpolation=cv2.INTER_CUBIC,
            )
            for f in frames
        ]
    )


def squeezed(frames, quality):
    return np.stack(
        [cv2.imdecode(cv2.imencode(".jpg", f, [1, quality])[1], cv2.IMREAD_COLOR) for f in frames]
    )


def fact(stage, path, frames):
    write_video(path, frames, fps=25)
    found = measured(stage, path)
    return next(iter(found.facts.values())), broken(found.stage, found.facts)


@pytest.mark.media
@pytest.mark.parametrize("name", REAL)
def test_faults_planted_in_real_footage(media, tmp_path, name):
    frames = footage(media / name, frames=80)
    path = tmp_path / "a.mp4"
    for stage in (Interlace(), Blockiness(), Detail()):
        assert fact(stage, path, frames)[1] == []
    assert fact(Interlace(), path, woven(frames))[1] == ["interlaced"]
    assert fact(Blockiness(), path, squeezed(frames, 5))[1] == ["blocky"]
    assert fact(Detail(), path, enlarged(frames, 4))[1] == ["enlarged"]


@pytest.mark.media
@pytest.mark.parametrize("name", REAL)
def test_worse_faults_give_worse_values(media, tmp_path, name):
    frames = footage(media / name, frames=30)
    path = tmp_path / "a.mp4"
    blocks = [fact(Blockiness(), path, squeezed(frames, q))[0] for q in (5, 10, 25, 90)]
    assert blocks == sorted(blocks, reverse=True)
    details = [fact(Detail(), path, enlarged(frames, times))[0] for times in (4, 3, 2, 1)]
    assert details == sorted(details)
    assert details[2] < 0.75 * details[3]


@pytest.mark.media
@pytest.mark.parametrize(
    ("stage", "fault"), [(Interlace(), "combing"), (Blockiness(), "blockiness")]
)
def test_the_clean_half_of_the_quality_pair_is_no_worse(media, stage, fault):
    pair = [
        measured(stage, media / f"general/skv_carphone_{which}.mp4").facts[fault]
        for which in ("pristine", "distorted")
    ]
    assert all(value <= 1.0 for value in pair)


def test_weave_of_a_known_drift_grows_with_it(tmp_path):
    values = [
        fact(Interlace(), tmp_path / "a.mp4", woven(moving(60, (288, 512), step=step)))[0]
        for step in (0, 6, 12)
    ]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-3)
    assert values[2] > 0.03


def test_stripes_across_and_down_are_no_comb(tmp_path):
    board = (np.indices((288, 512)).sum(axis=0) % 2 * 160 + 40).astype(np.uint8)
    frames = np.repeat(np.repeat(board[None, ..., None], 3, axis=3), 25, axis=0)
    assert fact(Interlace(), tmp_path / "a.mp4", frames)[0] < 0.03


def test_detail_of_known_noise(tmp_path):
    """White noise has all frequencies; averaged over blocks and interpolated it has fewer."""
    noise = np.random.default_rng(0).integers(60, 196, (256, 512), dtype=np.uint8)
    found = []
    for times in (1, 2, 3):
        frames = enlarged(np.repeat(noise[None, ..., None], 3, axis=3), times)
        write_image(tmp_path / "a.png", frames[0])
        found.append(measured(Detail(), tmp_path / "a.png").facts)
    assert found[0]["detail"] == 1.0
    assert found[0]["effective_height"] == 256
    assert found[2]["detail"] < found[1]["detail"] < 0.7
    assert found[2]["detail"] == pytest.approx(1 / 3, abs=0.15)


def test_bits_per_pixel_is_the_files(tmp_path):
    write_video(tmp_path / "a.mp4", moving(50, (144, 256)), fps=25)
    bits = measured(Detail(), tmp_path / "a.mp4").facts["bits_per_pixel"]
    assert bits == pytest.approx((tmp_path / "a.mp4").stat().st_size * 8 / (50 * 144 * 256))


def test_flat_and_tiny_pictures_have_no_values(tmp_path):
    write_video(tmp_path / "a.mp4", np.full((5, 144, 256, 3), 128, np.uint8), fps=25)
    facts = measured(Detail(), tmp_path / "a.mp4").facts
    assert isinstance(facts["detail"], NotApplicable)
    write_image(tmp_path / "b.png", moving(1, (12, 12))[0])
    assert isinstance(measured(Blockiness(), tmp_path / "b.png").facts["blockiness"], NotApplicable)
    assert isinstance(measured(Detail(), tmp_path / "b.png").facts["detail"], NotApplicable)


def test_ten_bit_and_turned_pictures_are_measured_alike(tmp_path):
    frames = moving(30, (288, 512))
    values = []
    for options in ({}, {"pixel_format": "yuv420p10le"}, {"rotation": 90}):
        write_video(tmp_path / "a.mp4", frames, fps=15, **options)
        values.append(measured(Detail(), tmp_path / "a.mp4").facts["detail"])
    assert values[1] == pytest.approx(values[0], abs=0.1)
    assert values[2] == pytest.approx(values[0], abs=0.02)
