"""The paper's curriculum with its sizes (section 4, Table 1): what a cluster would train on.

The table gives resolutions, lengths, counts and epochs. What it leaves open is ours: resolutions of
a row share its clips evenly, lengths are spread evenly over their range, pictures are 16:9, the
audio row is taken as 300,000 hours in 15 s chunks, half of the video data of joint training as that
of the row before it, the row of keyframes (section 3, after SFT) as SFT's last clips at 480p with
keyframes at 1080p, and the Refiner's clips as 5 s at 1080p and 32 frames a second, seen once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reelmill.datasets.views import Want

M, B = 1e6, 1e9
FPS = 16


@dataclass(frozen=True)
class PaperStage:
    """One row of Table 1.

    tasks: shares of the mixture, as training/tasks.py and model/tasks.py name them. heights: lines
    of the resolutions; none for sound alone. seconds: from, to. images, clips, sounds: how many
    there are, each seen `epochs` times. sparsity: share of key tiles that attention leaves out.
    keyframes: lines of the frames that are made beside the clip in the same pass, 0 for none.
    """

    name: str
    tasks: Mapping[str, float]
    heights: tuple[int, ...] = ()
    seconds: tuple[float, float] = (0.0, 0.0)
    images: float = 0.0
    clips: float = 0.0
    sounds: float = 0.0
    epochs: int = 1
    audio: bool = False
    fps: int = FPS
    sparsity: float = 0.0
    keyframes: int = 0

    @property
    def samples(self) -> float:
        """Seen in all epochs."""
        return (self.images + self.clips + self.sounds) * self.epochs


_MIXED = {"t2v": 0.8, "inpaint": 0.05, "i2v": 0.05, "v2v": 0.05, "edit": 0.05}
_HIGH = (480, 720, 1080)
_JOINT = (720, 1080)
HOURS = 300_000.0

PAPER = (
    PaperStage("video_1", {"t2i": 1.0}, (256,), images=3 * B, epochs=3),
    PaperStage(
        "video_2", {"t2i": 0.5, "t2v": 0.5}, (256,), (2, 10), images=B, clips=400 * M, epochs=3
    ),
    PaperStage("video_3", _MIXED, (256,), (2, 15), images=B, clips=400 * M, epochs=2),
    PaperStage("video_4", _MIXED, (256, 480), (2, 15), images=100 * M, clips=100 * M, epochs=2),
    PaperStage("video_5", _MIXED, _HIGH, (3, 15), images=50 * M, clips=50 * M, epochs=2),
    PaperStage(
        "video_6",
        {"t2v": 0.6, "image_ref": 0.2, "video_ref": 0.2},
        _HIGH,
        (3, 15),
        images=20 * M,
        clips=50 * M,
        epochs=2,
    ),
    PaperStage(
        "audio", {"t2a": 1.0}, (), (15, 15), sounds=HOURS * 3600 / 15, epochs=3, audio=True
    ),
    PaperStage(
        "joint",
        {"t2v": 1 / 3, "t2av": 1 / 3, "t2a": 1 / 3},
        _JOINT,
        (5, 15),
        clips=25 * M,
        sounds=25 * M,
        epochs=2,
        audio=True,
    ),
    PaperStage(
        "sft_1", {"t2av": 0.8, "multimodal": 0.2}, _JOINT, (5, 15), clips=5 * M, epochs=3,
        audio=True,
    ),
    PaperStage(
        "sft_2", {"t2av": 0.8, "multimodal": 0.2}, _JOINT, (5, 15), clips=M, epochs=3, audio=True
    ),
    PaperStage(
        "keyframes", {"keyframes": 1.0}, (480,), (5, 15), clips=M, keyframes=1080
    ),
    PaperStage(
        "refiner", {"refine": 1.0}, (1080,), (5, 5), clips=M, fps=32, sparsity=2 / 3
    ),
)  # fmt: skip


def wants() -> dict[str, Want]:
    """What each row with pictures takes of curated shards, by its name (datasets/views.py)."""
    return {
        stage.name: Want(
            stage.heights + ((stage.keyframes,) if stage.keyframes else ()),
            stage.seconds if stage.clips else None,
            stage.fps,
            stage.images > 0,
        )
        for stage in PAPER
        if stage.heights
    }
