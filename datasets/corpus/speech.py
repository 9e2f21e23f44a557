"""Speech, where espeak-ng is installed. Nothing depends on it: without it there is none."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

PROGRAM = "espeak-ng"
SENTENCES = (
    "The red circle rolls to the left wall, and the blue square follows it.",
    "Please count the tones that you hear, and write the number down.",
)
LEVEL_DBFS = -20.0
TIMEOUT_S = 30


def speaker() -> tuple[bool, str]:
    """Whether speech can be made, and a line that says by what, or why not."""
    program = shutil.which(PROGRAM)
    if program is None:
        return False, f"{PROGRAM} is not installed: no spoken files were made"
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return False, f"{PROGRAM} does not run ({error}): no spoken files were made"
    return True, said.stdout.strip().split("  ")[0]


def speak(sentence: str, rate: int) -> np.ndarray | None:
    """A sentence in English, float32 [1, samples] at -20 dBFS; None where it cannot be made."""
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        try:
            subprocess.run(
                [program, "-v", "en", "-s", "150", "-w", str(path), "--", sentence],
                capture_output=True,
                timeout=TIMEOUT_S,
                check=True,
            )
            with wave.open(str(path)) as file:
                own = file.getframerate()
                raw = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        except (OSError, subprocess.SubprocessError, wave.Error):
            return None
    if not raw.any():
        return None
    t = np.arange(len(raw) * rate // own) * (own / rate)
    voice = np.interp(t, np.arange(len(raw)), raw / 32768.0)
    voice *= 10 ** (LEVEL_DBFS / 20) / voice.std()
    return (voice * min(1.0, 0.95 / float(np.abs(voice).max())))[None].astype(np.float32)
