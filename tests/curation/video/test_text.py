"""Text: captions written into real and made footage, read by the networks of rapidocr's wheel."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from tests.curation.video.planting import footage
from tests.frames import broken, moving

from reelmill.curation.media_table import summary_tracks, whole_clip
from reelmill.curation.models.text import Line
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.curation.video.text import Text, is_text, subtitle_share
from reelmill.datasets.media.decode import MediaInfo, clip_frames, decode, probe
from reelmill.datasets.media.encode import write_image, write_video
from reelmill.datasets.sample import Clip

pytestmark = pytest.mark.slow


@dataclass
class Seen:
    """A clip as the engine shows it."""

    path: object
    info: MediaInfo
    clip: Clip
    facts: dict = field(default_factory=dict)

    def frames(self, fps, height):
        return clip_frames(self.path, self.info, self.clip, fps, height)

    def audio(self, rate):
        raise AssertionError("text is not heard")


@pytest.fixture(scope="module")
def read():
    with Text().session(Weights()) as measure:

        def facts(path):
            info = probe(path)
            summary = decode(path, info, lambda frame: None)
            return measure([Seen(path, info, whole_clip("a" * 64, info, summary_tracks(summary)))])[
                0
            ]

        yield facts


def written(frames, text, x, y, size):
    out = frames.copy()
    for frame in out:
        cv2.putText(frame, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 8)
        cv2.putText(frame, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 2)
    return out


def squeeze(text):
    return text.replace(" ", "").lower()


def test_a_subtitle_is_read_and_named(tmp_path, read):
    frames = written(moving(50, (360, 640)), "we had better leave now", 130, 335, 1.0)
    write_video(tmp_path / "a.mp4", frames, fps=25)
    facts = read(tmp_path / "a.mp4")
    assert squeeze(facts["text"]) == "wehadbetterleavenow"
    assert facts["subtitle_share"] == facts["text_lines"] >= 2 / 3
    left, top, right, bottom = (float(side) for side in facts["text_box"].split())
    (width, height), base = cv2.getTextSize("we had better leave now", 0, 1.0, 2)
    assert left == pytest.approx(130 / 640, abs=0.03)
    assert right == pytest.approx((130 + width) / 640, abs=0.03)
    assert (top, bottom) == pytest.approx(((335 - height) / 360, (335 + base) / 360), abs=0.04)
    assert facts["text_share"] == pytest.approx(width * (height + base) / (640 * 360), rel=0.4)
    assert "subtitles" in broken(Text(), facts)


def test_a_scene_without_text_has_none(tmp_path, read):
    write_video(tmp_path / "a.mp4", moving(50, (360, 640)), fps=25)
    facts = read(tmp_path / "a.mp4")
    assert [facts[n] for n in ("text_share", "text_lines", "subtitle_share", "tiny_lines")] == [
        0
    ] * 4
    assert isinstance(facts["text"], NotApplicable)
    assert not broken(Text(), facts)


def test_text_high_in_the_picture_is_no_subtitle(tmp_path, read):
    frames = written(moving(50, (360, 640)), "chapter one", 30, 60, 1.4)
    write_video(tmp_path / "a.mp4", frames, fps=25)
    facts = read(tmp_path / "a.mp4")
    assert squeeze(facts["text"]) == "chapterone"
    assert facts["subtitle_share"] == 0
    assert broken(Text(), facts) == ["text"]


def test_tiny_print_of_a_still(tmp_path, read):
    page = np.full((1200, 900, 3), 245, np.uint8)
    for i in range(8):
        cv2.putText(page, "terms and conditions apply", (60, 60 + 140 * i), 0, 0.8, (0, 0, 0), 2)
    write_image(tmp_path / "a.png", page)
    facts = read(tmp_path / "a.png")
    assert facts["tiny_lines"] >= 6
    assert isinstance(facts["subtitle_share"], NotApplicable)
    assert "tiny_text" in broken(Text(), facts)


def test_without_the_networks_nothing_is_measured():
    class Empty:
        def path(self, name):
            return None

    with Text().session(Empty()) as measure:
        (facts,) = measure([Seen(None, None, None)])
    assert all(isinstance(value, NotMeasured) for value in facts.values())


def line(left, top, right, bottom):
    return Line("x", 1.0, (left, top, right, bottom), 0.0)


@pytest.mark.parametrize(
    ("frames", "share"),
    [
        ([[line(0.3, 0.9, 0.7, 0.95)], [line(0.2, 0.9, 0.8, 0.95)], []], 2 / 3),
        ([[line(0.3, 0.9, 0.7, 0.95)], [line(0.3, 0.7, 0.7, 0.75)], []], 1 / 3),
        ([[line(0.0, 0.9, 0.2, 0.95)]] * 3, 0),
        ([[line(0.3, 0.1, 0.7, 0.15)]] * 3, 0),
        ([[line(0.48, 0.7, 0.52, 0.95)]] * 3, 0),
        ([[], []], 0),
    ],
)
def test_where_subtitles_stand(frames, share):
    assert subtitle_share(frames) == pytest.approx(share)


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("general/panda_letterbox_subs.mp4", {"subtitles"}),
        ("general/dj_video2_vertical_text.mp4", {"text"}),
        ("general/cotracker_bear.mp4", set()),
        ("general/panda_soccer_50fps.mp4", set()),
        ("general/decord_pancake.mkv", set()),
        ("general/cotracker_cat.mp4", set()),
    ],
)
def test_real_clips(media, read, name, reasons):
    assert reasons <= set(found := broken(Text(), read(media / name)))
    assert bool(found) == bool(reasons)


@pytest.mark.media
def test_a_subtitle_in_real_footage(media, tmp_path, read):
    frames = footage(media / "general/panda_romans.mp4", frames=75)
    write_video(tmp_path / "a.mp4", written(frames, "march to the river", 170, 335, 1.0), fps=25)
    facts = read(tmp_path / "a.mp4")
    assert "marchtotheriver" in squeeze(facts["text"])
    assert facts["subtitle_share"] == 1.0


@pytest.mark.parametrize(
    ("words", "said"), [("▲", False), ("O", False), ("()", False), ("ab", True), ("7 up", True)]
)
def test_a_shape_that_looks_like_a_letter_is_no_text(words, said):
    assert is_text(words) is said
