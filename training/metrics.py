"""What a training run says of itself: a line of JSON per step, and TensorBoard when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelmill.datasets.workspace import commit_bytes, writing
from reelmill.training.objective import Losses

T_BUCKETS = 10


@dataclass
class Meter:
    """Mean losses since the last report, per task and modality, and per tenth of t."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, task: str, losses: Losses) -> None:
        tenths = (losses.t * T_BUCKETS).long().clamp(max=T_BUCKETS - 1).tolist()
        for kind in ("video", "audio"):
            values = getattr(losses, kind)
            for tenth, value in zip(
                tenths, () if values is None else values.tolist(), strict=False
            ):
                for name in (f"{task}/{kind}", f"{task}/{kind}/t{tenth}"):
                    total = self.sums.setdefault(name, [0.0, 0.0])
                    total[0] += value
                    total[1] += 1

    def take(self) -> dict[str, float]:
        """The means, from which counting starts anew."""
        means = {name: total / count for name, (total, count) in sorted(self.sums.items())}
        self.sums = {}
        return means


class StepLog(AbstractContextManager):
    """Appends records to a file of lines, after dropping what a killed run logged beyond `step`.

    Those steps come again, so that the file of a resumed run is the one of a run that was never
    interrupted, but for the seconds. Raises WorkspaceError when the disk is full or read-only.
    """

    def __init__(
        self, folder: Path, step: int, *, name: str = "metrics.jsonl", tensorboard: bool = False
    ):
        self.path = folder / name
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._trim(step)
            self._file = self.path.open("a", buffering=1)
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def rewind(self, step: int) -> None:
        """Takes back what was logged beyond a step: it comes again."""
        with writing(self.path):
            self._file.close()
            self._trim(step)
            self._file = self.path.open("a", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        with writing(self.path):
            print(json.dumps(record), file=self._file)
        if self._board is not None:
            for name, value in _flat(record):
                self._board.add_scalar(name, value, record["step"])

    def __exit__(self, *_: object) -> None:
        with writing(self.path):
            self._file.close()
        if self._board is not None:
            self._board.close()

    def _trim(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
                ended = record["step"] + ("held_out" not in record)
            except (ValueError, KeyError, TypeError):
                continue  # the line that a kill cut short
            if ended <= step:
                kept.append(line)
        commit_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())


class RunLogs(AbstractContextManager):
    """The logs of a stage: metrics.jsonl, and clips.jsonl when asked for. on: this rank writes."""

    def __init__(self, folder: Path, step: int, *, on: bool, tensorboard: bool, clips: bool):
        self._metrics = StepLog(folder, step, tensorboard=tensorboard) if on else None
        self._clips = StepLog(folder, step, name="clips.jsonl") if on and clips else None

    def write(self, record: Mapping[str, Any]) -> None:
        if self._metrics is not None:
            self._metrics.write(record)

    def clips(self, step: int, task: str, keys: Sequence[str]) -> None:
        if self._clips is not None:
            self._clips.write({"step": step, "task": task, "clips": list(keys)})

    def rewind(self, step: int) -> None:
        """Takes back what was logged beyond a step: it comes again."""
        for file in (self._metrics, self._clips):
            if file is not None:
                file.rewind(step)

    def __exit__(self, *_: object) -> None:
        for file in (self._metrics, self._clips):
            if file is not None:
                file.__exit__()


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found.append((prefix + name, value))
    return found
