"""Whether a scene goes on after a cut, as a model sees it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from reelmill.curation.caption.by_model import answer_for
from reelmill.curation.caption.endpoint import Endpoint, EndpointOptions
from reelmill.curation.pulse import beat
from reelmill.curation.stage import BoundaryJudge, Facts, FrameStage, Judge, Tracks
from reelmill.curation.video.sampling import Sampling
from reelmill.datasets.media.decode import DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind

# How the model is reached, and not what it says.
REACHED_BY = ("url", "key_env", "at_once", "timeout_s", "tries", "max_questions")
SIDE = 2  # pictures on either side of a cut
JPEG_QUALITY = 80
ASK = """A film was cut at one place. The first {before} pictures are from before the cut, the last
{after} from after it, in order. Do both belong to one scene: the same place, time and event, seen
from another side or distance, or in conversation? A new place, another time or another subject is a
new scene. Answer with one JSON object and nothing else:
{{"clip": "{name}", "same": true or false}}
Copy the value of "clip"."""


@dataclass(frozen=True, kw_only=True)
class Continuity(FrameStage, BoundaryJudge):
    """Asks a model whether the shots on both sides of a cut are one scene; for `Shots.join=model`.

    Small pictures (256 pixels) are kept from the shared decode, `fps` a second, so that cuts at
    other places need no new decode. Two from before and two from after a cut go to `model` at
    `url`, an OpenAI-compatible endpoint such as vLLM's. The answer must carry a digest of file, cut
    and model, or it is asked for again. Answers are kept: no boundary is asked about twice. Where
    none is to be had, the file fails as `transient`, and the next run goes on.
    """

    kinds: ClassVar = frozenset({Kind.VIDEO})
    paper: ClassVar = "section 3.4, shots merged by a VLM into semantically complete segments"
    adds: ClassVar = ()
    model: str = ""
    fps: float = 2.0
    url: str = "http://localhost:8000/v1"
    key_env: str = ""
    at_once: int = 8
    timeout_s: float = 120.0
    tries: int = 4
    max_questions: int = 0

    def __post_init__(self) -> None:
        if min(self.at_once, self.tries) < 1 or self.timeout_s <= 0 or self.fps <= 0:
            raise ValueError("fps, at_once, tries and timeout_s must be above 0")
        if self.model and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} must begin with http:// or https://")

    def measuring(self) -> dict[str, Any]:
        found = super().measuring()
        return {name: value for name, value in found.items() if name not in REACHED_BY}

    def open(self, info: MediaInfo) -> _Glimpses:
        return _Glimpses(self.fps)

    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        return {}

    @contextmanager
    def judging(self) -> Iterator[Judge]:
        if not self.model:
            yield lambda tracks, whole, frames: {}
            return
        options = EndpointOptions(
            url=self.url,
            model=self.model,
            key_env=self.key_env,
            timeout_s=self.timeout_s,
            tries=self.tries,
            max_questions=self.max_questions,
            max_tokens=256,
        )
        with Endpoint(options) as endpoint, ThreadPoolExecutor(self.at_once) as pool:

            def judge(tracks: Tracks, whole: Clip, frames: Sequence[int]) -> Mapping[int, bool]:
                asked = {
                    frame: pool.submit(_ask, endpoint, tracks, whole.asset, frame)
                    for frame in frames
                }
                found = {}
                for frame, answer in asked.items():
                    found[frame] = answer.result()
                    beat()
                return found

            yield judge


def _ask(endpoint: Endpoint, tracks: Tracks, asset: str, frame: int) -> bool:
    """Whether the pictures before and after a cut are one scene."""
    at = int(np.searchsorted(tracks["frame"], frame))
    before, after = range(max(0, at - SIDE), at), range(at, min(len(tracks["frame"]), at + SIDE))
    name = boundary_name(asset, frame, endpoint.options.model)
    text = ASK.format(before=len(before), after=len(after), name=name)

    def read(answer: str) -> bool:
        said = answer_for(name, answer).get("same")
        if not isinstance(said, bool):
            raise ValueError(f"its `same` is {said!r:.40}, neither true nor false")
        return said

    pictures = [_picture(tracks, i) for i in (*before, *after)]
    return endpoint.ask([{"type": "text", "text": text}, *pictures], read)


def boundary_name(asset: str, frame: int, model: str) -> str:
    """What the answer about a boundary must carry. asset: sha256 of the file."""
    return hashlib.sha256(f"{asset}\n{frame}\n{model}".encode()).hexdigest()[:16]


def _picture(tracks: Tracks, i: int) -> dict[str, Any]:
    start = int(tracks["end"][i - 1]) if i else 0
    jpeg = tracks["jpeg"][start : int(tracks["end"][i])].tobytes()
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    return {"type": "image_url", "image_url": {"url": url}}


class _Glimpses:
    """Small pictures as JPEG, one after the other in one array."""

    def __init__(self, fps: float):
        self._sampling = Sampling(fps)
        self._frames: list[int] = []
        self._jpegs: list[bytes] = []

    def frame(self, frame: Frame) -> None:
        if self._sampling.takes(frame.seconds):
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            self._frames.append(frame.index)
            self._jpegs.append(cv2.imencode(".jpg", frame.bgr, options)[1].tobytes())

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        return {
            "frame": np.array(self._frames, np.int64),
            "jpeg": np.frombuffer(b"".join(self._jpegs), np.uint8),
            "end": np.cumsum([len(jpeg) for jpeg in self._jpegs], dtype=np.int64),
        }
