"""The house around the code: lock, version, command line."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import reelmill

ROOT = Path(__file__).parent.parent
LINE = re.compile(r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==[0-9][0-9a-z.]*(\+[a-z0-9.]+)?")


def names(file: str) -> set[str]:
    """Names of the packages that a requirements file asks for, as the lock spells them."""
    lines = (ROOT / file).read_text().splitlines()
    wanted = [line.split(";")[0] for line in lines if line and not line.startswith("#")]
    return {re.split(r"[\[=<>~!]", line)[0].strip().lower().replace("_", "-") for line in wanted}


def test_the_lock_holds_names_and_versions_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])


def test_the_lock_holds_all_that_is_asked_for():
    assert names("requirements.in") - names("requirements.lock") == set()


def test_newest_version_of_the_changelog_is_ours():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == reelmill.__version__


def test_help_is_quick_and_loads_no_heavy_package():
    code = (
        "import sys, json\n"
        "sys.argv = ['reelmill', '--help']\n"
        "from reelmill.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    loaded = set(json.loads(run.stderr.splitlines()[-1]))
    heavy = {"torch", "ray", "prefect", "pyarrow", "numpy", "duckdb", "av", "pydantic"}
    assert loaded & heavy == set()
    assert "curate" in run.stdout
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu < 1.0


def test_make_names_every_target_that_it_documents():
    text = (ROOT / "Makefile").read_text()
    told = set(re.findall(r"^#   make (\w+)", text, re.MULTILINE))
    assert told == set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    assert told == {"setup", "check", "fix", "test", "demo", "docs", "bench", "lock"}
