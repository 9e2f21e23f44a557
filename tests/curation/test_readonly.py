"""Output that cannot be written: told in words, and the next run goes on."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.curation.test_kill import content, start
from tests.media import noise_video
from tests.small_run import curate
from tests.trees import digests

pytestmark = pytest.mark.long

DROP_FROM_BOUNDING_SET, DAC_OVERRIDE = 24, 1


def as_a_plain_user() -> None:
    """Of root's rights, leaves out the one to write where nobody may."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, DAC_OVERRIDE, 0, 0, 0)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    paths = [folder, *folder.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.parametrize(
    "part", [".", *(pytest.param(part, marks=pytest.mark.slow) for part in ("ledger", "shards"))]
)
def test_read_only_output_ends_the_run_in_words_and_the_next_one_goes_on(tmp_path, part):
    films = tmp_path / "films"
    films.mkdir()
    noise_video(films / "a.mp4", seconds=1.0, seed=1)
    (tmp_path / "x").mkdir()
    whole = tmp_path / "x" / "w"
    curate(films, whole)
    workspace = shutil.copytree(whole, tmp_path / "w")
    noise_video(films / "b.mp4", seconds=1.0, seed=2)
    curate(films, whole)
    with read_only(workspace / part):
        process = start(films, workspace, preexec_fn=as_a_plain_user)
        _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith("WorkspaceError: cannot write")
    assert "Traceback" not in error
    curate(films, workspace)
    assert digests(workspace / "shards") == digests(whole / "shards")
    assert content(workspace) == content(whole)
