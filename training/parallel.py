"""Starts the ranks of a run: by torch's elastic launcher on this machine, or by Ray Train.

The launcher is a process of its own that dies with this one, and its ranks die with it
(training/orphan.py). They tell by files of a folder that lives as long as they do:

    options.json    what they are asked for       progress.json   how far rank 0 is
    result.json     what came of it               error-<rank>.json   why a rank ended
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import TypeAdapter

from reelmill import errors
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import Interrupted, ReelmillError
from reelmill.training.config import Progress, TrainOptions, TrainResult
from reelmill.training.ranks import Ranks, launched
from reelmill.training.run_folder import stop_requests

GRACE_S = 60.0  # for ranks that are asked to stop to end their step and save
LOOK_S = 0.2
STORE_BYTES = 100 << 20  # of Ray's object store, through which nothing large goes
LOG_LEVEL = "REELMILL_RANK_LOG_LEVEL"
_FOLDER = "reelmill-ranks-"
_OPTIONS: TypeAdapter[TrainOptions] = TypeAdapter(TrainOptions)
_RESULT: TypeAdapter[TrainResult] = TypeAdapter(TrainResult)


def is_rank() -> bool:
    """Whether this process is one of those that train together already."""
    return dist.is_initialized() or launched()


def planned(options: TrainOptions) -> Ranks:
    """The first of the ranks that options ask for."""
    return Ranks(0, options.execution.ranks, options.execution.context)


def launch(options: TrainOptions, progress: Progress) -> TrainResult:
    """Trains by `options.execution.ranks` processes. Raises what a rank raised.

    Interrupted, with a ConnectionResetError for its cause, where a rank or the launcher was killed:
    trying again helps. No rank is left when this returns.
    """
    _sweep()
    prefix = f"{_FOLDER}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix) as made, stop_requests() as stop:
        folder = Path(made)
        (folder / "options.json").write_bytes(_OPTIONS.dump_json(options))
        how = options.execution
        words = [how.launcher, str(os.getpid()), str(how.ranks), made]
        level = {LOG_LEVEL: str(logging.getLogger().getEffectiveLevel())}
        threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // how.ranks))}
        process = subprocess.Popen(
            [sys.executable, "-m", "reelmill.training.rank", *words],
            start_new_session=True,
            env=threads | os.environ | level,
        )
        try:
            _attend(process, folder, progress, stop)
        finally:
            _end(process)
        return _told(folder, process.returncode)


def _sweep() -> None:
    """Removes what runs that were killed left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}[0-9]*-*"):
        owner = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _attend(
    process: subprocess.Popen[bytes], folder: Path, progress: Progress, stop: threading.Event
) -> None:
    """Waits for the launcher; passes a request to stop on once."""
    asked, last = False, b""
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
        if stop.is_set() and not asked:
            asked = True
            process.send_signal(signal.SIGTERM)
        with suppress(OSError):
            now = (folder / "progress.json").read_bytes()
            if now != last:
                last = now
                progress(*json.loads(now))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leaves nobody behind, however the wait for them ended."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_S)
    except BaseException:
        process.kill()
        process.wait()
        raise


@dataclass(frozen=True)
class Failure:
    """Why a rank ended. kind: name of a ReelmillError's class, or "" for another error."""

    rank: int
    kind: str
    message: str
    lost: bool  # a peer was gone


def _told(folder: Path, code: int) -> TrainResult:
    found = [Failure(**json.loads(p.read_bytes())) for p in sorted(folder.glob("error-*.json"))]
    for failure in found:
        if failure.kind:
            raise _error(failure)
    for failure in found:
        if not failure.lost:
            raise RuntimeError(f"rank {failure.rank}: {failure.message}")
    result = folder / "result.json"
    if code == 0 and result.exists():
        return _RESULT.validate_json(result.read_bytes())
    raise Interrupted(
        f"a rank or its launcher was killed (exit code {code}). Checkpoints are whole; the same "
        "command goes on from the newest one."
    ) from ConnectionResetError(errno.ECONNRESET, "a process that trains was lost")


def _error(failure: Failure) -> ReelmillError:
    kind = getattr(errors, failure.kind, None)
    known = isinstance(kind, type) and issubclass(kind, ReelmillError)
    return (kind if known else ReelmillError)(failure.message)  # type: ignore[misc]


def as_rank(folder: Path, rank: int, train: Callable[[TrainOptions, Progress], TrainResult]) -> int:
    """What a rank does: trains, tells how far it is, and why it ended. Returns its exit code."""
    options = _OPTIONS.validate_json((folder / "options.json").read_bytes())

    def tell(done: float, total: float | None = None, text: str = "") -> None:
        path = folder / "progress.json"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps([done, total, text]))
        beside.replace(path)

    try:
        result = train(options, tell)
    except Exception as error:
        ours = isinstance(error, ReelmillError)
        failure = Failure(rank, type(error).__name__ if ours else "", str(error), _lost(error))
        commit_bytes(folder / f"error-{rank}.json", json.dumps(vars(failure)).encode())
        if ours:
            return error.exit_code  # type: ignore[attr-defined]
        raise
    if rank == 0:
        commit_bytes(folder / "result.json", _RESULT.dump_json(result))
    return 0


def _lost(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "Gloo", "NCCL", "Connection closed", "Connection reset")
    )


def train_by_ray(
    folder: Path, ranks: int, train: Callable[[TrainOptions, Progress], TrainResult]
) -> int:
    """Trains by the workers of Ray Train on this machine. Returns an exit code."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_TRAIN_V2_ENABLED="1")
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    def work(config: dict[str, Any]) -> None:
        code = as_rank(Path(config["folder"]), dist.get_rank(), config["train"])
        if code:
            raise SystemExit(code)

    ray.init(
        address="local",
        num_cpus=ranks + 1,  # and the controller
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=STORE_BYTES,
        _temp_dir=str(folder / "ray"),
    )
    try:
        TorchTrainer(
            work,
            train_loop_config={"folder": str(folder), "train": train},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=ranks),
            run_config=RunConfig(storage_path=str(folder / "results"), name="train"),
        ).fit()
    finally:
        ray.shutdown()
    return 0
