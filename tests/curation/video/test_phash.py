"""PHash: bit for bit imagehash's, of the picture inside its bars."""

from __future__ import annotations

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.frames import measured, moving

from reelmill.curation.stage import NotApplicable
from reelmill.curation.video.phash import PHash, hashes_of, without_bars
from reelmill.curation.video.sampling import Sampling, shrunk
from reelmill.datasets.media.decode import decode_frames, probe
from reelmill.datasets.media.encode import write_image, write_video


def test_bits_are_those_of_imagehash(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, moving(30), fps=15)
    facts = measured(PHash(fps=2), path).facts
    frames = [f for f in decode_frames(path, probe(path)) if f.index in (0, 8, 15, 23)]
    pictures = [Image.fromarray(shrunk(f.gray, 128)) for f in frames]
    assert facts["phash"] == "".join(str(imagehash.phash(p)) for p in pictures)
    assert facts["phash_mirrored"] == "".join(
        str(imagehash.phash(ImageOps.mirror(p))) for p in pictures
    )
    assert [f"{h:016x}" for h in hashes_of(facts["phash"])] == [
        str(imagehash.phash(p)) for p in pictures
    ]


def test_the_inner_hash_is_near_that_of_a_crop(tmp_path):
    frames = np.stack([cv2.resize(f, (320, 180)) for f in moving(30)])
    write_video(tmp_path / "a.mp4", frames, fps=15, crf=10)
    write_video(tmp_path / "b.mp4", np.ascontiguousarray(frames[:, 8:172, 16:304]), fps=15, crf=10)
    whole, crop = (measured(PHash(fps=2), tmp_path / name).facts for name in ("a.mp4", "b.mp4"))
    bits = np.bitwise_count(hashes_of(whole["phash_inner"]) ^ hashes_of(crop["phash"]))
    assert len(bits) == 4
    assert bits.max() <= 4


def test_times_of_the_hashes_are_those_in_the_clip(tmp_path):
    write_video(tmp_path / "a.mp4", moving(60), fps=15)
    phash = measured(PHash(fps=2), tmp_path / "a.mp4")
    times = phash.facts["phash_ms"]
    assert [int(times[i : i + 6], 16) for i in range(0, len(times), 6)] == [
        0, 533, 1000, 1533, 2000, 2533, 3000, 3533,
    ]  # fmt: skip


def test_an_image_has_one_hash(tmp_path):
    write_image(tmp_path / "a.png", moving(1)[0])
    phash = measured(PHash(), tmp_path / "a.png")
    assert len(hashes_of(phash.facts["phash"])) == 1
    assert phash.facts["source_pixels"] == 144 * 256
    assert phash.facts["source_bytes"] == (tmp_path / "a.png").stat().st_size


def test_a_flat_picture_has_none(tmp_path):
    write_image(tmp_path / "a.png", np.full((64, 64, 3), 77, np.uint8))
    assert isinstance(measured(PHash(), tmp_path / "a.png").facts["phash"], NotApplicable)


@pytest.mark.parametrize("sides", [(10, 12, 0, 0), (0, 0, 30, 31), (8, 8, 20, 20)])
def test_bars_are_cut_off(sides):
    top, bottom, left, right = sides
    picture = moving(1)[0, ..., 1]
    framed = np.pad(picture, ((top, bottom), (left, right)), constant_values=3)
    np.testing.assert_array_equal(without_bars(framed), picture)


def test_a_dark_picture_is_left_whole():
    night = np.zeros((90, 160), np.uint8)
    night[40:50, 70:90] = 200
    assert without_bars(night).shape == night.shape
    assert without_bars(np.zeros_like(night)).shape == night.shape


@pytest.mark.parametrize("rate", [23.976, 25, 29.97, 60, 1.5])
def test_sampling_takes_the_first_frame_of_each_period(rate):
    times = np.arange(0, 20, 1 / rate)
    sampling = Sampling(4)
    taken = [t for t in times if sampling.takes(t)]
    periods = np.floor(times * 4 + 1e-6)
    assert taken == [times[periods == p][0] for p in np.unique(periods)]


def test_sampling_needs_a_rate():
    with pytest.raises(ValueError, match="0 fps"):
        Sampling(0)
