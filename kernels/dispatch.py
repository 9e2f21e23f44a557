"""What computes attention on this machine, and why; and dense attention itself.

Each way of computing says for itself what it lacks. The first in order that lacks nothing is used,
unless the caller or the environment names one: REELMILL_ATTENTION for dense attention,
REELMILL_SPARSE_ATTENTION for block-sparse.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reelmill.errors import UsageError
from reelmill.kernels import native

HALF = (torch.float16, torch.bfloat16)
TRITON_HEAD_DIMS = (16, 32, 64, 128)
_DENSE_CHOICE = os.environ.get("REELMILL_ATTENTION") or "auto"
_SPARSE_CHOICE = os.environ.get("REELMILL_SPARSE_ATTENTION") or "auto"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # a parent package that is absent or broken
        return False


_MODULES = {
    "flash_attn_3": "flash_attn_interface",
    "flash_attn_4": "flash_attn.cute",
    "flash_attn": "flash_attn",
    "triton": "triton",
}
_INSTALLED = {name: _installed(module) for name, module in _MODULES.items()}
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Case:
    """What is to be computed: where, in what type, how wide a head, with gradients or without."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    grad: bool = False

    @classmethod
    def of(cls, q: Tensor) -> Case:
        return cls(q.device, q.dtype, q.shape[-1], q.requires_grad)

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA compute capability; (0, 0) without a GPU."""
        return torch.cuda.get_device_capability(self.device) if self._cuda else (0, 0)

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"


def _flash(name: str, lowest: tuple[int, int], highest: tuple[int, int]) -> Callable:
    def lacks(case: Case) -> str | None:
        if case.device.type != "cuda":
            return "needs a CUDA device"
        if not _INSTALLED[name]:
            return f"{_MODULES[name]} is not installed"
        if not lowest <= case.capability <= highest:
            return f"does not run on compute capability {case.capability}"
        if case.dtype not in HALF:
            return f"takes float16 and bfloat16, not {case.dtype}"
        fits = case.head_dim <= 256 and case.head_dim % 8 == 0
        return None if fits else "takes heads of a multiple of 8, up to 256"

    return lacks


def _cudnn_lacks(case: Case) -> str | None:
    if case.device.type != "cuda":
        return "needs a CUDA device"
    if case.capability < (9, 0):
        return "is used from compute capability 9.0 on"
    if case.dtype not in HALF:
        return f"takes float16 and bfloat16, not {case.dtype}"
    fits = case.head_dim <= 128 and case.head_dim % 8 == 0
    return None if fits else "takes heads of a multiple of 8, up to 128"


def _triton_lacks(case: Case) -> str | None:
    if not _INSTALLED["triton"]:
        return "triton is not installed"
    if _INTERPRETED:
        return None
    if case.device.type != "cuda":
        return "needs a CUDA device (or TRITON_INTERPRET=1, to test)"
    if torch.version.hip is None and case.capability < (8, 0):
        return f"needs compute capability 8.0, not {case.capability}"
    if case.head_dim not in TRITON_HEAD_DIMS:
        return f"takes heads of {', '.join(map(str, TRITON_HEAD_DIMS))}, not {case.head_dim}"
    return None if case.dtype in (*HALF, torch.float32) else f"does not take {case.dtype}"


def _flex_lacks(case: Case) -> str | None:
    if case.device.type == "cpu":
        return "has no backward on the CPU" if case.grad else "is slower than `cpu` there"
    if case.dtype == torch.float64:
        return "does not take float64"
    return None


def _cpu_lacks(case: Case) -> str | None:
    return None if case.device.type == "cpu" else "runs on the CPU only"


def _native_lacks(case: Case) -> str | None:
    return native.lacks() if case.device.type == "cpu" else "runs on the CPU only"


def _nothing(case: Case) -> str | None:
    return None


DENSE: dict[str, Callable[[Case], str | None]] = {
    "flash_attn_3": _flash("flash_attn_3", (9, 0), (9, 0)),
    "flash_attn_4": _flash("flash_attn_4", (9, 0), (12, 9)),
    "flash_attn": _flash("flash_attn", (8, 0), (12, 9)),
    "cudnn": _cudnn_lacks,
    "sdpa": _nothing,
    "math": _nothing,
}
"""Dense attention, best first: what each lacks for a case, or None."""
SPARSE: dict[str, Callable[[Case], str | None]] = {
    "triton": _triton_lacks,
    "native": _native_lacks,
    "cpu": _cpu_lacks,
    "flex": _flex_lacks,
    "reference": _nothing,
}
"""Block-sparse attention, best first."""


@dataclass(frozen=True)
class Choice:
    """The name that was chosen, and for every name why not; None where it could be used."""

    name: str
    lacks: dict[str, str | None]


def choose_dense(case: Case, backend: str = "auto") -> Choice:
    """What `attention` uses. Raises UsageError for a named one that cannot be used."""
    return _choose(case, DENSE, backend, _DENSE_CHOICE, "attention")


def choose_sparse(case: Case, backend: str = "auto") -> Choice:
    """What `block_sparse_attention` uses. Raises UsageError as `choose_dense`."""
    return _choose(case, SPARSE, backend, _SPARSE_CHOICE, "sparse attention")


@torch.compiler.assume_constant_result
def sparse_backend(
    device: torch.device, dtype: torch.dtype, head_dim: int, grad: bool, backend: str
) -> str:
    """The name that `choose_sparse` gives; torch.compile takes it as a constant."""
    return choose_sparse(Case(device, dtype, head_dim, grad), backend).name


@torch.compiler.assume_constant_result
def dense_backend(
    device: torch.device, dtype: torch.dtype, head_dim: int, grad: bool, backend: str
) -> str:
    """The name that `choose_dense` gives; torch.compile takes it as a constant."""
    return choose_dense(Case(device, dtype, head_dim, grad), backend).name


def _choose(
    case: Case, table: dict[str, Callable[[Case], str | None]], asked: str, env: str, what: str
) -> Choice:
    lacks = {name: lacking(case) for name, lacking in table.items()}
    wanted = env if asked == "auto" else asked
    if wanted == "auto":
        # The interpreter of Triton is for tests: chosen only by name.
        able = [n for n in table if lacks[n] is None and not (n == "triton" and _INTERPRETED)]
        return Choice(able[0], lacks)
    if wanted not in table:
        raise UsageError(f"There is no {what} backend {wanted!r}; there are {', '.join(table)}.")
    reason = lacks[wanted]
    # The flex reasons on the CPU are about what `auto` should do, not about what can be done.
    if reason is not None and not (wanted == "flex" and case.device.type == "cpu"):
        raise UsageError(f"The {what} backend {wanted!r} cannot be used here ({reason}).")
    return Choice(wanted, lacks)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens: Sequence[int] | None = None,
    cu_seqlens_k: Sequence[int] | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(q k^T scale) v over whole sequences.

    q: [B, Lq, heads, head_dim]; k, v: [B, Lk, heads, head_dim]. Returns [B, Lq, heads, head_dim].
    cu_seqlens: bounds [0, ..., Lq] of packed sequences that do not see each other; cu_seqlens_k
    the same of the keys, by default equal. scale: default 1 / sqrt(head_dim).
    Raises UsageError for a backend that cannot be used, or bounds that do not fit.
    """
    name = dense_backend(q.device, q.dtype, q.shape[-1], q.requires_grad, backend)
    if cu_seqlens is None:
        return _whole(name, q, k, v, scale)
    bounds = tuple(cu_seqlens)
    bounds_k = bounds if cu_seqlens_k is None else tuple(cu_seqlens_k)
    for each, length in ((bounds, q.shape[1]), (bounds_k, k.shape[1])):
        if len(each) < 2 or each[0] != 0 or each[-1] != length or list(each) != sorted(each):
            raise UsageError(f"Bounds {each} do not run from 0 to the {length} tokens, ascending.")
    if len(bounds) != len(bounds_k):
        raise UsageError(f"{len(bounds) - 1} query sequences, {len(bounds_k) - 1} of keys.")
    if name.startswith("flash_attn"):
        return _packed(name, q, k, v, bounds, bounds_k, scale)
    parts = [
        _whole(name, q[:, a:b], k[:, c:d], v[:, c:d], scale)
        for (a, b), (c, d) in zip(pairwise(bounds), pairwise(bounds_k), strict=True)
    ]
    return torch.cat(parts, 1)


def _whole(name: str, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    if name.startswith("flash_attn"):
        out = import_module(_MODULES[name]).flash_attn_func(q, k, v, softmax_scale=scale)
        return out[0] if isinstance(out, tuple) else out  # some versions add the log-sum-exp
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    kinds = {"cudnn": SDPBackend.CUDNN_ATTENTION, "math": SDPBackend.MATH}
    if name not in kinds:
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    with sdpa_kernel(kinds[name]):
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)


def _packed(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: tuple[int, ...],
    bounds_k: tuple[int, ...],
    scale: float | None,
) -> Tensor:
    batch = q.shape[0]

    def repeat(each: tuple[int, ...]) -> Tensor:
        ends = [b * each[-1] + end for b in range(batch) for end in each[1:]]
        return torch.tensor([0, *ends], dtype=torch.int32, device=q.device)

    def longest(each: tuple[int, ...]) -> int:
        return max(b - a for a, b in pairwise(each))

    out = import_module(_MODULES[name]).flash_attn_varlen_func(
        *(x.flatten(0, 1) for x in (q, k, v)),
        cu_seqlens_q=repeat(bounds),
        cu_seqlens_k=repeat(bounds_k),
        max_seqlen_q=longest(bounds),
        max_seqlen_k=longest(bounds_k),
        softmax_scale=scale,
    )
    out = out[0] if isinstance(out, tuple) else out
    return out.unflatten(0, (batch, -1))
