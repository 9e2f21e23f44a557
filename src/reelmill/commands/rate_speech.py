"""DNSMOS as an adapter of `reelmill evaluate`: `python -m ... MANIFEST SCORES`, in its own process.

Rates speech only: a clip whose prompt asks for none, or without sound, gets no score. The networks
are those of the speechmos package, or of the folder that REELMILL_WEIGHTS names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from reelmill.curation.models.dnsmos import DNSMOS, RATE
from reelmill.curation.models.weights import Weights
from reelmill.datasets.media.decode import decode_audio, probe
from reelmill.errors import MediaError, WeightsError

NAMES = ("DNSMOSSignal", "DNSMOSBackground", "DNSMOSOverall")


def sound(path: Path) -> np.ndarray:
    """float32 [n] at 16 kHz, the mean of all channels; empty without sound. Raises MediaError."""
    info = probe(path)
    if info.audio is None:
        return np.zeros(0, np.float32)
    blocks = [block.samples for block in decode_audio(path, info)]
    mono = np.concatenate(blocks, axis=1).mean(axis=0) if blocks else np.zeros(0)
    return resample_poly(mono, RATE, info.audio.rate).astype(np.float32) if len(mono) else mono


def rated(row: dict[str, Any], dnsmos: DNSMOS) -> list[float] | str:
    """The three scores, or why there are none. Raises MediaError."""
    if row.get("text") is not None and not row.get("dialogue"):
        return "the prompt asks for no dialogue"
    samples = sound(Path(row["path"]))
    if len(samples) < RATE // 2 or np.abs(samples).max() < 1e-3:
        return "no sound of half a second"
    return [float(score) for score in np.clip(dnsmos([samples])[0], 1, 5)]


def main() -> None:
    manifest, scores = map(Path, sys.argv[1:3])
    folder = Weights().path("dnsmos")
    if folder is None:
        raise WeightsError("weights 'dnsmos' are absent; `reelmill weights fetch dnsmos`.")
    dnsmos = DNSMOS(folder)
    with scores.open("w", encoding="utf-8") as file:
        for line in manifest.read_text("utf-8").splitlines():
            row = json.loads(line)
            try:
                found = rated(row, dnsmos)
            except MediaError as error:
                print(f"{row['path']}: {error}", file=sys.stderr)
                continue
            for i, name in enumerate(NAMES):
                told: dict[str, Any] = {"key": row["key"], "metric": name}
                told |= (
                    {"value": None, "why": found} if isinstance(found, str) else {"value": found[i]}
                )
                file.write(json.dumps(told) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
