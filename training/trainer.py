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
from reelmill.datasets.loader import Batch
from reelmill.errors import CheckpointError, Diverged, Interrupted, UsageError
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
from reelmill.training.spikes import Spikes
from reelmill.training.stage_data import HELD_OUT_DRAWS, held_out_batches, train_loader
from reelmill.training.tasks import TASKS

log = logging.getLogger(__name__)
NOT_LEARNED = {"checkpoint_every", "gate", "samples"}  # of a stage: what no weight depends on


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
        self.train_loader = train_loader(stage, options.seed, data)
        self.held_out_batches = held_out_batches(stage, self.validation, data)
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
        self.spikes = Spikes(stage.spikes)
        self.rolled_back = 0
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
            for batch in self._batches(metrics):
                metrics.write(self._train_step(batch))
                if self.spikes.must_go_back:
                    continue
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
        spikes = self.spikes.judge(batch, losses, grad_norm)
        if not spikes:
            self.optimizer.step()
            self.ema.update(self.named, self.step)
            self.meter.add(batch.task, losses)
            record["grad_norm"] = grad_norm
        else:
            self._leave_out(spikes)
            record |= {"skipped": spikes, "loss": loss if math.isfinite(loss) else None}
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

    def _batches(self, metrics: MetricsLog) -> Iterator[Batch]:
        """Batches to the last step, from the last checkpoint again where the run must go back."""
        while self.step < self.stage.steps:
            for batch in self.train_loader.batches(self.step, self.stage.steps):
                yield batch
                if self.spikes.must_go_back:
                    self._go_back()
                    metrics.rewind(self.step)
                    break

    def _leave_out(self, spikes: Mapping[str, str]) -> None:
        for key, why in spikes.items():
            log.warning("step %d: update left out for clip %s: its %s", self.step, key, why)
        for key in self.spikes.barred(spikes):
            self._bar(key, spikes[key])

    def _bar(self, key: str, why: str) -> None:
        log.warning("clip %s is left out from now on: its %s", key, why)
        self.train_loader.bar(key, why)
        if len(self.train_loader.barred) > self.stage.spikes.most_barred:
            raise Diverged(
                f"{len(self.train_loader.barred)} clips had to be left out of stage "
                f"{self.stage.name!r}, and {self.stage.spikes.most_barred} may "
                f"(spikes.most_barred). The last one was {key}: its {why}."
            )

    def _go_back(self) -> None:
        """To the last checkpoint, without the clips of the spikes that led here."""
        row, barred = self.spikes.row, dict(self.train_loader.barred)
        clips = {key: why for spikes in row for key, why in spikes.items()}
        found = checkpoints.latest(self.folder / "checkpoints")
        if found is None or self.rolled_back >= self.stage.spikes.roll_backs:
            told = "; ".join(f"{key}: its {why}" for key, why in clips.items())
            raise Diverged(
                f"training diverged: the losses of {len(row)} steps in a row spiked, the last of "
                f"them step {self.step - 1}, {'after' if found else 'without'} going back to a "
                f"checkpoint. {told}. Lower optim.lr, or see what these clips are (`reelmill "
                "why`). The last checkpoint is from before."
            )
        self.rolled_back += 1
        left = self.step
        self._restore(checkpoints.load(found, config=self.config))
        self.spikes.row.clear()
        self.train_loader.barred.update(barred)
        for key, why in clips.items():
            self._bar(key, why)
        log.warning("from step %d back to step %d, without those clips", left, self.step)

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
            "spikes": self.spikes.state(),
            "barred": self.train_loader.barred,
            "rolled_back": self.rolled_back,
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
        self.spikes.restore(point.state["spikes"])
        self.train_loader.barred = dict(point.state["barred"])
        self.rolled_back = max(self.rolled_back, int(point.state["rolled_back"]))
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
