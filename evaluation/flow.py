"""How the picture moves: dense optical flow between neighbouring frames, reduced to tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

OCCLUDED_PX = 1.0  # forward and backward flow that disagree by more: hidden or newly seen
SMALLEST_SIDE = 16
STEPS_PER_S = 8.0


@dataclass(frozen=True)
class FlowTrack:
    """Means over the picture; index i is the step from frame i to i + 1. NaN across cuts, and
    where a step was not looked at.

    speed: float64 [n - 1], length of the flow, widths per second. residual: float64 [n - 1], mean
    |difference| in grey levels between frame i and frame i + 1 warped onto it, where both are
    visible. cover: share that is.
    """

    speed: np.ndarray
    residual: np.ndarray
    cover: np.ndarray


def track_flow(gray: np.ndarray, times: np.ndarray, cuts: Sequence[int]) -> FlowTrack:
    """gray: uint8 [n, h, w]; times: seconds [n], rising; cuts: first frames of later shots.

    Of the steps, `STEPS_PER_S` a second are looked at, evenly spread: means over a clip change
    little by more. DIS flow (Kroeger et al. 2016) at its fast preset.
    """
    n = len(gray)
    speed, residual, cover = np.full((3, max(0, n - 1)), np.nan)
    if n < 2:
        return FlowTrack(speed, residual, cover)
    gray = _at_least(gray, SMALLEST_SIDE)
    height, width = gray.shape[1:]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    steps = np.setdiff1d(np.arange(n - 1), np.array(cuts, int) - 1)
    wanted = math.ceil(STEPS_PER_S * float(times[-1] - times[0]))
    for i in steps[np.unique(np.linspace(0, len(steps) - 1, wanted).round().astype(int))]:
        flow = dis.calc(gray[i], gray[i + 1], None)
        back = dis.calc(gray[i + 1], gray[i], None)
        length = float(cv2.mean(cv2.magnitude(*cv2.split(flow)))[0])
        speed[i] = length / float(times[i + 1] - times[i]) / width
        residual[i], cover[i] = _warped(gray[i], gray[i + 1], flow, back, grid)
    return FlowTrack(speed, residual, cover)


def _at_least(gray: np.ndarray, side: int) -> np.ndarray:
    """DIS needs a few pixels: tiny pictures are enlarged."""
    height, width = gray.shape[1:]
    if min(height, width) >= side:
        return gray
    size = (max(side, width), max(side, height))
    return np.stack([cv2.resize(g, size, interpolation=cv2.INTER_NEAREST) for g in gray])


def _warped(
    first: np.ndarray, second: np.ndarray, flow: np.ndarray, back: np.ndarray, grid: np.ndarray
) -> tuple[float, float]:
    """(residual, share visible) as in Lai et al. 2018, with a forward-backward check."""
    where = grid + flow
    drawn = cv2.remap(second, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    there = cv2.remap(back, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    height, width = first.shape
    x, y = cv2.split(where)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    seen = inside & (cv2.magnitude(*cv2.split(flow + there)) <= OCCLUDED_PX)
    share = float(seen.mean())
    if not seen.any():
        return np.nan, share
    return float(cv2.mean(cv2.absdiff(first, drawn), seen.astype(np.uint8))[0]), share
