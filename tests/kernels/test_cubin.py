"""What the Triton kernels become for Hopper: tensor-core instructions, registers, shared memory.

No GPU is needed: the compiler for one is in Triton's wheel.
"""

from __future__ import annotations

import pytest
import triton.language as tl
from tests.kernels.cubin import SHARED, compiled

from reelmill.kernels.triton import coarse, fine


def constants(config: fine.Config, dim: int, **more: int) -> dict[str, object]:
    return {
        "DIM": dim,
        "BLOCK_Q": config.block_q,
        "BLOCK_KV": config.block_kv,
        "STAGES": config.stages,
        "ACC": tl.float32,
        "EXACT": False,
        "UPCAST": False,
        **more,
    }


def check(cubin, programs: int) -> None:
    assert cubin.wgmma > 0
    assert cubin.mma == 0, "older tensor-core instructions run at half the rate"
    assert cubin.spills == 0
    assert cubin.shared <= SHARED
    assert cubin.programs >= programs, cubin


@pytest.mark.parametrize(
    ("rows", "dim", "programs"), [(64, 128, 3), (64, 64, 3), (128, 128, 1), (128, 64, 2)]
)
def test_forward_fits_hopper(rows, dim, programs):
    config = fine.FORWARD[rows, dim]
    check(compiled(fine.forward_kernel, constants(config, dim), config.warps), programs)


@pytest.mark.parametrize(("dim", "programs"), [(128, 2), (64, 3)])
def test_gradient_of_queries_fits_hopper(dim, programs):
    config = fine.QUERIES[dim]
    cubin = compiled(fine.queries_kernel, constants(config, dim, PARTS=1), config.warps)
    check(cubin, programs)


@pytest.mark.parametrize(("dim", "programs"), [(128, 2), (64, 3)])
@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_gradient_of_keys_fits_hopper(dim, programs, parts):
    config = fine.KEYS[dim]
    cubin = compiled(fine.keys_kernel, constants(config, dim, PARTS=parts), config.warps)
    check(cubin, programs)


@pytest.mark.slow
def test_single_precision_uses_no_tensor_core_and_no_tf32():
    config = fine.FORWARD[64, 64]
    exact = constants(config, 64) | {"EXACT": True}
    single = dict.fromkeys(("Q", "K", "V", "O"), "fp32")
    cubin = compiled(fine.forward_kernel, exact, config.warps, single)
    assert (cubin.wgmma, cubin.mma) == (0, 0)


@pytest.mark.parametrize("name", ["mean_kernel", "gated_kernel", "gated_backward_kernel"])
def test_coarse_kernels_do_not_spill(name):
    sides = {"DIM": 128, "WIDE": 128, "BLOCK": 64, "ACC": tl.float32}
    types = {"OUT": "fp32"} if name == "mean_kernel" else {}
    cubin = compiled(getattr(coarse, name), sides, 4, types)
    assert cubin.spills == 0
    assert cubin.programs >= 3


@pytest.mark.parametrize(
    ("block", "warps"), [(2048, 4), pytest.param(8192, 8, marks=pytest.mark.slow)]
)
def test_selection_holds_a_row_in_registers(block, warps):
    cubin = compiled(coarse.largest_kernel, {"BLOCK": block}, warps, {"OUT": "i32"})
    assert cubin.spills == 0
