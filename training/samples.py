"""What a model makes as it learns: frames of the same held-out prompts at every checkpoint.

<stage>/samples/step-00000400.jpg    a row of frames for each prompt

Noise depends on the prompt's number alone, so that pictures of two steps differ by the model only.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.workspace import commit_bytes
from reelmill.training.checkpoint import Checkpoint
from reelmill.training.contact_sheet import COLUMNS, contact_sheet
from reelmill.training.curriculum import TrainStage
from reelmill.training.export import make_pipeline

STEPS = 12  # of the sampler: enough to see what is learned


def save_samples(folder: Path, point: Checkpoint, data: LatentDataset, stage: TrainStage) -> None:
    """Makes clips by a checkpoint's EMA weights from the first held-out captions of clips, as many
    as the stage has samples, and saves frames.

    Each clip has the size and length of its row. Raises CheckpointError as `make_pipeline` does.
    """
    held = held_out_rows(data.column("asset"), stage.held_out)
    frames, heights = (np.array(data.column(name)) for name in ("frames", "height"))
    rows = np.flatnonzero(held & (frames > 1) & (heights > 0))[: stage.samples].tolist()
    if not rows:
        return
    pipeline = make_pipeline(point, data)
    sheets = []
    for number, row in enumerate(rows):
        meta = data.read(row).meta
        clip = pipeline.generate(
            str(meta["caption"]),
            frames=int(meta["frames"]),
            height=int(meta["height"]),
            width=int(meta["width"]),
            fps=float(meta["fps"]),
            seed=number,
            steps=STEPS,
        )
        assert clip.video is not None
        even = np.linspace(0, len(clip.video) - 1, COLUMNS).round().astype(int)
        sheets.append(contact_sheet(clip.video[even]))
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(s, ((0, 4), (0, width - s.shape[1]), (0, 0))) for s in sheets]
    bgr = np.concatenate(padded)[..., ::-1]
    done, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    commit_bytes(folder / f"step-{point.step:08d}.jpg", coded.tobytes())
