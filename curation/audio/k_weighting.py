"""Fast recursive filters: blocks of samples by matrix products instead of one sample at a time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 32
GROUP = 16
AT_ONCE = 800  # blocks: a million multiplications, beyond which OpenBLAS copies what it is given


class BlockFilter:
    """Second-order sections over a stream of channels, four times as fast as scipy's sosfilt.

    A linear filter maps BLOCK samples and its state before them to BLOCK samples and its state
    after: two small matrices, made by sosfilt itself. States are carried in float64, samples
    filtered in float32: 85 dB below their peak, and mostly 100, they differ from sosfilt
    in float64.
    """

    def __init__(self, sos: np.ndarray, channels: int):
        from scipy.signal import sosfilt  # slow to import, and a dry run needs none

        self._sos, self._sosfilt = sos, sosfilt
        self._out = np.empty((0, 0), np.float32)
        size = 2 * len(sos)
        self._state = np.zeros((channels, size))
        impulses, states = np.eye(BLOCK), np.eye(size)
        zero = np.zeros((BLOCK, BLOCK))
        per_impulse, after = self._filtered(impulses, np.zeros((BLOCK, size)))
        per_state, self._carry = self._filtered(zero[:size], states)
        self._after = after.astype(np.float32)
        self._matrix = np.concatenate((per_impulse, per_state)).astype(np.float32)
        self._known = np.empty((AT_ONCE, len(self._matrix)), np.float32)

    def _filtered(self, rows: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """sosfilt of [rows, n] from states [rows, size], and the states after it."""
        shaped = states.reshape(len(rows), len(self._sos), 2).transpose(1, 0, 2)
        heard, end = self._sosfilt(self._sos, rows, zi=shaped)
        return heard, end.transpose(1, 0, 2).reshape(len(rows), -1)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 [channels, n], filtered, in memory that the next call uses again."""
        count = samples.shape[1]
        blocks = count // BLOCK
        whole = blocks * BLOCK
        if self._out.shape != samples.shape:
            self._out = np.empty(samples.shape, np.float32)
        out = self._out
        if blocks:
            rows = [channel[:whole].reshape(blocks, BLOCK) for channel in samples]
            gains = np.stack([row @ self._after for row in rows]).astype(np.float64)
            states = scan(self._carry, gains, self._state)
            self._state = states[:, -1].copy()
            for row, state, place in zip(rows, states, out, strict=True):
                found = place[:whole].reshape(blocks, BLOCK)
                for low in range(0, blocks, AT_ONCE):
                    known = self._known[: len(row[low : low + AT_ONCE])]
                    high = low + len(known)
                    known[:, :BLOCK] = row[low:high]
                    known[:, BLOCK:] = state[low:high]
                    np.matmul(known, self._matrix, out=found[low:high])
        if whole < count:
            rest = samples[:, whole:].astype(np.float64)
            out[:, whole:], self._state = self._filtered(rest, self._state)
        self._state[np.abs(self._state) < 1e-30] = 0  # denormal numbers are slow
        return out


def scan(carry: np.ndarray, gains: np.ndarray, start: np.ndarray) -> np.ndarray:
    """float64 [channels, n + 1, size]: s[0] = start, s[i + 1] = s[i] @ carry + gains[:, i].

    carry: [size, size]; gains: [channels, n, size]; start: [channels, size]. In groups, whose ends
    are scanned first.
    """
    channels, count, size = gains.shape
    found = np.empty((channels, count + 1, size))
    if count <= GROUP:
        found[:, 0] = start
        for i in range(count):
            found[:, i + 1] = found[:, i] @ carry + gains[:, i]
        return found
    groups = count // GROUP + 1
    padded = np.zeros((channels, groups * GROUP, size))
    padded[:, :count] = gains
    known = np.empty((channels, groups, (GROUP + 1) * size))
    known[..., size:] = padded.reshape(channels, groups, -1)
    last, within = _group(carry.tobytes(), size)
    ends = known[..., size:] @ within[size:, -size:]
    known[..., :size] = scan(last, ends[:, :-1], start)
    inside = known @ within[:, :-size]
    return inside.reshape(channels, groups * GROUP, size)[:, : count + 1]


@lru_cache(maxsize=256)
def _group(carry: bytes, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(carry over a whole group, [(1 + GROUP) * size] squared: states within it from its start and
    gains).
    """
    powers = [np.eye(size)]
    for _ in range(GROUP):
        powers.append(powers[-1] @ np.frombuffer(carry).reshape(size, size))
    found = np.zeros((GROUP + 1, size, GROUP + 1, size))
    for place in range(GROUP + 1):
        found[0, :, place] = powers[place]
        for gain in range(place):
            found[gain + 1, :, place] = powers[place - 1 - gain]
    return powers[GROUP], found.reshape((GROUP + 1) * size, (GROUP + 1) * size)
