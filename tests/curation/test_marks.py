"""Boxes that stages found are drawn where they are, into posters and not into players."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from tests.media import read_plain, still

from reelmill.curation.lips.faces import Faces
from reelmill.curation.marks import COLOURS, Mark, draw, marks_of
from reelmill.curation.preview import find_preview, make_preview
from reelmill.curation.stage import Facts, NotApplicable
from reelmill.curation.units import Units, facts_row, facts_schema
from reelmill.curation.video.letterbox import Letterbox
from reelmill.curation.video.overlay import Overlay
from reelmill.curation.video.text import Text
from reelmill.datasets.ledger import rows_table
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.encode import write_video
from reelmill.datasets.media.image import read_rgb
from reelmill.datasets.sample import Clip, Kind

MARKS = (
    Mark("bars", 0.0, 0.2, 1.0, 0.8),
    Mark("text", 0.25, 0.5, 0.75, 0.6),
    Mark("face", 0.1, 0.2, 0.3, 0.4),
    Mark("face", 0.5, 0.2, 0.7, 0.4),
)


def coloured(rgb: np.ndarray, name: str, reach: int = 90) -> tuple[int, int, int, int]:
    """Around the pixels of a mark's colour: left, top, right, bottom."""
    near = np.abs(rgb.astype(int) - COLOURS[name]).sum(axis=2) < reach
    y, x = np.nonzero(near)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def test_boxes_lie_where_they_should():
    drawn = draw(np.full((100, 200, 3), 128, np.uint8), MARKS[1:2])
    left, _, right, bottom = coloured(drawn, "text", 1)
    assert (left, right, bottom) == (50, 149, 59)
    assert draw(np.zeros((10, 10, 3), np.uint8), ()).max() == 0


def test_marks_are_read_from_the_facts(tmp_path):
    info = probe(still(tmp_path / "a.png", size=(100, 200)))
    clip = Clip("ab" * 32, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    units = Units([clip.id], [clip])
    none = NotApplicable("no overlay")
    given: list[tuple[object, Facts]] = [
        (Letterbox(), dict(crop_x=0, crop_y=20, crop_w=200, crop_h=60, picture_share=0.6)),
        (Overlay(), {fact.name: none for fact in Overlay.adds}),
        (Text(), {f.name: none for f in Text.adds} | {"text_box": "0.25 0.5 0.75 0.6"}),
        (
            Faces(),
            {f.name: none for f in Faces.adds} | {"face_boxes": "0.1 0.2 0.3 0.4; 0.5 0.2 0.7 0.4"},
        ),
    ]
    for stage, facts in given:
        row = facts_row(clip.id, stage, facts)
        units.load(stage, rows_table([row], facts_schema(stage)))
    assert marks_of(units.columns, 0, info) == MARKS


def test_a_whole_picture_has_no_bars_to_draw(tmp_path):
    info = probe(still(tmp_path / "a.png", size=(100, 200)))
    clip = Clip("ab" * 32, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    units = Units([clip.id], [clip])
    facts = dict(crop_x=0, crop_y=0, crop_w=200, crop_h=100, picture_share=1.0)
    row = facts_row(clip.id, Letterbox(), facts)
    units.load(Letterbox(), rows_table([row], facts_schema(Letterbox())))
    assert marks_of(units.columns, 0, info) == ()


def test_posters_show_them_and_players_do_not(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, np.full((24, 180, 320, 3), 90, np.uint8), fps=12)
    info = probe(path)
    clip = Clip("ab" * 32, Kind.VIDEO, 0, 24 * 1024, Fraction(1, 12 * 1024), 0, 0, 24)
    folder = tmp_path / "previews"
    plain, marked = (make_preview(folder, path, info, clip, m) for m in ((), MARKS))
    assert plain.poster != marked.poster
    assert plain.player == marked.player
    assert np.ptp(read_rgb(plain.poster)) < 30
    _, _, _, bottom = coloured(read_rgb(marked.poster), "bars", 260)
    assert abs(bottom - 143) <= 2
    assert np.ptp(read_plain(marked.player).rgb) < 30
    assert find_preview(folder, clip, MARKS) == marked
    assert find_preview(folder, clip, MARKS[:1]) is None


def test_a_marked_image_has_its_plain_one_too(tmp_path):
    path = still(tmp_path / "a.png", size=(120, 200))
    clip = Clip("ab" * 32, Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1)
    made = make_preview(tmp_path / "p", path, probe(path), clip, MARKS)
    assert made.poster is not None
    assert len(list((tmp_path / "p").iterdir())) == 2
    assert make_preview(tmp_path / "p", path, probe(path), clip) != made
