"""Checkpoints written beside training: it goes on as soon as the tensors are copied."""

from __future__ import annotations

import copy
import threading
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from reelmill.training import checkpoint as checkpoints
from reelmill.training.checkpoint import Checkpoint


class Writer(AbstractContextManager):
    """Saves the checkpoints of a folder, one at a time, each whole or not at all.

    background: in a thread. What goes wrong there is raised by the next call.
    """

    def __init__(self, folder: Path, *, background: bool):
        self.folder, self.background = folder, background
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        checkpoints.sweep(folder)

    def save(self, point: Checkpoint) -> None:
        """Raises WorkspaceError, of this one or of the one before."""
        self.wait()
        if not self.background:
            checkpoints.save(self.folder, point)
            return
        taken = replace(
            point,
            weights=_copied(point.weights),
            ema=_copied(point.ema),
            optimizer=_copied(point.optimizer),
            state=copy.deepcopy(point.state),
        )
        self._thread = threading.Thread(target=self._save, args=(taken,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when all that was saved is on the disk. Raises WorkspaceError where it is not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _save(self, point: Checkpoint) -> None:
        try:
            checkpoints.save(self.folder, point)
        except BaseException as error:
            self._error = error

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join()


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
