"""What all tests share: a quiet offline environment, and the real clips where they are given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch, OpenCV or Prefect are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)

settings.register_profile("reelmill", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("reelmill")


def _folder(variable: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"{variable} is not set")
    return Path(named)


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips with known truth."""
    return _folder("REELMILL_MEDIA")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of pretrained weights."""
    return _folder("REELMILL_WEIGHTS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "long" not in item.keywords)  # so that no core ends with one alone
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
