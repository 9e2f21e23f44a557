"""What is true of each made file: the schema of truth.json, and how it is read and written.

Times are seconds since the file's first frame or sample, frames are indices in decoding order,
boxes are pixels [x0, y0, x1, y1) with x1 and y1 outside. `expected` is what a recipe with the
paper's filters should say; `reason` names the defect, in the words of `DefectKind`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from reelmill.datasets.sample import Kind, Outcome
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import SourceError

VERSION: Literal[1] = 1
FILE_NAME = "truth.json"
MAX_BYTES = 256 << 20

DefectKind = Literal[
    "black",  # every pixel of every frame
    "frozen",  # one frame repeated over `frames`; the sound goes on
    "logo",  # opaque and still in `box`, over a moving scene
    "letterbox",  # black outside `box`
    "overexposed",
    "underexposed",
    "blurred",  # Gaussian, `value` = sigma in pixels
    "clipped",  # `value` = share of samples at full scale
    "noisy",  # white noise, `value` = SNR in dB
    "silent",  # every sample is zero
    "shifted",  # `value` = seconds by which the sound is late
    "exact_duplicate",  # the bytes of another file
    "near_duplicate",  # an edit of another file; `edit` says which
    "corrupt",  # bytes are missing
]
Edit = Literal["reencoded", "half_size", "letterboxed", "trimmed", "mirrored"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounce(_Model):
    """A shape touches a wall. x, y: where its centre is, as shares of width and height.

    pan: -1 left to 1 right; pitch: Hz of its tone, which begins at t.
    """

    t: float
    x: float
    y: float
    pan: float
    pitch: float
    colour: str


class Defect(_Model):
    kind: DefectKind
    frames: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    box: tuple[int, int, int, int] | None = None
    value: float | None = None
    edit: Edit | None = None


class Expected(_Model):
    outcome: Outcome
    reason: str = ""


class FileTruth(_Model):
    """One file. `name`: path below the corpus, with slashes. kind: of the content, None if none.

    pts_ms: of each frame, where the frame rate varies. shots: first frame of each. Where bytes are
    missing, frames and seconds are what the whole file had. bounces: those of the scene, less what
    a black or frozen picture hides; their tones come later by a `shifted` sound's value, and are
    absent where the file has no sound or a silent one. training: made for the demo model.
    """

    name: str
    sha256: str
    bytes: int
    kind: Kind | None
    expected: Expected
    defects: tuple[Defect, ...] = ()
    duplicate_of: str | None = None
    caption: str | None = None
    transcript: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: str | None = None
    pts_ms: tuple[int, ...] | None = None
    seconds: float | None = None
    rate: int | None = None
    channels: int | None = None
    shots: tuple[int, ...] = ()
    bounces: tuple[Bounce, ...] = ()
    training: bool = False


class CorpusTruth(_Model):
    """The whole corpus. speech: whether spoken files were made; speech_note: by what, or why not.

    seed, size, training_*: what make_corpus was asked for.
    """

    version: Literal[1] = 1
    seed: int
    size: str
    training_clips: int
    training_stills: int = 0
    training_sounds: int = 0
    speech: bool
    speech_note: str
    files: tuple[FileTruth, ...]

    def __getitem__(self, name: str) -> FileTruth:
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)


def write_truth(folder: Path, truth: CorpusTruth) -> None:
    """Writes truth.json. Raises WorkspaceError when the disk refuses."""
    data = truth.model_dump(mode="json", exclude_defaults=True)
    ordered = {"version": VERSION, **data}
    commit_bytes(folder / FILE_NAME, (json.dumps(ordered, indent=1) + "\n").encode())


def read_truth(folder: Path) -> CorpusTruth:
    """Reads truth.json. Raises SourceError when it is absent or not of this version's shape."""
    path = folder / FILE_NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path} is larger than {MAX_BYTES >> 20} MiB: no truth of ours.")
        return CorpusTruth.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read ({error.strerror}). `reelmill corpus make` writes it."
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SourceError(
            f"{path} is no truth of version {VERSION}: {where}: {first['msg']}. "
            "Make the corpus again."
        ) from error


def fingerprint(path: Path) -> tuple[str, int]:
    """sha256 and size of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
