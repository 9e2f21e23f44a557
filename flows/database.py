"""The embedded server's database, made at once instead of by Prefect's hundred migrations.

`prefect.sql` is what these migrations come to for one version of Prefect, named in its first line.
SQLite reads it in hundredths of a second, where the migrations take five seconds. With any other
version, and for a database that is there already, Prefect migrates as ever.

    python -m reelmill.flows.database > flows/prefect.sql      # after Prefect was changed
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

SCHEMA = Path(__file__).with_name("prefect.sql")
FILE = "prefect.db"
MADE = "select sql from sqlite_master where sql is not null order by type = 'index', name"
CONSTRAINTS = re.compile(r"(?:^\tCONSTRAINT [^\n]*\n)+", re.MULTILINE)
MIGRATE = (
    "import asyncio; from prefect.server.database import provide_database_interface; "
    "asyncio.run(provide_database_interface().create_db())"
)


def made_for() -> str:
    """The version of Prefect whose tables `prefect.sql` holds."""
    with SCHEMA.open() as lines:
        return lines.readline().removeprefix("-- Prefect ").strip()


def make_database(home: Path) -> bool:
    """Makes the database of an embedded server in `home`, where there is none.

    Whether there is nothing left to migrate. Killed in between, it leaves no half database.
    """
    if version("prefect") != made_for():
        return False
    database = home / FILE
    if not database.exists():
        begun = home / f"{FILE}.{os.getpid()}.tmp"
        begun.unlink(missing_ok=True)
        with closing(sqlite3.connect(begun)) as connection:
            connection.executescript(SCHEMA.read_text())
        begun.rename(database)
    with closing(sqlite3.connect(":memory:")) as fresh, closing(sqlite3.connect(database)) as found:
        fresh.executescript(SCHEMA.read_text())
        return _revision(found) == _revision(fresh)


def _revision(connection: sqlite3.Connection) -> object:
    try:
        return connection.execute("select version_num from alembic_version").fetchall()
    except sqlite3.DatabaseError:  # no database of Prefect's: that is for Prefect to say
        return None


def migrated() -> str:
    """What Prefect's own migrations make, as SQL. Takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        own = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        own |= {"PREFECT_HOME": folder, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        subprocess.run([sys.executable, "-P", "-c", MIGRATE], env=own, check=True)
        with closing(sqlite3.connect(Path(folder) / FILE)) as connection:
            made = connection.execute(MADE).fetchall()
            revisions = connection.execute("select version_num from alembic_version").fetchall()
    tidy = "\n".join(line.rstrip() for (sql,) in made for line in f"{sql};".splitlines())
    lines = [f"-- Prefect {version('prefect')}", "BEGIN;", CONSTRAINTS.sub(_sorted, tidy)]
    lines += [f"INSERT INTO alembic_version VALUES ('{revision}');" for (revision,) in revisions]
    return "\n".join([*lines, "COMMIT;", ""])


def _sorted(constraints: re.Match[str]) -> str:
    """Their order differs from one migration to the next, and means nothing."""
    lines = constraints.group().splitlines()
    end = ",\n" if lines[-1].endswith(",") else "\n"
    return ",\n".join(sorted(line.rstrip(",") for line in lines)) + end


if __name__ == "__main__":
    sys.stdout.write(migrated())
