"""Runs a curriculum: stage after stage, resumable at any step, the same numbers every time.

<output>/<stage>/checkpoints/step-........   see training/checkpoint.py
<output>/<stage>/metrics.jsonl               a line per step, and per validation
<output>/export/                             EMA weights for model/pipeline.py
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reelmill import __version__
from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.loader import Batch, Loader, collate, make_pools
from reelmill.datasets.mixture import Mixture, permute
from reelmill.errors import CheckpointError, DatasetError, Diverged, Interrupted, UsageError
from reelmill.kernels.sparsity import SparsitySchedule
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.pipeline import Pipeline
from reelmill.model.refiner import refiner_config, refiner_of
from reelmill.model.sparse import Shares
from reelmill.training import checkpoint as checkpoints
from reelmill.training.checkpoint import Checkpoint
from reelmill.training.config import Progress, StageResult, TrainOptions, TrainResult, silent
from reelmill.training.curriculum import Objective, TrainStage
from reelmill.training.export import export_model
from reelmill.training.gate import require_approval
from reelmill.training.metrics import Meter, MetricsLog
from reelmill.training.objective import draw, flow_loss, held_out_draw
from reelmill.training.optim import EMA, learning_rate, make_adamw
from reelmill.training.samples import save_samples
from reelmill.training.tasks import TASKS

log = logging.getLogger(__name__)
HELD_OUT_DRAWS = 32  # noises and times per task behind a held-out loss
NOT_LEARNED = {"checkpoint_every", "gate", "samples"}  # of a stage: what no weight depends on
MAX_SKIPPED = 3  # consecutive steps without a finite loss before the run gives up


def train(options: TrainOptions, progress: Progress = silent) -> TrainResult:
    """Runs the stages of a curriculum that are not done yet, then exports the EMA weights.

    Raises GateError (shards nobody approved), DatasetError (latents), CheckpointError (the output
    folder holds another run), Diverged, and Interrupted after SIGINT or SIGTERM, when everything up
    to the last whole step is saved and the same call goes on from there.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    with LatentDataset(options.latents) as data:
        approvals = require_approval(data, unreviewed=options.unreviewed)
        stages = wanted(options)
        results: list[StageResult] = []
        with _stop_requests() as stop:
            for stage in stages:
                run = StageRun(stage, options, data, approvals, stop)
                results.append(run.run(progress))
        last = checkpoints.load(results[-1].checkpoint)
        export = export_model(options.output / "export", last, data, options.base)
    return TrainResult(
        stages=tuple(results),
        checkpoint=results[-1].checkpoint,
        export=export,
        loss_start=results[0].loss_start,
        loss_end=results[-1].loss_end,
        steps=sum(result.steps for result in results),
        resumed_from=sum(result.resumed_from for result in results),
        unreviewed=not approvals,
    )


def wanted(options: TrainOptions) -> list[TrainStage]:
    """The stages to run, in order. Raises UsageError for one that the curriculum has not."""
    stages = {stage.name: stage for stage in options.curriculum.stages}
    for name in options.stages:
        if name not in stages:
            raise UsageError(
                f"curriculum {options.curriculum.name!r} has no stage {name!r}; there are: "
                f"{', '.join(stages)}."
            )
    return [s for s in stages.values() if not options.stages or s.name in options.stages]


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM while a run is in progress; a second SIGINT ends it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StageRun:
    """One stage: its model, optimiser, loaders, and the loop over steps."""

    def __init__(
        self,
        stage: TrainStage,
        options: TrainOptions,
        data: LatentDataset,
        approvals: Mapping[str, str],
        stop: threading.Event,
    ):
        self.stage, self.options, self.data, self.stop = stage, options, data, stop
        self.folder = options.output / stage.name
        self.validation = options.curriculum.validation
        self.train_loader = _train_loader(stage, options.seed, data)
        self.held_out_batches = _held_out_batches(stage, self.validation, data)
        self.constants = {n: torch.from_numpy(a).float() for n, a in data.constants.items()}
        base = self._base()
        model_config = (
            refiner_config(base.model.config, residual=stage.residual)
            if base
            else options.curriculum.model.config(
                data.channels("video"), data.channels("audio"), data.constants["null_text"].shape[1]
            )
        )
        init = self._init_weights()
        self.config = {
            "stage": stage.model_dump(mode="json", exclude=_unsaid(stage)),
            "model": model_config.to_json(),
            "seed": options.seed,
            "validation": self.validation,
            "latents": data.manifest.digest,
            "codecs": {n: getattr(data.manifest, n) for n in ("video", "audio", "text")},
            "init": init[1] if init else base.digest if base else "",
        }
        self.unreviewed = not approvals
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.model = (
                refiner_of(base.model, residual=stage.residual) if base else MMDiT(model_config)
            )
            if not base:
                options.curriculum.model.prepare(self.model)
        if init:
            _load_weights(self.model, init[0])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(stage.trainable in ("all", part_of(name)))
        self.named = dict(self.model.named_parameters())
        self.optimizer = make_adamw(self.named.items(), stage.optim)
        self.ema = EMA(self.named.items(), stage.optim.ema_decay)
        self.step = 0
        self.skipped = 0
        self.held_out_objective = Objective(video_floor=stage.objective.video_floor)
        self.meter = Meter()
        self.held_out: list[tuple[int, float]] = []

    def run(self, progress: Progress) -> StageResult:
        """Trains from the newest whole checkpoint, or from the start, to the last step."""
        stage, began = self.stage, time.monotonic()
        found = checkpoints.latest(self.folder / "checkpoints")
        if found is not None:
            self._restore(checkpoints.load(found, config=self.config))
        resumed_from = self.step
        if self.step == 0:
            self._validate()
        path = found
        with MetricsLog(self.folder, self.step, tensorboard=self.options.tensorboard) as metrics:
            for batch in self.train_loader.batches(self.step, stage.steps):
                metrics.write(self._train_step(batch))
                if self.step % stage.validate_every == 0 or self.step == stage.steps:
                    metrics.write(self._validate())
                text = f"{stage.name}: held-out loss {self.held_out[-1][1]:.4f}"
                progress(self.step, stage.steps, text)
                stopped = self.stop.is_set() and self.step < stage.steps
                if stopped or self.step % stage.checkpoint_every == 0 or self.step == stage.steps:
                    path = self._save()
                if stopped:
                    raise Interrupted(
                        f"training stopped at step {self.step} of {stage.steps} of stage "
                        f"{stage.name!r}; it is saved in {path}. The same command goes on."
                    )
        assert path is not None
        return StageResult(
            name=stage.name,
            steps=self.step,
            loss_start=self.held_out[0][1],
            loss_end=self.held_out[-1][1],
            checkpoint=path,
            resumed_from=resumed_from,
            corrupt=len(self.train_loader.corrupt),
            seconds=time.monotonic() - began,
        )

    def _train_step(self, batch: Batch) -> dict[str, Any]:
        """One update. A loss or gradient that is not finite is never applied."""
        stage, began = self.stage, time.perf_counter()
        rate = learning_rate(self.step, stage.steps, stage.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        draws = draw(self.options.seed, self.step, batch, stage.objective)
        losses = flow_loss(
            self.model,
            TASKS[batch.task],
            batch,
            draws,
            stage.objective,
            self.constants,
            sparsity=self._sparsity(self.step),
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), stage.optim.clip_norm)
        loss, grad_norm = losses.total.item(), norm.item()
        record = {"step": self.step, "task": batch.task, "loss": loss, "lr": rate}
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.optimizer.step()
            self.ema.update(self.named, self.step)
            self.meter.add(batch.task, losses)
            self.skipped = 0
            record["grad_norm"] = grad_norm
        else:
            self._skip(batch, loss, grad_norm)
            record["skipped"] = list(batch.keys)
            record["loss"] = None
        self.step += 1
        record["seconds"] = round(time.perf_counter() - began, 4)
        return record

    def _sparsity(self, step: int) -> Shares | None:
        if not self.model.config.video.sparse:
            return None
        schedule = SparsitySchedule(
            target=self.stage.sparsity, dense_layers=self.stage.dense_layers
        )
        return [schedule.training(step, layer) for layer in range(len(self.model.layers))]

    def _skip(self, batch: Batch, loss: float, grad_norm: float) -> None:
        self.skipped += 1
        what = f"step {self.step}, task {batch.task}: loss {loss}, gradient norm {grad_norm}"
        log.warning("update left out at %s; clips %s", what, ", ".join(batch.keys))
        if self.skipped >= MAX_SKIPPED:
            raise Diverged(
                f"training diverged: {self.skipped} steps in a row were not finite; the last one "
                f"was {what}, clips {', '.join(batch.keys)}. Lower optim.lr, or see what these "
                "clips are (`reelmill why`). The last checkpoint is from before."
            )

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        """Held-out loss of the EMA weights per task, on noise and times that never change."""
        weights = {**dict(self.model.named_buffers()), **self.ema.average}
        by_task: dict[str, float] = {}
        total = 0.0
        for task, batch in self.held_out_batches.items():
            losses = flow_loss(
                self.model,
                TASKS[task],
                batch,
                held_out_draw(batch, HELD_OUT_DRAWS),
                self.held_out_objective,
                self.constants,
                weights=weights,
                sparsity=self._sparsity(self.stage.steps),
            )
            by_task[task] = losses.total.item()
            total += self.validation[task] * by_task[task]
        loss = total / sum(self.validation.values())
        if not math.isfinite(loss):
            raise Diverged(f"held-out loss is {loss} at step {self.step}: lower optim.lr.")
        self.held_out.append((self.step, loss))
        return {
            "step": self.step,
            "held_out": loss,
            "held_out_by_task": by_task,
            "train": self.meter.take(),
        }

    def _save(self) -> Path:
        state = {
            "held_out": self.held_out,
            "meter": self.meter.sums,
            "skipped": self.skipped,
            "corrupt": self.train_loader.corrupt,
            "unreviewed": self.unreviewed,
            "version": __version__,
        }
        point = Checkpoint(
            step=self.step,
            weights={name: p.data for name, p in self.named.items()},
            ema=self.ema.average,
            optimizer=checkpoints.optimizer_state(self.optimizer, self.named),
            state=state,
            config=self.config,
        )
        path = checkpoints.save(self.folder / "checkpoints", point)
        if self.stage.samples and not self.stage.refiner:
            held = held_out_rows(self.data.column("asset"), self.stage.held_out)
            rows = np.flatnonzero(held & (np.array(self.data.column("frames")) > 1))
            chosen = rows[: self.stage.samples].tolist()
            if chosen:
                save_samples(self.folder / "samples", point, self.data, chosen)
        return path

    def _restore(self, point: Checkpoint) -> None:
        _load_weights(self.model, point.weights)
        self.ema.average = {name: point.ema[name] for name in self.ema.average}
        checkpoints.restore_optimizer(self.optimizer, self.named, point.optimizer)
        self.step = point.step
        self.held_out = [(int(step), float(loss)) for step, loss in point.state["held_out"]]
        self.meter.sums = {name: list(pair) for name, pair in point.state["meter"].items()}
        self.skipped = int(point.state["skipped"])
        self.train_loader.corrupt.update(point.state["corrupt"])
        self.unreviewed = self.unreviewed or bool(point.state["unreviewed"])
        log.info("stage %s goes on from step %d", self.stage.name, self.step)

    def _base(self) -> Pipeline | None:
        """The model that a Refiner is made for. Raises UsageError and CheckpointError."""
        if not self.stage.refiner:
            return None
        if self.options.base is None:
            raise UsageError(
                f"stage {self.stage.name!r} trains a Refiner: name the exported model that it is "
                "for, --base DIR."
            )
        base = Pipeline.load(self.options.base)
        self.data.require(video=base.fingerprints["video"], audio=self.data.manifest.audio)
        return base

    def _init_weights(self) -> tuple[dict[str, Tensor], str] | None:
        """EMA weights of the stage that this one starts from, with their digest."""
        if self.stage.init_from is None:
            return None
        folder = self.options.output / self.stage.init_from / "checkpoints"
        found = checkpoints.latest(folder)
        before = next(s for s in self.options.curriculum.stages if s.name == self.stage.init_from)
        point = checkpoints.load(found) if found else None
        if found is None or point is None or point.step < before.steps:
            raise CheckpointError(
                f"stage {self.stage.name!r} starts from stage {before.name!r}, which has not "
                f"finished in {folder}. Train it first."
            )
        return point.ema, checkpoints.digest(found)


def _unsaid(stage: TrainStage) -> set[str]:
    """Fields that a checkpoint of the stage does not depend on."""
    return NOT_LEARNED | (set() if stage.refiner else {"residual", "dense_layers"})


def _load_weights(model: MMDiT, weights: Mapping[str, Tensor]) -> None:
    """Copies weights in. Raises CheckpointError when names or shapes are another model's."""
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"these weights are of another model: {error}") from error


def _train_loader(stage: TrainStage, seed: int, data: LatentDataset) -> Loader:
    held = held_out_rows(data.column("asset"), stage.held_out)
    pools = {name: make_pools(data, _usable(name, data) & ~held) for name in stage.tasks}
    mixture = Mixture(stage.tasks, pools, stage.batch, seed)
    return Loader(data, mixture, max_corrupt=stage.max_corrupt)


def _held_out_batches(
    stage: TrainStage, tasks: Mapping[str, float], data: LatentDataset
) -> dict[str, Batch]:
    """One fixed batch per task, of samples of its largest held-out bucket."""
    held = held_out_rows(data.column("asset"), stage.held_out)
    found = {}
    for name in tasks:
        pools = make_pools(data, _usable(name, data) & held)
        if not pools:
            raise DatasetError(
                f"no held-out sample for task {name!r}: {len(set(data.column('asset')))} source "
                "files are too few. Encode more clips that it can use."
            )
        pool = max(pools, key=lambda p: len(p.rows))
        rows = pool.rows[permute(np.arange(len(pool.rows)), len(pool.rows), "held out")]
        slots = np.arange(HELD_OUT_DRAWS)
        samples = [data.read(int(row)) for row in rows[slots % len(rows)]]
        found[name] = collate(0, name, slots, samples)
    return found


def _usable(task: str, data: LatentDataset) -> np.ndarray:
    frames, audible = np.array(data.column("frames")), np.array(data.column("has_audio"))
    return TASKS[task].usable(frames, audible, bool(data.manifest.options.get("low")))
