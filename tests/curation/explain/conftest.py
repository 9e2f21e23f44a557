"""One run of a small corpus, and copies of its workspace to do things to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.small_run import curate, make_corpus

from reelmill.datasets.workspace import Workspace, open_workspace


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("explained") / "media")


@pytest.fixture(scope="session")
def ran(corpus, tmp_path_factory) -> Path:
    """A workspace after one run. Only to be read."""
    root = tmp_path_factory.mktemp("explained-run") / "w"
    curate(corpus, root)
    return root


@pytest.fixture
def workspace(ran, tmp_path) -> Workspace:
    """A copy of it."""
    return open_workspace(shutil.copytree(ran, tmp_path / "w"))
