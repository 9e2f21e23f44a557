"""A backfill takes up what was chosen, keeps what is known, and says what waits."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from reelmill.datasets.ingest.find import find_sources
from reelmill.datasets.ingest.remote import Rules
from reelmill.datasets.ingest.select import Chosen, Selection, choose
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import SourceError, UsageError

RULES = Rules()


def put(path: Path, day: str = "2026-10-05") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode())
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC).timestamp()
    os.utime(path, (noon, noon))
    return path


def chosen(tmp_path: Path, selection: Selection, source: Path | None = None) -> Chosen:
    found = find_sources([str(source or tmp_path / "media")], skip=None, rules=RULES)
    return choose(found, selection, tmp_path / "work", RULES)


def names(made: Chosen) -> list[str]:
    return [file.name for file in made.found.files]


@pytest.mark.parametrize(
    ("place", "fits"),
    [
        ("media/2026-10", ["a.mp4", "b.mp4"]),
        ("media/2026-10/", ["a.mp4", "b.mp4"]),
        ("media/2026-1", ["a.mp4", "b.mp4", "c.mp4"]),
        ("media/*/[ac].mp4", ["a.mp4", "c.mp4"]),
        ("media/2026-10/a", ["a.mp4"]),
    ],
)
def test_the_beginning_of_a_path_or_a_pattern_chooses(tmp_path, monkeypatch, place, fits):
    for name in ("2026-10/a.mp4", "2026-10/b.mp4", "2026-11/c.mp4"):
        put(tmp_path / "media" / name)
    monkeypatch.chdir(tmp_path)
    for given in (place, str(tmp_path / place)):
        made = chosen(tmp_path, Selection((given,)))
        assert names(made) == fits
        assert (made.waiting, made.undated) == (3 - len(fits), 0)
    assert names(chosen(tmp_path, Selection((place, "media/2026-11/")))) == sorted({*fits, "c.mp4"})


@pytest.mark.parametrize(
    ("since", "until", "fits"),
    [("2026-10-02", None, "bc"), (None, "2026-10-02", "ab"), ("2026-10-02", "2026-10-02", "b")],
)
def test_days_choose_with_both_ends(tmp_path: Path, since, until, fits):
    for name, day in (("a", "2026-10-01"), ("b", "2026-10-02"), ("c", "2026-10-03")):
        put(tmp_path / "media" / name, day)
    days = [day and date.fromisoformat(day) for day in (since, until)]
    assert names(chosen(tmp_path, Selection((), *days))) == list(fits)


def test_days_of_a_column_choose_and_rows_without_one_wait(tmp_path: Path):
    for name in "abcde":
        put(tmp_path / "media" / name, "2020-01-01")
    table = tmp_path / "media.csv"
    rows = [
        "a,2026-10-01",
        "b,2026-10-02T01:00:00+03:00",
        "c,2026-10-02 23:59",
        "d,",
        "e,2026-11-01",
    ]
    table.write_text("path,shot\n" + "".join(f"media/{row}\n" for row in rows))
    october = Selection((), date(2026, 10, 1), date(2026, 10, 31), "shot")
    made = chosen(tmp_path, october, table)
    assert names(made) == ["a", "b", "c"]
    assert (made.waiting, made.undated) == (2, 1)
    second = Selection((), date(2026, 10, 2), None, "shot")
    assert names(chosen(tmp_path, second, table)) == ["c", "e"]  # b's day is the first, in UTC


def test_what_an_earlier_run_took_up_stays(tmp_path: Path):
    for name in "abc":
        put(tmp_path / "media" / name)
    first = chosen(tmp_path, Selection((str(tmp_path / "media" / "a"),)))
    first.found.manifest(open_workspace(tmp_path / "work"))
    second = chosen(tmp_path, Selection((str(tmp_path / "media" / "c"),)))
    assert (names(first), names(second), second.waiting) == (["a"], ["a", "c"], 1)
    assert names(chosen(tmp_path, Selection())) == ["a", "b", "c"]


def test_nothing_chosen_and_wrong_columns_are_told(tmp_path: Path):
    put(tmp_path / "media" / "a.mp4")
    with pytest.raises(SourceError, match=r"none of 1 files is from 2027-01-01[.] Name"):
        chosen(tmp_path, Selection((), date(2027, 1, 1)))
    with pytest.raises(SourceError, match=r"no manifest has the column 'shot'.*there are: none"):
        chosen(tmp_path, Selection((), date(2027, 1, 1), None, "shot"))
    (tmp_path / "media.csv").write_text("path,shot\nmedia/a.mp4,last week\n")
    with pytest.raises(SourceError, match=r"a.mp4: its shot is 'last week', which is no date"):
        chosen(tmp_path, Selection((), date(2027, 1, 1), None, "shot"), tmp_path / "media.csv")
    assert not (tmp_path / "work").exists()


def test_selections_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="since 2026-10-02 is after until 2026-10-01"):
        Selection((), date(2026, 10, 2), date(2026, 10, 1))
    with pytest.raises(UsageError, match="no day is given"):
        Selection(column="shot")
    with pytest.raises(UsageError, match="empty beginning"):
        Selection(("",))
    assert not Selection()
