"""HDR becomes SDR by the standards' own numbers, wherever frames are read or stored."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.cut import CutSettings, cut
from reelmill.datasets.media.decode import decode_frames, probe
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.media.tone_map import HLG, PEAK, PQ, WHITE, compressed, nits, to_sdr
from reelmill.datasets.sample import Clip, Kind

BT2020 = 9
PATCHES = np.array(  # BT.2020 code values: greys, colours, a light
    [[0.1, 0.1, 0.1], [0.3, 0.3, 0.3], [0.5, 0.5, 0.5], [0.45, 0.3, 0.2], [0.2, 0.4, 0.3],
     [0.3, 0.3, 0.5], [0.58, 0.58, 0.58], [0.75, 0.75, 0.75]]
)  # fmt: skip


def hdr_frame(transfer: int) -> av.VideoFrame:
    """10-bit frame of 256 x 128: a patch of 64 pixels for each row of PATCHES."""
    rgb = PATCHES.reshape(2, 4, 3).repeat(64, 0).repeat(64, 1)
    luma = rgb @ [0.2627, 0.6780, 0.0593]
    blue, red = (rgb[..., 2] - luma) / 1.8814, (rgb[..., 0] - luma) / 1.4746
    frame = av.VideoFrame(256, 128, "yuv420p10le")
    values = (64 + 876 * luma, 512 + 896 * blue[::2, ::2], 512 + 896 * red[::2, ::2])
    for plane, value in zip(frame.planes, values, strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = value.round()
        plane.update(rows.tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace = transfer, BT2020, BT2020
    frame.color_range = 1
    return frame


def patches(rgb: np.ndarray) -> np.ndarray:
    """Mean of the middle of each patch, [8, 3]."""
    cells = rgb.reshape(2, 64, 4, 64, 3)[:, 16:48, :, 16:48]
    return cells.mean(axis=(1, 3)).reshape(8, 3)


def test_the_standards_own_points():
    light = np.array([[0.0] * 3, [0.50807842] * 3, [0.75182709] * 3, [1.0] * 3])
    assert nits(light, "pq")[:, 0] == pytest.approx([0, 100, 1000, 10_000], rel=1e-5)  # ST 2084
    assert nits(np.array([0.75] * 3), "hlg") == pytest.approx([WHITE] * 3, rel=1e-3)  # BT.2408
    assert nits(np.array([1.0] * 3), "hlg") == pytest.approx([PEAK] * 3, rel=1e-3)  # BT.2100


@given(st.lists(st.floats(0, 2000), min_size=2, max_size=50))
def test_light_keeps_its_order_and_dark_its_value(light):
    given_, found = np.sort(light), compressed(np.sort(light))
    assert (np.diff(found) >= -1e-6).all()
    assert (found <= WHITE + 1e-6).all()
    dark = given_ < 60
    assert found[dark] == pytest.approx(given_[dark], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "pq"), (HLG, "hlg"), (1, "")])
def test_every_reader_sees_sdr_and_the_cut_is_marked_so(tmp_path: Path, transfer: int, name: str):
    source = tmp_path / "in.mp4"
    frame = hdr_frame(transfer)
    write_video(source, [frame] * 4, fps=25, codec="libx265", pixel_format="yuv420p10le", crf=4.0)
    info = probe(source)
    assert info.video is not None
    assert info.video.transfer == name
    due = 255 * (to_sdr(PATCHES, name) if name else PATCHES)
    seen = [f.bgr[..., ::-1] for f in decode_frames(source, info, width=256)]
    assert len(seen) == 4
    clip = Clip("a" * 64, Kind.VIDEO, 0, round(4 / 25 / info.video.time_base),
                info.video.time_base, 0, 0, 4)  # fmt: skip
    made = cut(source, info, clip, tmp_path / "out.mp4", CutSettings(crf=4.0))
    with av.open(str(made.path)) as container:
        shown = next(container.decode(video=0))
    stored = shown.reformat(format="rgb24", src_colorspace="ITU709" if name else None)
    if name:
        assert np.abs(patches(seen[2]) - due).max() < 6
        assert np.abs(patches(stored.to_ndarray()) - due).max() < 6
        assert (shown.color_trc, shown.color_primaries, shown.colorspace) == (1, 1, 1)
    else:
        grey = [0, 1, 2, 6, 7]
        assert np.abs(patches(seen[2]) - due)[grey].max() < 4  # ten bits are not HDR
        assert shown.color_primaries == BT2020


@pytest.mark.media
def test_a_colour_chart_in_hlg_has_the_colours_that_it_is_sold_with(media: Path):
    """X-Rite's ColorChecker: hues by its maker's sRGB values; greys are grey."""
    path = media / "general" / "fmt_hlg10_colorchart.mp4"
    info = probe(path)
    bgr = next(iter(decode_frames(path, info, width=960))).bgr
    rows, columns = np.array([48, 130, 210, 290]) * 1.5, np.array([579, 660, 741, 821, 901, 982])
    columns = (columns - 476) * 1.5
    found = np.array(
        [[bgr[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].mean((0, 1)) for x in columns]
         for y in rows]
    )  # fmt: skip
    assert (np.ptp(found[3], axis=1) < 14).all()
    published = np.array(
        [[(115, 82, 68), (194, 150, 130), (98, 122, 157), (87, 108, 67), (133, 128, 177),
          (103, 189, 170)],
         [(214, 126, 44), (80, 91, 166), (193, 90, 99), (94, 60, 108), (157, 188, 64),
          (224, 163, 46)],
         [(56, 61, 150), (70, 148, 73), (175, 54, 60), (231, 199, 31), (187, 86, 149),
          (8, 133, 161)]]
    )  # fmt: skip

    def lab(rgb: np.ndarray) -> np.ndarray:
        return cv2.cvtColor((rgb / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[..., 1:]

    ours, theirs = lab(found[:3, :, ::-1]), lab(published.astype(float))
    turn = np.arctan2(ours[..., 1], ours[..., 0]) - np.arctan2(theirs[..., 1], theirs[..., 0])
    turn = np.abs(np.rad2deg((turn + np.pi) % (2 * np.pi) - np.pi))
    strength = np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert np.median(turn) < 12
    assert 0.9 < np.median(strength) < 1.3
