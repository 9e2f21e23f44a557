"""Reading latent shards in random order: samples a second, time to the first batch, and to resume.

    python benchmarks/loader.py [--samples 20000] [--shape 16 4 8 16] [--batch 32] [--repeat 3]
                                [--peers PYTHON]

The same made samples (float16 video latents of --shape, and a little audio and text), in the page
cache of one machine, one process each, in turns. Everyone gives batches of decoded arrays:

    sequential   the tars read from front to back, nothing looked at: the limit of the medium
    indexed      our index in a random order, bytes checked against their crc32, nothing decoded
    ours         datasets/loader.py: global order, batches by bucket, checked, decoded, float32

and with PYTHON, an interpreter that has them (webdataset, mosaicml-streaming, litdata, safetensors,
numpy):

    webdataset   the same tars, shards shuffled, a shuffle buffer of 1000; it cannot resume, so it
                 reads what comes before and throws it away
    streaming    MosaicML's, samples in its own format (MDS, made first), shuffled
    litdata      samples in its own format (made first), shuffled

resume: a new process's loader gives the batch at 70 % of the epoch. Imports do not count.

Claims: ours at least 0.9 x indexed; the first to resume by 10 x.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

OURS = ("sequential", "indexed", "ours")
PEERS = ("webdataset", "streaming", "litdata")
PER_TAR = 1000
PEER = Path(__file__).with_name("loader_peers.py")
RESUME = 0.7


def make(folder: Path, samples: int, shape: tuple[int, ...]) -> None:
    from reelmill.datasets.latents import LatentSample, PartWriter, finish

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    parts = []
    for first in range(0, samples, PER_TAR):
        writer = PartWriter(folder, f"part-{first:08d}", "made")
        for n in range(first, min(first + PER_TAR, samples)):
            video, audio, text = (
                rng.standard_normal(of, np.float32).astype(np.float16)
                for of in (shape, (20, 32), (8, 64))
            )
            meta = {"clip": f"{n:08d}", "asset": f"{n:08d}", "caption": f"clip {n}", "fps": 24.0}
            meta |= {"frames": 13, "height": 64, "width": 128, "has_audio": True}
            writer.add(LatentSample(f"{n:08d}", f"{n:08d}", video, audio, text, meta))
        writer.commit()
        parts.append(writer.part)
    constants = {"null_text": np.zeros((1, 64), np.float32)}
    finish(
        folder, parts, video="v", audio="a", text="t", sources={}, options={}, constants=constants
    )


def sequential(folder: Path, batch: int, start: int) -> Iterator[int]:
    samples = 0
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
        samples = PER_TAR
        yield samples


def indexed(folder: Path, batch: int, start: int) -> Iterator[int]:
    from reelmill.datasets.latents import LatentDataset

    with LatentDataset(folder) as data:
        order = np.random.default_rng(1).permutation(len(data)).tolist()
        columns = {n: data.column(n) for n in data.rows.column_names}
        files = {p: os.open(folder / f"{p}.tar", os.O_RDONLY) for p in set(columns["part"])}
        for first in range(start * batch, len(order), batch):
            rows = order[first : first + batch]
            for row in rows:
                for name in ("data", "meta"):
                    bytes_ = os.pread(
                        files[columns["part"][row]],
                        columns[f"{name}_bytes"][row],
                        columns[f"{name}_offset"][row],
                    )
                    assert zlib.crc32(bytes_) == columns[f"{name}_crc32"][row]
            yield len(rows)


def ours(folder: Path, batch: int, start: int) -> Iterator[int]:
    from reelmill.datasets.latents import LatentDataset
    from reelmill.datasets.loader import Loader, make_pools
    from reelmill.datasets.mixture import Mixture

    with LatentDataset(folder) as data:
        pools = {"t2av": make_pools(data, np.ones(len(data), dtype=bool))}
        loader = Loader(data, Mixture({"t2av": 1.0}, pools, batch, 1))
        for one in loader.batches(start, len(data) // batch):
            yield len(one.keys)


def run(name: str, folder: Path, batch: int, start: int) -> dict[str, float]:
    """first: seconds to the first batch. rate: samples a second of an epoch."""
    import reelmill.datasets.latents
    import reelmill.datasets.loader  # noqa: F401 - imports do not count

    begin = time.perf_counter()
    batches = {"sequential": sequential, "indexed": indexed, "ours": ours}[name](
        folder / "latents", batch, start
    )
    seen = next(batches)
    first = time.perf_counter() - begin
    seen += sum(batches) if not start else 0
    return {"first": first, "rate": seen / (time.perf_counter() - begin), "seen": seen}


def measured(given: argparse.Namespace, name: str, folder: Path, start: int) -> dict[str, float]:
    numbers = [str(given.batch), str(start)]
    if name in OURS:
        command = [sys.executable, __file__, "--job", name, str(folder), *numbers]
    else:
        resume = str(int(RESUME * given.samples / given.batch))
        command = [given.peers, str(PEER), "run", name, str(folder), *numbers, resume]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(given: argparse.Namespace, folder: Path) -> None:
    names = [*OURS, *(PEERS if given.peers else ())]
    start = int(RESUME * given.samples / given.batch)
    for name in [n for n in names if n in PEERS and n != "webdataset"]:
        command = [given.peers, str(PEER), "make", name, str(folder), str(given.batch), "0"]
        subprocess.run(command, check=True)
    found: dict[str, dict[str, list[float]]] = {n: {} for n in names}
    versions = {}
    for _ in range(given.repeat):
        for name in names:
            whole = measured(given, name, folder, 0)
            versions[name] = str(whole.pop("version", ""))
            assert whole["seen"] >= given.samples // given.batch * given.batch, (name, whole)
            for key in ("rate", "first"):
                found[name].setdefault(key, []).append(whole[key])
            if name != "sequential":
                resumed = measured(given, name, folder, start)["first"]
                found[name].setdefault("resume", []).append(resumed)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{given.samples} samples, batches of {given.batch}, median of {given.repeat}")
    print(f"{'':22}{'samples/s':>12}{'first batch':>14}{'resume at 70 %':>16}")
    for name in names:
        middle = {key: statistics.median(values) for key, values in found[name].items()}
        resume = f"{middle['resume']:.3f} s" if "resume" in middle else ""
        label = f"{name} {versions[name]}".strip()
        print(f"{label:22}{middle['rate']:12,.0f}{middle['first']:12.3f} s{resume:>16}")
    rate = {n: statistics.median(found[n]["rate"]) for n in names}
    print(f"\nours / indexed = {rate['ours'] / rate['indexed']:.2f}, target 0.9")
    middle = statistics.median(found["ours"]["resume"])
    for name in names[len(OURS) :]:
        again = statistics.median(found[name]["resume"]) / middle
        faster = rate["ours"] / rate[name]
        print(f"ours / {name}: {faster:.2f} x the samples/s; it resumes in {again:.1f} x our time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--shape", type=int, nargs=4, default=[16, 4, 8, 16])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peers", help="an interpreter that has the other loaders")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        name, folder, batch, start = given.job
        print(json.dumps(run(name, Path(folder), int(batch), int(start))))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "latents", given.samples, tuple(given.shape))
        compare(given, Path(folder))


if __name__ == "__main__":
    main()
