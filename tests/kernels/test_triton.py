"""The Triton kernels, in the interpreter; their code for a GPU is looked at in test_cubin.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.interpreted"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_output_and_gradients_equal_dense_masked_attention(found):
    assert set(found["against_the_oracle"]) == {"odd", "prefix", "one token", "tiles of one"}
    assert max(found["against_the_oracle"].values()) < 1e-12


def test_each_type_has_the_error_of_its_type(found):
    limits = {"float64": 1e-13, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}
    for name, limit in limits.items():
        assert found["types"][f"torch.{name}"] < limit


def test_error_at_any_scale_is_that_of_dense_attention(found):
    assert len(found["scales"]) == 5
    assert max(found["scales"].values()) <= 1


@pytest.mark.parametrize("what", ["finite", "no gradient", "empty list is zero"])
def test_what_nobody_reads_is_not_looked_at_and_all_outputs_are_written(found, what):
    assert found["poison"][what]


def test_two_runs_are_equal_to_the_bit(found):
    assert found["repeats"]


def test_gradients_of_the_whole_operation_stand_numerical_differences(found):
    assert found["gradcheck"]


def test_two_tiles_may_share_a_list(found):
    assert found["shared_lists"] < 1e-12


def test_strides_do_not_matter(found):
    assert set(found["strides"].values()) == {0.0}


def test_coarse_kernels_equal_torch(found):
    assert max(found["coarse_kernels"].values()) < 1e-13


def test_selection_equals_torch_with_ties_and_nan(found):
    assert found["selection"]


def test_readers_of_each_tile_are_found_in_order(found):
    assert found["inversion"]


def test_full_blocks_equal_the_cpu(found):
    assert found["equals_cpu"] < 1e-5
