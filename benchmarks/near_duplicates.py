"""Near-duplicate groups among synthetic signatures: time, memory, growth, and recall.

    python benchmarks/near_duplicates.py [--signatures 100000 1000000] [--sample 500]

A signature is that of a picture: 64-bit perceptual hashes of it, of its mirror image and of its
inner part, random but for one in fifty, where the first is another one's plain, mirrored or inner
one with 1 to 10 bits turned. The stage
`NearDuplicate` finds the pairs and picks the losers. Every hash of a sample is then compared with
every other, and all pairs found so must be among the stage's.

Targets, for a million on 2 cores: 120 s, 3 GiB, recall 1.0; at most 14 times the time of 100,000.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np

from reelmill.curation.near_duplicate import HASHES, NearDuplicate
from reelmill.curation.stage import FactTable
from reelmill.datasets.sample import Clip, Kind

MOST = 10  # bits, NearDuplicate's


def made(count: int, seed: int = 0) -> np.ndarray:
    """Hashes of pictures, of their mirror images, of their inner parts: uint64 [3, count]."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (3, count), dtype=np.uint64)
    for row in range(0, count - 1, 50):
        bits = rng.choice(64, int(rng.integers(1, MOST + 1)), replace=False)
        turned = np.uint64(sum(1 << int(bit) for bit in bits))
        hashes[0, row + 1] = hashes[row // 50 % 3, row] ^ turned
    return hashes


def table(hashes: np.ndarray) -> FactTable:
    count = hashes.shape[1]
    clips = [
        Clip(f"{n:064x}", Kind.IMAGE, 0, 0, Fraction(1), 0, 0, 1) for n in _ids(count).tolist()
    ]
    rng = np.random.default_rng(1)
    return FactTable(
        clips,
        {
            **{
                name: np.array([f"{h:016x}" for h in row.tolist()], object)
                for name, row in zip(HASHES, hashes, strict=True)
            },
            "phash_ms": np.full(count, "000000", object),
            "source_pixels": rng.integers(1e5, 1e7, count).astype(np.float64),
            "source_bytes": rng.integers(1e4, 1e7, count).astype(np.float64),
        },
    )


def _ids(count: int) -> np.ndarray:
    """Rising numbers whose first 16 of 64 hexadecimal digits differ too."""
    return np.array([n << 192 for n in range(1, count + 1)], object)


def brute(hashes: np.ndarray, sample: np.ndarray) -> set[tuple[int, int]]:
    """Rows a < b of all pairs with one of the sample."""
    pairs: set[tuple[int, int]] = set()
    plain, mirrored, inner = hashes
    for row in sample.tolist():
        near = np.bitwise_count(plain ^ plain[row]) <= MOST
        near[row + 1 :] |= np.bitwise_count(plain[row + 1 :] ^ mirrored[row]) <= MOST
        near[:row] |= np.bitwise_count(mirrored[:row] ^ plain[row]) <= MOST
        near |= np.bitwise_count(plain ^ inner[row]) <= MOST
        near |= np.bitwise_count(inner ^ plain[row]) <= MOST
        near[row] = False
        pairs.update((min(row, n), max(row, n)) for n in np.flatnonzero(near).tolist())
    return pairs


def measure(count: int, sample: int) -> None:
    hashes = made(count)
    facts = table(hashes)
    stage = NearDuplicate()
    start, cpu = time.perf_counter(), time.process_time()
    found = stage.compare(facts)
    searched = time.perf_counter() - start
    lost = stage.select(
        FactTable(facts.clips, facts.columns, findings=found, rows=np.arange(count))
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pairs = set(zip(found["a"].tolist(), found["b"].tolist(), strict=True))
    rows = np.random.default_rng(2).choice(count, min(sample, count), replace=False)
    rows[: len(rows) // 2] = rows[: len(rows) // 2] // 50 * 50  # half of them have a planted copy
    due = brute(hashes, np.unique(rows))
    recall = len(due & pairs) / len(due)
    sampled = set(rows.tolist())
    more = sum(1 for a, b in pairs if (a in sampled or b in sampled) and (a, b) not in due)
    print(
        f"{count:10,} signatures  {searched:7.1f} s search  {seconds:7.1f} s in all"
        f"  {cpu:7.1f} CPU s  {peak:5.2f} GiB  {len(pairs):,} pairs  {len(lost):,} losers  "
        f"recall {recall:.4f} of {len(due)}  {more} not there",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signatures", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--sample", type=int, default=500)
    options = parser.parse_args()
    if len(options.signatures) == 1:
        measure(options.signatures[0], options.sample)
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    for count in options.signatures:  # each in its own process, for the peak of memory
        given = ["--signatures", str(count), "--sample", str(options.sample)]
        subprocess.run([sys.executable, __file__, *given], check=True)


if __name__ == "__main__":
    main()
