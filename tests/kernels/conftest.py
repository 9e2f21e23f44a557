from __future__ import annotations

import pytest

from reelmill.kernels import native


@pytest.fixture(params=["native", "cpu", "reference"])
def backend(request) -> str:
    """Every backend of the CPU."""
    return _usable(request.param)


@pytest.fixture(params=["native", "cpu"])
def computing(request) -> str:
    """Those that the reference is there to test."""
    return _usable(request.param)


def _usable(name: str) -> str:
    if name == "native" and (reason := native.lacks()):
        pytest.skip(reason)
    return name
