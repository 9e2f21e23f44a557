from __future__ import annotations

import pytest

from reelmill.kernels import native


@pytest.fixture(params=["native", "cpu", "reference"])
def backend(request) -> str:
    if request.param == "native" and (reason := native.lacks()):
        pytest.skip(reason)
    return request.param
