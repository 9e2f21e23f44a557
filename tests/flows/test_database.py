"""The embedded server's database is what Prefect's migrations make, only sooner."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from reelmill.flows import database
from reelmill.flows.database import FILE, SCHEMA, made_for, make_database, migrated


def tables(home: Path) -> set[str]:
    with closing(sqlite3.connect(home / FILE)) as connection:
        return {name for (name,) in connection.execute("select name from sqlite_master")}


def test_the_schema_is_that_of_the_installed_prefect():
    assert made_for() == version("prefect"), (
        "Prefect was changed: python -m reelmill.flows.database > flows/prefect.sql"
    )


@pytest.mark.slow
def test_the_schema_is_what_the_migrations_make():
    assert SCHEMA.read_text() == migrated()


def test_a_new_database_has_all_tables_and_nothing_to_migrate(tmp_path: Path):
    assert make_database(tmp_path)
    assert {"flow_run", "task_run_state", "artifact", "alembic_version"} <= tables(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_database_that_is_there_keeps_what_it_holds(tmp_path: Path):
    make_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("insert into flow (name) values ('curate')")
    assert make_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("select name from flow").fetchall() == [("curate",)]


def test_an_older_database_is_left_to_the_migrations(tmp_path: Path):
    make_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("update alembic_version set version_num = 'older'")
    assert not make_database(tmp_path)


@pytest.mark.parametrize("found", [b"", b"no database" * 100])
def test_what_is_no_database_of_prefect_is_left_to_it(tmp_path: Path, found: bytes):
    (tmp_path / FILE).write_bytes(found)
    assert not make_database(tmp_path)
    assert (tmp_path / FILE).read_bytes() == found


def test_another_prefect_makes_its_own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "other.sql"
    other.write_text(SCHEMA.read_text().replace(f"-- Prefect {made_for()}", "-- Prefect 1.0"))
    monkeypatch.setattr(database, "SCHEMA", other)
    assert not make_database(tmp_path)
    assert not (tmp_path / FILE).exists()
