"""Block-sparse attention on the CPU, compiled here from `native.cpp`.

Needs a C++ compiler (CXX, c++, g++ or clang++); without one `cpu` computes the same from torch's
own operations. Compiled at first use, in seconds, for the CPU at hand, and kept under
`$XDG_CACHE_HOME/reelmill/kernels` or `~/.cache/reelmill/kernels`: a file for each source, compiler
and instruction set. Half types are computed in float32, float64 in itself.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from reelmill.errors import UsageError
from reelmill.kernels.reference import Blocks, working_type

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
SECONDS = 300
"""That a compiler may take."""
WHOLE = 16
"""A multiple of what any vector register holds: so long are rows of the keys' gradient."""


def lacks() -> str | None:
    """Why it cannot run on this machine, or None. Compiles where that has not been done before."""
    found = _library()
    return found if isinstance(found, str) else None


def forward(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """As `reference.forward`. Tiles are shared out to torch's number of threads."""
    batch, tokens, heads, dim = q.shape
    work = working_type(q.dtype)
    rows = {"q": _rows(q, work), "k": _rows(k, work), "v": _rows(v, work)}
    rows["o"] = torch.empty(q.shape, dtype=work)
    lse = torch.empty(batch, heads, tokens, dtype=work)
    problem = _Problem.of(blocks, rows, dim)
    _run("attend", problem, (*rows.values(), lse), batch * heads * problem.q_tiles)
    return rows["o"].to(q.dtype), lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, blocks: Blocks
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.backward`. Heads are shared out to torch's number of threads."""
    batch, _, heads, dim = q.shape
    work = working_type(q.dtype)
    given = {"g": do, "q": q, "k": k, "v": v, "o": o}
    rows = {name: _rows(x, work) for name, x in given.items()}
    lse = lse.contiguous()
    whole = -(-dim // WHOLE) * WHOLE
    dq = torch.empty(q.shape, dtype=work)
    dk, dv = (torch.zeros(*k.shape[:3], whole, dtype=work) for _ in "kv")
    problem = _Problem.of(blocks, {**rows, "dq": dq, "dk": dk, "dv": dv}, dim)
    _run("gradients", problem, (*rows.values(), lse, dq, dk, dv), batch * heads)
    dq, dk, dv = (x[..., :dim].to(q.dtype).contiguous() for x in (dq, dk, dv))
    return dq, dk, dv


class _Strides(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "head", "token")]


_SIZES = (
    "heads", "dim", "q_tiles", "kv_tiles", "q_tokens", "kv_tokens", "q_max", "kv_max", "width"
)  # fmt: skip
_LISTS = ("index", "count", "q_offsets", "kv_offsets")
_ROWS = ("q", "k", "v", "o", "g", "dq", "dk", "dv")


class _Problem(ctypes.Structure):
    """`Problem` of native.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _SIZES),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _LISTS),
        *((name, _Strides) for name in _ROWS),
    ]
    held: list[Tensor]
    q_tiles: int

    @classmethod
    def of(cls, blocks: Blocks, rows: dict[str, Tensor], dim: int) -> _Problem:
        lists = (blocks.chosen, blocks.counts, blocks.q_offsets, blocks.kv_offsets)
        held = [x.int().contiguous() for x in lists]
        q, k = rows["q"], rows["k"]
        made = cls(
            q.shape[2], dim, len(held[2]) - 1, len(held[3]) - 1, q.shape[1], k.shape[1],
            blocks.q_max, blocks.kv_max, blocks.chosen.shape[-1], blocks.scale,
            *(x.data_ptr() for x in held),
        )  # fmt: skip
        for name, x in rows.items():
            setattr(made, name, _Strides(x.stride(0), x.stride(2), x.stride(1)))
        made.held = held
        return made


def _rows(x: Tensor, work: torch.dtype) -> Tensor:
    x = x.to(work)
    return x if x.stride(-1) == 1 else x.contiguous()


def _run(name: str, problem: _Problem, tensors: tuple[Tensor, ...], units: int) -> None:
    """Calls `name` on shares of the units, one for each of torch's threads."""
    library = _library()
    if isinstance(library, str):
        raise UsageError(f"The sparse attention backend 'native' cannot be used here ({library}).")
    kind = "double" if tensors[0].dtype == torch.float64 else "float"
    function = getattr(library, f"{name}_{kind}")
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in tensors]
    shares = min(torch.get_num_threads(), units)
    bounds = [units * i // shares for i in range(shares + 1)] if units else []

    def call(bound: tuple[int, int]) -> int:
        first, last = (ctypes.c_int64(n) for n in bound)
        return function(ctypes.byref(problem), *pointers, first, last)

    if shares > 1:
        with ThreadPoolExecutor(shares) as pool:
            codes = set(pool.map(call, pairwise(bounds)))
    else:
        codes = {call(bound) for bound in pairwise(bounds)}
    if -2 in codes:
        raise UsageError("Lists name tiles that are not there, or tiles do not fit the tokens.")
    if codes - {0}:
        raise MemoryError("There is no memory for sparse attention.")


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | str:
    """The compiled functions, or why there are none."""
    compiler = _compiler()
    if compiler is None:
        return "there is no C++ compiler (CXX, c++, g++ or clang++)"
    try:
        return ctypes.CDLL(str(_built(compiler)))
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"{compiler} did not compile it: {said[0] if said else 'it failed'}"
    except OSError as error:
        return f"it could not be compiled or loaded: {error}"


def _compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _built(compiler: str) -> Path:
    """The library's file, made unless it is there."""

    def run(*arguments: str, text: str | None = None) -> str:
        done = subprocess.run(
            [compiler, *FLAGS, *arguments],
            input=text, capture_output=True, text=True, check=True, timeout=SECONDS,
        )  # fmt: skip
        return done.stdout

    # What the compiler defines tells its version and the instructions that it may use.
    told = run("-E", "-dM", "-x", "c++", "-", text="")
    parts = (SOURCE.read_text("utf-8"), *FLAGS, told)
    path = _folder() / f"{sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as room:
            made = Path(room) / path.name
            run("-o", str(made), str(SOURCE))
            made.replace(path)  # at once, also where several processes make it
    return path


def _folder() -> Path:
    """Where libraries are kept: nobody else may write there, for they are run."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:  # nobody's home
        raise OSError(str(error)) from error
    folder = root / "reelmill" / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder
