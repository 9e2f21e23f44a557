"""Silero VAD over a stream: speech probability per 32 ms, and the spans that follow from it.

The network and its rules are those of the silero-vad package (MIT), whose ONNX file is run here
directly: the package's own front end loads torch, and wants the whole sound at once.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime

RATE = 16_000
WINDOW = 512
_CONTEXT = 64
_WINDOWS_A_RUN = 128


@cache
def _session() -> onnxruntime.InferenceSession:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package silero-vad, which brings the VAD's weights")
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(path, single_thread(), ["CPUExecutionProvider"])


def single_thread() -> onnxruntime.SessionOptions:
    """Options for a worker that has one core."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return options


class SpeechProbability:
    """Probability of speech in each window of 512 samples of 16 kHz mono sound, in streaming."""

    def __init__(self) -> None:
        self._hidden = np.zeros((1, 1, 128), np.float32)
        self._cell = np.zeros((1, 1, 128), np.float32)
        self._row = np.zeros(_CONTEXT, np.float32)  # what the next run begins with
        self._found: list[np.ndarray] = []
        self.samples = 0

    def push(self, mono: np.ndarray) -> None:
        """Takes float32 [n]."""
        self.samples += len(mono)
        self._row = np.concatenate((self._row, mono))
        while len(self._row) - _CONTEXT >= _WINDOWS_A_RUN * WINDOW:
            self._run(_WINDOWS_A_RUN)

    def finish(self) -> np.ndarray:
        """float32 [windows]. The last window is filled up with silence."""
        left = max(0, -(-(len(self._row) - _CONTEXT) // WINDOW))
        if left:
            self._row = np.pad(self._row, (0, _CONTEXT + left * WINDOW - len(self._row)))
            self._run(left)
        return np.concatenate(self._found) if self._found else np.zeros(0, np.float32)

    def _run(self, windows: int) -> None:
        views = np.lib.stride_tricks.sliding_window_view(self._row, _CONTEXT + WINDOW)
        batch = np.ascontiguousarray(views[: windows * WINDOW : WINDOW])
        feeds = {"input": batch, "h": self._hidden, "c": self._cell}
        found, self._hidden, self._cell = _session().run(["speech_probs", "hn", "cn"], feeds)
        self._found.append(found.reshape(-1))
        self._row = self._row[windows * WINDOW :]


def speech_spans(
    probability: np.ndarray,
    samples: int,
    *,
    threshold: float = 0.5,
    min_speech_ms: int = 250,
    min_silence_ms: int = 100,
    pad_ms: int = 30,
) -> np.ndarray:
    """int64 [spans, 2]: [first, last) samples of speech at 16 kHz.

    Rules and defaults of silero-vad's get_speech_timestamps without a maximum length: speech begins
    at `threshold` and ends when the probability stays 0.15 below it for `min_silence_ms`; shorter
    speech than `min_speech_ms` is dropped; spans are widened by `pad_ms`, or until they meet.
    """
    min_speech, min_silence = RATE * min_speech_ms / 1000, RATE * min_silence_ms / 1000
    pad, leave = RATE * pad_ms // 1000, max(threshold - 0.15, 0.01)
    spans: list[list[int]] = []
    start = end = -1
    for window in np.flatnonzero((probability >= threshold) | (probability < leave)).tolist():
        at = window * WINDOW
        if probability[window] >= threshold:
            start, end = (at if start < 0 else start), -1
        elif start >= 0:
            end = at if end < 0 else end
            if at - end >= min_silence:
                if end - start > min_speech:
                    spans.append([start, end])
                start = end = -1
    if start >= 0 and samples - start > min_speech:
        spans.append([start, samples])
    for here, following in pairwise(spans):
        gap = following[0] - here[1]
        widen = gap // 2 if gap < 2 * pad else pad
        here[1] += widen
        following[0] -= widen
    if spans:
        spans[0][0] = max(0, spans[0][0] - pad)
        spans[-1][1] = min(samples, spans[-1][1] + pad)
    return np.array(spans, np.int64).reshape(-1, 2)
