"""Stamps, marks and logos: planted into real pictures, at known places; and clean ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
import pytest

from reelmill.curation.image.logo import logos
from reelmill.curation.image.stamps import OWNER, Stamps, is_stamp
from reelmill.curation.marks import COLOURS, marks_of
from reelmill.curation.models.weights import Weights
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.curation.units import Column
from reelmill.curation.video.text import Text
from reelmill.datasets.media.decode import probe
from reelmill.datasets.sample import Clip, Kind

CLEAN = (
    "ukbench01380.jpg", "ukbench08976.jpg", "ukbench09012.jpg", "ukbench09060.jpg",
    "ukbench09268.jpg", "ukbench09380.jpg", "ukbench00120.jpg", "exif_landscape_1.jpg",
    "tid_I03_ref.bmp", "tid_I06_ref.bmp", "tid_I08_ref.bmp",
)  # fmt: skip


@dataclass
class Still:
    picture: np.ndarray
    facts: dict = field(default_factory=dict)
    clip: Clip = field(
        default_factory=lambda: Clip("a" * 64, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    )
    info: object = None

    def frames(self, fps, height):
        return self.picture[None]


def facts_of(picture: np.ndarray, folder) -> dict:
    path = folder / "still.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    still = Still(picture, info=probe(path))
    with Text().session(Weights()) as read, Stamps().session(Weights()) as judge:
        still.facts = read([still])[0]
        return dict(judge([still])[0])


def iou(a, b) -> float:
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = lambda c: (c[2] - c[0]) * (c[3] - c[1])  # noqa: E731
    return w * h / (area(a) + area(b) - w * h)


def boxes(facts: dict, name: str) -> list[list[float]]:
    text = facts[f"{name}_boxes"]
    return [[float(x) for x in one.split()] for one in text.split(";")] if text else []


def written(picture: np.ndarray, text: str, x: int, y: int, colour, size=0.9):
    """The picture with a line of text, and the box of its letters, 0 to 1."""
    out = picture.copy()
    cv2.putText(out, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 2, cv2.LINE_AA)
    rows, columns = np.nonzero((out != picture).any(axis=2))
    h, w = picture.shape[:2]
    return out, (columns.min() / w, rows.min() / h, (columns.max() + 1) / w, (rows.max() + 1) / h)


def drawn(picture: np.ndarray, x: int, y: int, side: int):
    """The picture with a square logo of two colours, and its box."""
    out = picture.copy()
    cv2.rectangle(out, (x, y), (x + side - 1, y + side - 1), (20, 60, 200), -1)
    middle = (x + side // 2, y + side // 2)
    cv2.circle(out, middle, side // 3, (250, 220, 0), -1, cv2.LINE_AA)
    h, w = picture.shape[:2]
    return out, (x / w, y / h, (x + side) / w, (y + side) / h)


def real(media, name: str) -> np.ndarray:
    return cv2.imread(str(media / "images" / name))[..., ::-1].copy()


@pytest.mark.media
@pytest.mark.parametrize("name", ["ukbench09012.jpg", "exif_landscape_1.jpg"])
def test_a_date_and_a_mark_are_found_where_they_were_planted(media, tmp_path, name):
    picture = real(media, name)
    picture = cv2.resize(picture, (960, 960 * picture.shape[0] // picture.shape[1]))
    height = picture.shape[0]
    dated, stamp = written(picture, "2004/05/17 12:33", 620, height - 30, (255, 140, 0))
    marked, mark = written(dated, "(c) www.example.com", 40, height // 2, (255, 255, 255))
    found = facts_of(marked, tmp_path)
    assert found["stamps"] == found["watermarks"] == 1
    assert iou(boxes(found, "stamp")[0], stamp) >= 0.7
    assert iou(boxes(found, "watermark")[0], mark) >= 0.7
    clean = facts_of(picture, tmp_path)
    assert clean["stamps"] == clean["watermarks"] == 0


@pytest.mark.media
def test_marks_of_agencies_on_real_pictures(media, tmp_path):
    for name in ("wm_0.png", "wm_6.jpg"):
        assert facts_of(real(media, name), tmp_path)["watermarks"] >= 1


@pytest.mark.media
def test_opaque_logos_in_corners_are_found_and_clean_pictures_are_clean(media):
    found, count = 0, 0
    for name in CLEAN:
        picture = real(media, name)
        assert logos(picture) == []
        h, w = picture.shape[:2]
        side, margin = round(0.11 * min(h, w)), round(0.04 * min(h, w))
        for x in (margin, w - margin - side):
            for y in (margin, h - margin - side):
                out, truth = drawn(picture, x, y, side)
                jpeg = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
                best = [iou(box, truth) for box in logos(cv2.imdecode(jpeg, 1)[..., ::-1])]
                found, count = found + (max(best, default=0) >= 0.7), count + 1
    assert found >= 0.8 * count


def noise_still(seed=0):
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (30, 40, 3), np.uint8)
    return cv2.resize(rough, (640, 480), interpolation=cv2.INTER_CUBIC)


def test_a_logo_in_the_middle_or_of_one_colour_is_a_thing():
    picture = noise_still()
    assert logos(picture) == []
    (box,) = logos(drawn(picture, 20, 20, 60)[0])
    assert iou(box, drawn(picture, 20, 20, 60)[1]) >= 0.7
    assert logos(drawn(picture, 290, 210, 60)[0]) == []
    plain = picture.copy()
    plain[20:80, 20:80] = (20, 60, 200)
    assert logos(plain) == []


@pytest.mark.parametrize(
    ("text", "box", "said"),
    [
        ("2004/05/17 12:33", (0.7, 0.9, 0.95, 0.95), True),
        ("17.5.2004", (0.0, 0.5, 0.2, 0.55), True),
        ("12:33:07", (0.4, 0.02, 0.6, 0.08), True),
        ("2004/05/17", (0.4, 0.5, 0.6, 0.55), False),
        ("Room 12.3.4 on the left", (0.7, 0.9, 0.95, 0.95), False),
        ("1984", (0.7, 0.9, 0.95, 0.95), False),
    ],
)
def test_what_a_stamp_is(text, box, said):
    assert is_stamp(text, box) is said


def test_what_names_an_owner():
    assert all(
        map(OWNER.search, ("© 2020", "Adobe Stock", "www.a.b", "Copyrighted Image", "x.com"))
    )
    assert not any(map(OWNER.search, ("Stockholm", "computer", "(d)", "commons", "a@b")))


def test_what_was_not_read_is_not_measured_and_logos_still_are():
    absent = NotMeasured("weights 'ppocr' absent")
    still = Still(noise_still(), {"text": absent, "text_boxes": absent})
    with Stamps().session(Weights()) as judge:
        found = judge([still])[0]
    assert found["stamps"] == found["watermark_boxes"] == absent
    assert found["logos"] == 0
    assert found["logo_boxes"] == NotApplicable("none")


def test_boxes_are_drawn_in_the_gallery(tmp_path):
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), noise_still())
    columns = {}
    names = ("stamp", "watermark", "logo")
    for name in names:
        (fact,) = [fact for fact in Stamps.adds if fact.name == f"{name}_boxes"]
        column = Column.empty(fact, 1)
        column.values[0] = "0.1 0.2 0.3 0.4;0.5 0.5 0.6 0.6"
        columns[fact.name] = column
    found = marks_of(columns, 0, probe(path))
    assert [mark.name for mark in found] == [name for name in names for _ in range(2)]
    assert {mark.name for mark in found} <= set(COLOURS)
