"""What benchmarks/loader.py runs in an interpreter that has the other loaders, and not Reelmill.

    PYTHON benchmarks/loader_peers.py make|run NAME FOLDER BATCH START

make: brings the samples of FOLDER/latents/*.tar into the loader's own format. run: one epoch, or,
where START is above 0, the batch that comes after START others. Prints JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.numpy

PACKAGES = {
    "webdataset": "webdataset",
    "streaming": "mosaicml-streaming",
    "litdata": "litdata",
}


def stack(payloads: list[bytes]) -> dict[str, np.ndarray]:
    samples = [safetensors.numpy.load(bytes(data)) for data in payloads]
    return {k: np.stack([s[k] for s in samples]).astype(np.float32) for k in samples[0]}


def of_data(rows: list[dict[str, bytes]]) -> dict[str, np.ndarray]:
    return stack([row["data"] for row in rows])


def tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in (folder / "latents").glob("*.tar"))


def payloads(folder: Path) -> Iterator[bytes]:
    for path in tars(folder):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".safetensors"):
                    yield tar.extractfile(member).read()


def make(name: str, folder: Path) -> None:
    if name == "streaming":
        from streaming import MDSWriter

        columns = {"data": "bytes"}
        with MDSWriter(out=str(folder / name), columns=columns, hashes=["xxh64"]) as out:
            for data in payloads(folder):
                out.write({"data": data})
    if name == "litdata":
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(folder / name), chunk_bytes="64MB")
        for number, data in enumerate(payloads(folder)):
            writer[number] = {"data": data}
        writer.done()
        writer.merge()


def webdataset_batches(folder: Path, batch: int, start: int) -> Iterator[dict[str, np.ndarray]]:
    import webdataset

    made = webdataset.WebDataset(tars(folder), shardshuffle=100, seed=1).shuffle(1000)
    rows = made.to_tuple("safetensors")
    batches = rows.batched(batch, collation_fn=lambda rows: stack([row[0] for row in rows]))
    for number, one in enumerate(batches):
        if number >= start:
            yield one


def streaming_batches(folder: Path, batch: int, start: int) -> Iterator[dict[str, np.ndarray]]:
    from streaming import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(
        local=str(folder / "streaming"), shuffle=True, shuffle_seed=1, batch_size=batch
    )
    made = StreamingDataLoader(data, batch_size=batch, collate_fn=of_data)
    state = folder / "streaming.json"
    if start:
        made.load_state_dict(json.loads(state.read_text()))
    for number, one in enumerate(made):
        if not start and number == int(sys.argv[6]):
            state.write_text(json.dumps(made.state_dict()))
        yield one


def litdata_batches(folder: Path, batch: int, start: int) -> Iterator[dict[str, np.ndarray]]:
    import litdata

    data = litdata.StreamingDataset(str(folder / "litdata"), shuffle=True, seed=1)
    made = litdata.StreamingDataLoader(data, batch_size=batch, collate_fn=of_data)
    state = folder / "litdata.json"
    if start:
        made.load_state_dict(json.loads(state.read_text()))
    for number, one in enumerate(made):
        if not start and number == int(sys.argv[6]):
            state.write_text(json.dumps(made.state_dict()))
        yield one


def main() -> None:
    job, name, folder, batch, start = sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:6]
    if job == "make":
        make(name, folder)
        return
    batches_of = {
        "webdataset": webdataset_batches,
        "streaming": streaming_batches,
        "litdata": litdata_batches,
    }[name]
    importlib.import_module(name)  # imports do not count
    begin = time.perf_counter()
    batches = batches_of(folder, int(batch), int(start))
    seen = len(next(batches)["video"])
    first = time.perf_counter() - begin
    if not int(start):
        seen += sum(len(one["video"]) for one in batches)
    rate = seen / (time.perf_counter() - begin)
    told = {"first": first, "rate": rate, "seen": seen, "version": version(PACKAGES[name])}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
