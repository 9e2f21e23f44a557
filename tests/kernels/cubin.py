"""Compiles Triton kernels for a Hopper GPU where there is none, and reads what came out."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER = GPUTarget("cuda", 90, 32)
TOOL = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
REGISTERS, SHARED, THREADS, PROGRAMS = 65536, 227 * 1024, 2048, 32
"""What one multiprocessor of an H100 or H200 has; a program may have all of the shared memory."""
RESERVED = 1024
"""Shared memory that each program takes beside its own."""
POINTERS = {
    "O": "bf16", "Q": "bf16", "K": "bf16", "V": "bf16", "DO": "bf16", "DQ": "bf16", "DK": "bf16",
    "DV": "bf16", "X": "bf16", "OUT": "bf16", "FINE": "bf16", "GATE": "bf16", "GRAD": "bf16",
    "DGATE": "bf16", "LSE": "fp32", "DELTA": "fp32", "COARSE": "fp32", "DCOARSE": "fp32",
    "SCORES": "fp32", "INDEX": "i32", "COUNT": "i32", "Q_OFF": "i32", "KV_OFF": "i32",
    "OFF": "i32", "READERS": "i32", "READ_OFF": "i32",
}  # fmt: skip
DIVISIBLE = re.compile(r"s[a-z][blh]$")
"""Strides are multiples of 16 wherever the head is: a launch finds that out by itself."""


@dataclass(frozen=True)
class Cubin:
    registers: int
    shared: int
    spills: int
    """Loads and stores of local memory, as instructions."""
    wgmma: int
    mma: int
    """Instructions of the older tensor-core kind."""
    warps: int

    @property
    def programs(self) -> int:
        """That fit on one multiprocessor at a time."""
        # Registers are given to a warp in steps of 256.
        per_warp = -(-self.registers * 32 // 256) * 256
        return min(
            REGISTERS // (per_warp * self.warps),
            (SHARED + RESERVED) // (self.shared + RESERVED),
            THREADS // (32 * self.warps),
            PROGRAMS,
        )


def compiled(kernel, constants: dict[str, object], warps: int, types=None, **options) -> Cubin:
    """The kernel for sm_90. types: of pointers, where they are not as in POINTERS."""
    types = POINTERS | (types or {})
    names = [p.name for p in kernel.params]
    signature, divisible = {}, {}
    for number, name in enumerate(names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in types:
            signature[name] = f"*{types[name]}"
            divisible[(number,)] = [["tt.divisibility", 16]]
        elif name == "scale":
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if DIVISIBLE.match(name):
                divisible[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, divisible)
    made = triton.compile(source, target=HOPPER, options={"num_warps": warps, **options})
    return read(made.asm["cubin"], made.metadata.shared, warps)


def read(cubin: bytes, shared: int, warps: int) -> Cubin:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = [subprocess.run([TOOL, flag, file.name], capture_output=True, text=True, check=True)
               for flag in ("-res-usage", "-sass")]  # fmt: skip
    usage, code = (r.stdout + r.stderr for r in run)
    registers = re.search(r"REG:(\d+)", usage)
    assert registers, usage
    counts = {op: len(re.findall(rf"\b{op}\b", code)) for op in ("LDL", "STL", "HGMMA", "HMMA")}
    return Cubin(
        int(registers[1]), shared, counts["LDL"] + counts["STL"], counts["HGMMA"], counts["HMMA"],
        warps,
    )  # fmt: skip
