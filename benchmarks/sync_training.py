"""Trains a SyncNet on drawn faces that speak real sentences, and measures it on others.

    python benchmarks/sync_training.py FOLDER --train SOUND... --held-out SOUND... [--real VIDEO...]

Sounds are any media with speech; those held out should be of other voices. Each stretch of 4 s with
speech becomes a clip of its own face. FOLDER takes the clips and the network. The face detector is
that of REELMILL_WEIGHTS. --real: films of people in sync, measured by the same network too.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from reelmill.curation.lips.examples import read_examples
from reelmill.curation.lips.sync_training import SyncOptions, measure_sync, train_sync
from reelmill.curation.models import mouth_sync
from reelmill.curation.models.silero import RATE, SpeechProbability, speech_spans
from reelmill.curation.models.weights import Weights
from reelmill.curation.models.yunet import YuNet
from reelmill.datasets.corpus.talker import Talker, mouth_of
from reelmill.datasets.media.decode import decode_audio, probe
from reelmill.datasets.media.encode import write_video

SECONDS = 4
LEAST_SPEECH = 0.6


def read_speech(path: Path) -> np.ndarray:
    """Mono float32 at 16 kHz."""
    return np.concatenate([block.mono16k for block in decode_audio(path, probe(path))])


def make_clips(sounds: list[Path], folder: Path, *, step: float, most: int, seed: int) -> int:
    """Clips of drawn faces, `most` of each sound; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    for path in sounds:
        sound = read_speech(path)
        probability = SpeechProbability()
        probability.push(sound)
        speech = np.zeros(len(sound), np.float32)
        for first, last in speech_spans(probability.finish(), len(sound)):
            speech[first:last] = 1
        of_this = 0
        for start in range(0, len(sound) - SECONDS * RATE + 1, round(step * RATE)):
            part = slice(start, start + SECONDS * RATE)
            if speech[part].mean() < LEAST_SPEECH or of_this == most:
                continue
            said = sound[part] * 0.7 / max(1e-3, float(np.abs(sound[part]).max()))
            frames = Talker(seed + made).frames(mouth_of(said, RATE))
            out = folder / f"{path.stem}_{of_this}.mp4"
            write_video(out, frames, fps=25, audio=said[None], audio_rate=RATE, crf=23)
            of_this, made = of_this + 1, made + 1
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    clips, others = given.folder / "clips", given.folder / "held_out"
    for folder, sounds, step, most, seed in (
        (clips, given.train, 2.0, 10, 0),
        (others, given.held_out, 4.0, 100, 10_000),
    ):
        if not folder.is_dir():
            print(
                f"{make_clips(sounds, folder, step=step, most=most, seed=seed)} clips in {folder}"
            )
    start = time.process_time()
    options = SyncOptions(
        (clips,), given.folder / "syncnet", (others,), steps=given.steps, threads=1
    )
    result = train_sync(options)
    print(json.dumps(asdict(result), default=str, indent=1))
    print(f"{time.process_time() - start:.0f} CPU seconds")
    if given.real:
        weights = Weights().path("face_yunet")
        assert weights is not None
        found = read_examples(given.real, YuNet(weights)).found
        network = mouth_sync.load(given.folder / "syncnet")
        print(f"real clips: {json.dumps(asdict(measure_sync(network, found)), indent=1)}")


if __name__ == "__main__":
    main()
