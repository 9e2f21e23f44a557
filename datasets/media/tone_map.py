"""HDR pictures as SDR ones, so that all that looks at frames or stores them sees one kind.

PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) in BT.2020 become gamma 2.4 in BT.709: light is taken to
nits as ITU-R BT.2100 has it, a peak of 1,000 nits is brought to the 203 nits that BT.2408 calls
reference white by the curve of BT.2390, section 5.4.1, in each primary, and colours that BT.709
has not are clipped. The table of that, 33 steps a side, is applied by FFmpeg's lut3d.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import av
import av.filter
import numpy as np
from av import VideoFrame

from reelmill.errors import MediaError

PQ, HLG = 16, 18  # transfer characteristics, ITU-T H.273
TRANSFERS = {PQ: "pq", HLG: "hlg"}
PEAK, WHITE = 1000.0, 203.0  # nits: mastering peak of most HDR10, and of HLG's nominal display
STEPS = 33
_BT709, _LIMITED = 1, 1
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_LUMA = np.array([0.2627, 0.6780, 0.0593])
_TO_709 = np.array(  # ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def transfer_of(frame: VideoFrame) -> str:
    """`pq`, `hlg`, or "" for a frame that is not HDR."""
    return TRANSFERS.get(int(frame.color_trc), "")


def nits(code: np.ndarray, transfer: str) -> np.ndarray:
    """Light of BT.2020 primaries, [..., 3], of code values in 0..1 (BT.2100, tables 4 and 5)."""
    if transfer == "pq":
        power = np.maximum(code, 0) ** (1 / _M2)
        return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - _C) / _A) + _B) / 12)
    luma = (scene @ _LUMA)[..., None]
    return PEAK * np.maximum(luma, 1e-9) ** 0.2 * scene


def _pq(light: np.ndarray | float) -> np.ndarray:
    power = (np.asarray(light) / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def compressed(light: np.ndarray) -> np.ndarray:
    """Nits from 0 to PEAK as nits from 0 to WHITE, the dark ones unchanged (BT.2390's EETF)."""
    top = _pq(PEAK)
    most = _pq(WHITE) / top
    knee = 1.5 * most - 0.5
    given = _pq(np.clip(light, 0, PEAK)) / top
    t = np.clip((given - knee) / (1 - knee), 0, 1)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * most
    )
    return nits(np.where(given < knee, given, bent) * top, "pq")


def to_sdr(code: np.ndarray, transfer: str) -> np.ndarray:
    """BT.709 code values in 0..1 of BT.2020 ones, float64 [..., 3]."""
    linear = compressed(nits(np.asarray(code, np.float64), transfer)) / WHITE
    return np.clip(linear @ _TO_709.T, 0, 1) ** (1 / 2.4)


@cache
def _table(transfer: str) -> bytes:
    """The text of a .cube file: red varies fastest."""
    axis = np.linspace(0, 1, STEPS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    rows = to_sdr(np.stack([red, green, blue], -1).reshape(-1, 3), transfer)
    lines: Iterable[str] = (" ".join(f"{value:.6f}" for value in row) for row in rows.tolist())
    return "\n".join([f"LUT_3D_SIZE {STEPS}", *lines, ""]).encode()


class ToneMap:
    """Makes SDR frames of HDR ones; others pass as they are. One per stream."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._of: tuple[object, ...] = ()

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """An 8-bit yuv420p frame of the same size and time, if the frame is HDR.

        Raises MediaError for a frame that FFmpeg's filters do not take.
        """
        transfer = transfer_of(frame)
        if not transfer:
            return frame
        of = (transfer, frame.width, frame.height, frame.format.name, frame.color_range)
        try:
            if self._graph is None or of != self._of:
                self._graph, self._of = _graph(frame, transfer), of
            self._graph.vpush(frame)
            made = self._graph.vpull()
        except av.error.FFmpegError as error:
            raise MediaError(f"a frame of {transfer} cannot be tone-mapped: {error}") from error
        made.pts, made.time_base, made.duration = frame.pts, frame.time_base, frame.duration
        made.color_primaries = made.color_trc = made.colorspace = _BT709
        made.color_range = _LIMITED
        return made


def _graph(frame: VideoFrame, transfer: str) -> av.filter.Graph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.cube"  # FFmpeg reads it when the filter is made
        path.write_bytes(_table(transfer))
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            graph.add("scale", "in_color_matrix=bt2020:out_range=full"),
            graph.add("format", "gbrp16le"),
            graph.add("lut3d", file=str(path), interp="tetrahedral"),
            graph.add("scale", "out_color_matrix=bt709:out_range=limited"),
            graph.add("format", "yuv420p"),
            graph.add("buffersink"),
        ).configure()
    return graph
