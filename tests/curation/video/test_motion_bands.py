"""Motion against data-juicer's measure, over the files of its own tests that are here."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from tests.frames import measured

from reelmill.curation.video.motion import Motion

BANDS = {  # video_motion_score of data-juicer's own tests: 1.87, 3.52; the bands asserted there
    "multishot/dj_video1_cartoon_logo.mp4": (1.5, 3.0),
    "general/dj_video2_vertical_text.mp4": (3.0, 10_000.0),
}
STATIC = "general/intel_bottles_static.mp4"  # below 1.5


def farneback(path: Path, pairs: int = 1000) -> float:
    """data-juicer's score: mean flow, in pixels, between frames half a second apart."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        step = max(round(float(stream.average_rate) / 2), 1)
        scores, before = [], None
        for i, frame in enumerate(container.decode(stream)):
            if i % step or i > pairs * step:
                continue
            gray = cv2.cvtColor(frame.to_ndarray(format="bgr24"), cv2.COLOR_BGR2GRAY)
            if before is not None:
                flow = cv2.calcOpticalFlowFarneback(before, gray, None, 0.5, 3, 15, 3, 5, 1.2, 0)
                scores.append(np.linalg.norm(flow, axis=2).mean())
            before = gray
    return float(np.mean(scores))


@pytest.mark.media
@pytest.mark.slow
def test_clips_in_data_juicers_bands_have_their_order(media):
    """The bands first: the files are those that data-juicer asserts them of."""
    for name, (low, high) in BANDS.items():
        assert low <= farneback(media / name) < high
    assert farneback(media / STATIC, pairs=6) < 1.5
    first, second = (measured(Motion(), media / name).facts["motion"] for name in BANDS)
    assert measured(Motion(), media / STATIC).facts["motion"] < first < second
