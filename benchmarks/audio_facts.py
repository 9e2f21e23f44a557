"""CPU seconds that the audio facts cost per minute of sound, and what each stage adds.

    python benchmarks/audio_facts.py [--repeat 3] [--json OUT] [--juicer PYTHON] FILE...

Three ways through every file, CPU seconds of all threads, best of the repeats:

    decode       the shared decode alone
    facts        with every AudioStage of the audio recipe that runs no network
    facts + VAD  and with those that run silero-vad (Voice, Chunks)

The targets: facts <= 0.6 CPU seconds per minute of sound, and facts at least 20 times cheaper than
the peer's SNR filter alone (data-juicer's audio_nmf_snr_filter: librosa, non-negative matrix
factorisation, 500 iterations) on the same file. PYTHON is an interpreter that has py-data-juicer,
librosa and soundfile; the filter's own function is run there, on one thread, reading the file at
its own rate included, imports not; best of the repeats too. A file that soundfile does not read
(AAC) is given to it as WAV, so that its decoding costs the peer nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.curation.recipes import audio
from reelmill.curation.stage import AudioStage
from reelmill.datasets.media.decode import decode, decode_audio, probe
from reelmill.datasets.media.encode import write_audio

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
best = float("inf")
for _ in range(int(sys.argv[2])):
    start = time.process_time()
    sound, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
    names["compute_nmf_snr"](sound.mean(axis=1), 500)
    best = min(best, time.process_time() - start)
print(best)
"""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


def nmf_seconds(python: Path, path: Path, repeat: int) -> float:
    """CPU seconds of data-juicer's filter on a file, given to it as WAV."""
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "sound.wav"
        info = probe(path)
        assert info.audio is not None
        blocks = [block.samples for block in decode_audio(path, info)]
        write_audio(wav, np.concatenate(blocks, axis=1), info.audio.rate, codec="pcm_s16le")
        run = subprocess.run(
            [str(python), "-c", THEIRS, str(wav), str(repeat)],
            env=os.environ | ONE_THREAD,
            capture_output=True,
            text=True,
            check=True,
        )
    return float(run.stdout.split()[0])


def cpu_seconds(path: Path, stages: Sequence[AudioStage], repeat: int) -> tuple[float, float]:
    """Best CPU seconds of a pass with these stages, and the seconds of sound in the file."""
    info = probe(path)
    assert info.audio is not None
    best, seconds = float("inf"), 0.0
    for _ in range(repeat + 1):  # the first pass loads libraries
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--juicer", type=Path, help="python with py-data-juicer and librosa")
    options = parser.parse_args()
    stages = [s for s in audio().stages if isinstance(s, AudioStage)]
    plain = [s for s in stages if not s.resources.weights]
    rows = []
    for path in options.files:
        bare, seconds = cpu_seconds(path, [], options.repeat)
        minute = 60 / seconds
        row: dict[str, Any] = {"file": path.name, "seconds": round(seconds, 2)}
        row["decode"] = round(bare * minute, 3)
        row["facts"] = round(cpu_seconds(path, plain, options.repeat)[0] * minute, 3)
        row["facts_and_vad"] = round(cpu_seconds(path, stages, options.repeat)[0] * minute, 3)
        row["stages"] = {
            s.name: round((cpu_seconds(path, [s], options.repeat)[0] - bare) * minute, 3)
            for s in stages
        }
        if options.juicer:
            theirs = nmf_seconds(options.juicer, path, options.repeat) * minute
            row["nmf_snr"] = round(theirs, 3)
            row["times_cheaper"] = round(theirs / row["facts"], 1)
            snr = row["stages"]["Noise"] + row["decode"]
            row["snr_alone_times_cheaper"] = round(theirs / snr, 1)
        rows.append(row)
        print(json.dumps(row, indent=1))
    result = {"machine": platform.processor() or platform.machine(), "cpu_s_per_minute": rows}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
