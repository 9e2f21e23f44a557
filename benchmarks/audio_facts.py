"""CPU seconds that the audio facts cost per minute of sound, and what each stage adds.

    python benchmarks/audio_facts.py [--repeat 3] [--json OUT] FILE...

Three ways through every file, CPU seconds of all threads, best of the repeats:

    decode       the shared decode alone
    facts        with every AudioStage of the audio recipe that runs no network
    facts + VAD  and with those that run silero-vad (Voice, Chunks)

The claim is facts <= 0.6 CPU seconds per minute of sound. The peer's own SNR filter (data-juicer's
audio_nmf_snr_filter: librosa, non-negative matrix factorisation, 500 iterations) is not run here:
its package is no dependency of this project.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from reelmill.curation.recipes import audio
from reelmill.curation.stage import AudioStage
from reelmill.datasets.media.decode import decode, probe


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
    options = parser.parse_args()
    stages = [s for s in audio().stages if isinstance(s, AudioStage)]
    plain = [s for s in stages if not s.resources.weights]
    rows = []
    for path in options.files:
        bare, seconds = cpu_seconds(path, [], options.repeat)
        minute = 60 / seconds
        row: dict[str, object] = {"file": path.name, "seconds": round(seconds, 2)}
        row["decode"] = round(bare * minute, 3)
        row["facts"] = round(cpu_seconds(path, plain, options.repeat)[0] * minute, 3)
        row["facts_and_vad"] = round(cpu_seconds(path, stages, options.repeat)[0] * minute, 3)
        row["stages"] = {
            s.name: round((cpu_seconds(path, [s], options.repeat)[0] - bare) * minute, 3)
            for s in stages
        }
        rows.append(row)
        print(json.dumps(row, indent=1))
    result = {"machine": platform.processor() or platform.machine(), "cpu_s_per_minute": rows}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
