"""CPU seconds that the audio facts cost per minute of sound, and what each stage adds.

    python benchmarks/audio_facts.py [--repeat 5] [--json OUT] [--juicer PYTHON] FILE...

Three ways through every file, CPU seconds of all threads, one after the other in every round:

    decode       the shared decode alone
    facts        with every AudioStage of the audio recipe that runs no network
    facts + VAD  and with those that run silero-vad (Voice, Chunks)

The targets: facts <= 0.6 CPU seconds per minute of sound, and facts at least 20 times cheaper than
the peer's SNR filter alone (data-juicer's audio_nmf_snr_filter: librosa, non-negative matrix
factorisation, 500 iterations) on the same file. PYTHON is an interpreter that has py-data-juicer,
librosa and soundfile; the filter's own functions are run there, on one thread, in the same rounds,
with what its users pay too: the file read and mixed down at its own rate (by soundfile, and what
that does not read by FFmpeg, through PyAV, as its torchcodec does). Imports are left out. Medians
and ranges are over the rounds, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from reelmill.curation.recipes import audio
from reelmill.curation.stage import AudioStage
from reelmill.datasets.media.decode import decode, probe

THEIRS = """
import ast, sys, time
from importlib.util import find_spec
from pathlib import Path
import librosa, librosa.decompose, numpy as np, soundfile
home = Path(find_spec("data_juicer").origin).parent
source = (home / "ops" / "filter" / "audio_nmf_snr_filter.py").read_text()
tree = ast.parse(source)  # its two functions, without the package's other needs
tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
names = {"np": np, "librosa": librosa, "decompose": librosa.decompose}
exec(compile(tree, "audio_nmf_snr_filter", "exec"), names)
names["compute_nmf_snr"](np.random.default_rng(0).normal(size=8000), 2)  # warm
sys.path.append(sys.argv[1])
import av

def read(path):
    try:
        return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    except soundfile.LibsndfileError:
        with av.open(path) as container:
            parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(parts, axis=1).mean(axis=0)

for line in sys.stdin:
    start = time.process_time()
    names["compute_nmf_snr"](read(line.rstrip()), 500)
    print(time.process_time() - start, flush=True)
"""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class Peer:
    """data-juicer's filter in a process of its own."""

    def __init__(self, python: Path):
        home = str(Path(av.__file__).parent.parent)
        self._process = subprocess.Popen(
            [str(python), "-c", THEIRS, home],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, path: Path) -> float:
        """CPU seconds of the filter on a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path.resolve()}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def cpu_seconds(path: Path, stages: Sequence[AudioStage], repeat: int = 0) -> tuple[float, float]:
    """Best CPU seconds of 1 + `repeat` passes with these stages, and the seconds of sound."""
    info = probe(path)
    assert info.audio is not None
    best, seconds = float("inf"), 0.0
    for _ in range(repeat + 1):
        began = time.process_time()
        analysers = [stage.open(info) for stage in stages]

        def on_audio(block, analysers=analysers) -> None:
            for analyser in analysers:
                analyser.block(block)

        summary = decode(path, info, on_audio=on_audio)
        for analyser in analysers:
            analyser.finish(summary)
        best = min(best, time.process_time() - began)
        seconds = summary.samples / info.audio.rate
    return best, seconds


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--juicer", type=Path, help="python with py-data-juicer and librosa")
    options = parser.parse_args()
    stages = [s for s in audio().stages if isinstance(s, AudioStage)]
    plain = [s for s in stages if not s.resources.weights]
    snr = [s for s in plain if s.name == "Noise"]
    peer = Peer(options.juicer) if options.juicer else None
    cpu_seconds(options.files[0], stages)  # loads libraries
    rows = []
    for path in options.files:
        minute = 60 / cpu_seconds(path, stages)[1]
        rounds: dict[str, list[float]] = {}
        for _ in range(options.repeat):
            ways = {"decode": [], "facts": plain, "facts_and_vad": stages, "snr": snr}
            took = {way: cpu_seconds(path, some)[0] * minute for way, some in ways.items()}
            took["on_top_of_decode"] = took["facts"] - took["decode"]
            if peer:
                theirs = took["peer"] = peer.seconds(path) * minute
                took["times_cheaper"] = theirs / took["facts"]
                took["snr_alone_times_cheaper"] = theirs / took["snr"]
            for way, value in took.items():
                rounds.setdefault(way, []).append(value)
        row: dict[str, Any] = {"file": path.name, "seconds": round(60 / minute, 2)}
        row |= {k: spread(v, 1 if "times" in k else 3) for k, v in rounds.items()}
        bare = min(rounds["decode"])
        row["stages"] = {
            s.name: round(cpu_seconds(path, [s], options.repeat)[0] * minute - bare, 3)
            for s in stages
        }
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    if peer:
        peer.close()
    result = {"machine": platform.processor() or platform.machine(), "cpu_s_per_minute": rows}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
