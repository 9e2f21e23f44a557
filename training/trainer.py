"""Runs a curriculum: stage after stage, resumable at any step, the same numbers every time.

<output>/<stage>/checkpoints/step-........   see training/checkpoint.py
<output>/<stage>/metrics.jsonl               a line per step, and per validation
<output>/export/                             EMA weights for model/pipeline.py

What runs here runs on every rank alike (training/ranks.py); the first one writes.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from reelmill import __version__
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.loader import Batch
from reelmill.errors import DatasetError, Diverged, Interrupted
from reelmill.kernels.sparsity import SparsitySchedule
from reelmill.model.sparse import Shares
from reelmill.training import checkpoint as checkpoints
from reelmill.training import parallel, retention, sharding
from reelmill.training.checkpoint import Checkpoint
from reelmill.training.config import Progress, StageResult, TrainOptions, TrainResult, silent
from reelmill.training.context_parallel import share_context
from reelmill.training.curriculum import Objective, TrainStage
from reelmill.training.export import export_model, require_exportable
from reelmill.training.gate import require_approval
from reelmill.training.layers import prepare_layers
from reelmill.training.metrics import Meter, RunLogs
from reelmill.training.objective import Losses, draw, flow_loss, held_out_draw
from reelmill.training.optim import EMA, clip, gradients, learning_rate, make_adamw
from reelmill.training.pace import Pace
from reelmill.training.ranks import Ranks, joined
from reelmill.training.run_folder import locked, stop_requests
from reelmill.training.samples import save_samples
from reelmill.training.spikes import Spikes
from reelmill.training.stage_data import HELD_OUT_DRAWS, held_out_batches, train_loader
from reelmill.training.stage_model import stage_model
from reelmill.training.step import Outcome, outcome, part, parts
from reelmill.training.tasks import TASKS
from reelmill.training.writer import Writer

log = logging.getLogger(__name__)


def train(options: TrainOptions, progress: Progress = silent) -> TrainResult:
    """Runs the stages of a curriculum that are not done yet, then exports the EMA weights.

    By `options.execution.ranks` processes, or as one of those that torchrun started. Raises
    UsageError (a batch that they cannot share), GateError (shards nobody approved), DatasetError
    (latents), CheckpointError (the output folder holds another run), Diverged, and Interrupted
    after SIGINT or SIGTERM, when everything up to the last whole step is saved, or after a rank was
    killed: the same call goes on from there.
    """
    stages = options.curriculum.wanted(options.stages)
    if options.execution.ranks > 1 and not parallel.is_rank():
        for stage in stages:
            parallel.planned(options).check(stage.name, stage.shared, options.execution.accumulate)
        return parallel.launch(options, progress)
    with joined(options.execution.context) as ranks:
        for stage in stages:
            ranks.check(stage.name, stage.shared, options.execution.accumulate)
        if options.threads:
            torch.set_num_threads(options.threads)
        return _train(options, stages, ranks, progress if ranks.first else silent)


def _train(
    options: TrainOptions, stages: list[TrainStage], ranks: Ranks, progress: Progress
) -> TrainResult:
    with LatentDataset(options.latents) as data, stop_requests() as stop:
        approvals = require_approval(data, unreviewed=options.unreviewed)
        data.require_whole()
        if options.base is None:
            require_exportable(data)
        results: list[StageResult] = []
        with locked(options.output, ranks.first):
            for stage in stages:
                run = StageRun(stage, options, data, approvals, stop, ranks)
                results.append(run.run(progress))
                retention.require(stage, run.judged)
            if ranks.first:
                last = checkpoints.load(results[-1].checkpoint)
                export_model(options.output / "export", last, data, run.base)
    return TrainResult.of(results, options.output / "export", unreviewed=not approvals)


class StageRun:
    """One stage: its model, optimiser, loaders, and the loop over steps."""

    def __init__(
        self,
        stage: TrainStage,
        options: TrainOptions,
        data: LatentDataset,
        approvals: Mapping[str, str],
        stop: threading.Event,
        ranks: Ranks,
    ):
        self.stage, self.options, self.data, self.stop = stage, options, data, stop
        self.ranks, self.how = ranks, options.execution
        self.folder = options.output / stage.name
        self.checks = options.curriculum.checks(stage)
        self.validation = {check.name: check.weight for check in self.checks}
        self.held_out_batches = {
            name: _share(batch, ranks)
            for name, batch in held_out_batches(self.checks, data).items()
        }
        self.constants = {n: torch.from_numpy(a).float() for n, a in data.constants.items()}
        self.unreviewed = not approvals
        made = stage_model(stage, options, data)
        self.model, self.config = made.model, made.config
        self.base, self.learned = made.base, made.learned
        self.train_loader = train_loader(stage, options.seed, data, self.model.config.video.patch)
        prepare_layers(self.model, recompute=self.how.recompute, compiled=self.how.compile)
        share_context(self.model, ranks)
        sharding.shard(self.model, ranks)
        self.named = dict(self.model.named_parameters())
        self.optimizer = make_adamw(self.named.items(), stage.optim)
        self.ema = EMA(self.named.items(), stage.optim.ema_decay)
        self.step = 0
        self.spikes = Spikes(stage.spikes)
        self.rolled_back = 0
        self.held_out_objective = Objective(video_floor=stage.objective.video_floor)
        self.meter, self.pace = Meter(), Pace(self.model.config, ranks)
        self.held_out: list[tuple[int, float]] = []
        self.by_task: dict[str, dict[str, float]] = {}

    def run(self, progress: Progress) -> StageResult:
        """Trains from the newest whole checkpoint, or from the start, to the last step."""
        stage, began, options = self.stage, time.monotonic(), self.options
        self._restore()
        resumed_from = self.step
        if self.step == 0:
            self._validate()
        with (
            RunLogs(
                self.folder,
                self.step,
                on=self.ranks.first,
                tensorboard=options.tensorboard,
                clips=options.log_clips,
            ) as logs,
            Writer(self._checkpoints, background=self.how.background) as self.writer,
        ):
            for batch in self._batches(logs):
                found = self._train_step(batch, logs)
                if self.spikes.must_go_back:
                    continue
                if self.step % stage.validate_every == 0 or self.step == stage.steps:
                    logs.write(self._validate())
                text = f"{stage.name}: held-out loss {self.held_out[-1][1]:.4f}"
                progress(self.step, stage.steps, text)
                asked = found.stop if self.ranks.world > 1 else self.stop.is_set()
                stopped = asked and self.step < stage.steps
                if stopped or self.step % stage.checkpoint_every == 0 or self.step == stage.steps:
                    self._save()
                if stopped:
                    self.writer.wait()
                    raise Interrupted(
                        f"training stopped at step {self.step} of {stage.steps} of stage "
                        f"{stage.name!r}; it is saved in {self._checkpoints}. The same command "
                        "goes on."
                    )
            self.writer.wait()
        if self.ranks.first:
            retention.write(self.folder, self.judged)
        self.ranks.gather(None)
        return StageResult(
            name=stage.name,
            steps=self.step,
            loss_start=self.held_out[0][1],
            loss_end=self.held_out[-1][1],
            checkpoint=checkpoints.place(self._checkpoints, self.step),
            resumed_from=resumed_from,
            corrupt=len(self.train_loader.corrupt),
            seconds=time.monotonic() - began,
        )

    @property
    def judged(self) -> retention.Judgement:
        """What the stage made of the held-out losses, its own and those of the stages before it."""
        first, last = self.by_task["first"], self.by_task["last"]
        return retention.judge(self.stage, self.checks, first, last, self.learned)

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _train_step(self, batch: Batch, logs: RunLogs) -> Outcome:
        """One update. A loss or gradient that is not finite is never applied."""
        stage, began = self.stage, time.perf_counter()
        rate = learning_rate(self.step, stage.steps, stage.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        each: list[Losses] = []
        for some in parts(batch, self.how.accumulate):
            draws = draw(self.options.seed, self.step, some, stage.objective)
            each.append(
                flow_loss(
                    self.model,
                    TASKS[batch.task],
                    some,
                    draws,
                    stage.objective,
                    self.constants,
                    sparsity=self._sparsity(self.step),
                    bf16=stage.precision == "bf16",
                )
            )
            (each[-1].total / self.how.accumulate).backward()
        norm = torch.nn.utils.get_total_norm(gradients(self.named.values())).item()
        found = outcome(self.ranks, batch, each, norm, self.stop.is_set())
        loss = found.losses.total.item()
        record = {"step": self.step, "task": batch.task, "loss": loss, "lr": rate}
        spikes = self.spikes.judge(found.batch, found.losses, found.norm)
        if not spikes:
            clip(self.named.values(), found.norm, stage.optim.clip_norm)
            self.optimizer.step()
            self.ema.update(self.named, self.step)
            self.meter.add(batch.task, found.losses)
            record["grad_norm"] = found.norm
        else:
            self._leave_out(spikes)
            record |= {"skipped": spikes, "loss": loss if math.isfinite(loss) else None}
        logs.clips(self.step, batch.task, found.batch.keys)
        self.step += 1
        seconds = time.perf_counter() - began
        record["seconds"] = round(seconds, 4)
        if self.ranks.first:
            shares = self._sparsity(self.step - 1) or ()
            record["pace"] = self.pace.step(batch, len(found.batch.keys), seconds, shares)
            logs.write(record)
        return found

    def _sparsity(self, step: int) -> Shares | None:
        if not self.model.config.video.sparse:
            return None
        schedule = SparsitySchedule(
            target=self.stage.sparsity, dense_layers=self.stage.dense_layers
        )
        return [schedule.training(step, layer) for layer in range(len(self.model.layers))]

    def _batches(self, logs: RunLogs) -> Iterator[Batch]:
        """Batches to the last step, from the last checkpoint again where the run must go back."""
        while self.step < self.stage.steps:
            batches = self.train_loader.batches(self.step, self.stage.steps, *self.ranks.share)
            for batch in self.pace.waiting(batches):
                yield batch
                if self.spikes.must_go_back:
                    self._go_back()
                    logs.rewind(self.step)
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
        self.writer.wait()
        found = self.ranks.tell(self._newest())
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
        self._restore()
        self.spikes.row.clear()
        self.train_loader.barred.update(barred)
        for key, why in clips.items():
            self._bar(key, why)
        log.warning("from step %d back to step %d, without those clips", left, self.step)

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        """Held-out loss of the EMA weights per task, on noise and times that never change."""
        by_task: dict[str, float] = {}
        total = 0.0
        with self.ema.in_place(self.named):
            for task, batch in self.held_out_batches.items():
                losses = flow_loss(
                    self.model,
                    TASKS[batch.task],
                    batch,
                    held_out_draw(batch, HELD_OUT_DRAWS),
                    self.held_out_objective,
                    self.constants,
                    sparsity=self._sparsity(self.stage.steps),
                    bf16=self.stage.precision == "bf16",
                )
                told = self.ranks.shares(self.ranks.gather(losses.total.item()))
                by_task[task] = sum(told) / len(told)
                total += self.validation[task] * by_task[task]
        loss = total / sum(self.validation.values())
        if not math.isfinite(loss):
            raise Diverged(f"held-out loss is {loss} at step {self.step}: lower optim.lr.")
        self.held_out.append((self.step, loss))
        self.by_task = {"first": self.by_task.get("first", by_task), "last": by_task}
        return {
            "step": self.step,
            "held_out": loss,
            "held_out_by_task": by_task,
            "train": self.meter.take(),
        }

    def _save(self) -> None:
        for corrupt in self.ranks.gather(self.train_loader.corrupt):
            self.train_loader.corrupt |= corrupt
        if len(self.train_loader.corrupt) > self.stage.max_corrupt:
            raise DatasetError(
                f"{len(self.train_loader.corrupt)} damaged samples, and {self.stage.max_corrupt} "
                f"are allowed (max_corrupt): {', '.join(self.train_loader.corrupt)}."
            )
        state = {
            "held_out": self.held_out,
            "by_task": self.by_task,
            "learned": self.learned,
            "meter": self.meter.sums,
            "spikes": self.spikes.state(),
            "barred": self.train_loader.barred,
            "rolled_back": self.rolled_back,
            "corrupt": self.train_loader.corrupt,
            "unreviewed": self.unreviewed,
            "version": __version__,
        }
        first = self.ranks.first
        point = Checkpoint(
            step=self.step,
            weights=sharding.whole(self.named, first),
            ema=sharding.whole(self.ema.average, first),
            optimizer=sharding.whole(
                checkpoints.optimizer_state(self.optimizer, self.named), first
            ),
            state=state,
            config=self.config,
        )
        if not first:
            return
        self.writer.save(point)
        if self.stage.samples and not self.stage.refiner:
            save_samples(self.folder / "samples", point, self.data, self.stage)

    def _newest(self) -> Path | None:
        return checkpoints.latest(self._checkpoints) if self.ranks.first else None

    def _restore(self) -> None:
        """Takes up the newest checkpoint that is whole, where there is one."""
        found = self.ranks.tell(self._newest())
        if found is None:
            return
        point = checkpoints.load(found, config=self.config)
        sharding.load(self.named, point.weights)
        sharding.load(self.ema.average, point.ema)
        checkpoints.restore_optimizer(self.optimizer, self.named, point.optimizer)
        self.step = point.step
        self.held_out = [(int(step), float(loss)) for step, loss in point.state["held_out"]]
        self.by_task = {name: dict(of) for name, of in point.state["by_task"].items()}
        self.meter.sums = {name: list(pair) for name, pair in point.state["meter"].items()}
        self.spikes.restore(point.state["spikes"])
        self.train_loader.barred = dict(point.state["barred"])
        self.rolled_back = max(self.rolled_back, int(point.state["rolled_back"]))
        self.train_loader.corrupt.update(point.state["corrupt"])
        self.unreviewed = self.unreviewed or bool(point.state["unreviewed"])
        log.info("stage %s goes on from step %d", self.stage.name, self.step)


def _share(batch: Batch, ranks: Ranks) -> Batch:
    """A rank's part of a held-out batch: all of it, where that cannot be shared alike."""
    place, of = ranks.share
    return batch if len(batch.slots) % of else part(batch, slice(place, None, of))
