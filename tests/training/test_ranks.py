"""Several ranks learn what one learns, sample for sample, and none outlives the others."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import poisoned_run
from tests.ray_nodes import below, command, wait_until_gone
from tests.scene_shards import film_sample, write_set
from tests.training.test_trainer import (
    assert_equal_runs,
    latents,
    make_curriculum,
    metrics,
    options,
    tensors,
)

from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import GateError, Interrupted, UsageError, WorkspaceError
from reelmill.flows.tasks import may_pass
from reelmill.training import checkpoint as checkpoints
from reelmill.training.config import Execution
from reelmill.training.curriculum import SpikeRule
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.run_folder import locked
from reelmill.training.trainer import train

__all__ = ["latents"]
TOLERANCE = 1e-9  # relative, of losses and weights in float64 after 12 steps


def exact(steps=12, **fields):
    return make_curriculum(steps, precision="fp64", **fields)


def ranks(latents, output, curriculum, count, **fields):
    execution = Execution(ranks=count, **fields)
    return replace(options(latents, output, curriculum), execution=execution, log_clips=True)


def clips(folder: Path) -> list[tuple[int, list[str]]]:
    lines = (folder / "joint" / "clips.jsonl").read_text().splitlines()
    return [(line["step"], line["clips"]) for line in map(json.loads, lines)]


def assert_near_runs(a, b, tolerance=TOLERANCE):
    left, right = tensors(a), tensors(b)
    for name, group in left.items():
        assert group.keys() == right[name].keys()
        for key, value in group.items():
            torch.testing.assert_close(right[name][key], value, rtol=tolerance, atol=tolerance)
    for one, other in zip(metrics(a), metrics(b), strict=True):
        assert one.keys() == other.keys()
        for key in ("loss", "held_out", "grad_norm"):
            if key in one:
                assert other[key] == pytest.approx(one[key], rel=tolerance)


@pytest.fixture(scope="module")
def alone(latents, tmp_path_factory):
    """One rank, in this process."""
    output = tmp_path_factory.mktemp("alone")
    train(ranks(latents, output, exact(), 1))
    return output


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(latents, alone, tmp_path):
    told = []
    job = ranks(latents, tmp_path, exact(), 2)
    result = train(job, lambda done, total, text: told.append((done, total)))
    assert (result.steps, result.resumed_from) == (12, 0)
    assert told[-1] == (12, 12)
    assert_near_runs(alone, tmp_path)
    assert clips(tmp_path) == clips(alone)
    assert (tmp_path / "export" / "model.json").is_file()


def test_a_batch_that_ranks_cannot_share_is_refused_before_any_work(tmp_path):
    latents = tmp_path / "nowhere"
    with pytest.raises(UsageError, match=r"batch of 4 .*'joint'.* 3 ranks"):
        train(ranks(latents, tmp_path / "a", exact(), 3))
    with pytest.raises(UsageError, match="groups of 2"):
        train(ranks(latents, tmp_path / "a", exact(), 3, context=2))
    with pytest.raises(UsageError, match="2 ranks in 4 parts each"):
        train(ranks(latents, tmp_path / "a", exact(), 2, accumulate=4))
    assert list(tmp_path.iterdir()) == []


CHILD = """
import logging, sys
from pathlib import Path
from reelmill.errors import ReelmillError
from reelmill.training.config import Execution, TrainOptions
from reelmill.training.curriculum import Curriculum
from reelmill.training.trainer import train
logging.basicConfig(level=logging.INFO)
text, latents, output, ranks = sys.argv[1:]
try:
    train(TrainOptions(Path(latents), Path(output), Curriculum.model_validate_json(text), threads=1,
                       unreviewed=True, log_clips=True, execution=Execution(ranks=int(ranks))))
except ReelmillError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start(latents, output, curriculum, count, log):
    words = [curriculum.model_dump_json(), latents, output, str(count)]
    with log.open("w") as file:
        return subprocess.Popen([sys.executable, "-c", CHILD, *words], stdout=file, stderr=file)


def steps_logged(output):
    path = output / "joint" / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for_step(process, output, step, log, told):
    """Until a run has said `told`, and logged so many steps."""
    until = time.monotonic() + 120
    while told not in log.read_text() or steps_logged(output) <= step:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.01)


def victim(process, kind):
    """Id of the flow, of torch's launcher or of a rank."""
    if kind == "flow":
        return process.pid
    family = {i: command(i) for i in below(process.pid)}
    if kind == "launcher":
        return next(i for i, words in family.items() if "rank torchrun" in words)
    found = [i for i, words in family.items() if "rank train" in words]
    return sorted(found)[int(kind.split()[1])]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [1, 2])
def test_kill_9_of_any_process_leaves_none_and_the_run_goes_on_bit_equal(latents, tmp_path, count):
    chance = random.Random(count)
    run = make_curriculum(20, checkpoint_every=3)
    train(ranks(latents, tmp_path / "whole", run, count))
    output, at, step = tmp_path / "killed", 0, 0
    kinds = ["flow", "rank 1", "launcher", "rank 0"] if count > 1 else ["flow"] * 4
    for number, kind in enumerate([*kinds, ""]):
        log = tmp_path / f"{number}.txt"
        process = start(latents, output, run, count, log)
        resumed = f"goes on from step {step}" if step else ""
        if kind:
            at = min(at + chance.randrange(1, 6), 18)
            wait_for_step(process, output, at, log, resumed)
            time.sleep(chance.uniform(0, 0.1))
            family = [process.pid, *below(process.pid)]
            os.kill(victim(process, kind), signal.SIGKILL)
            wait_until_gone(family, 10)
            assert process.wait() == (-9 if kind == "flow" else 75), log.read_text()
        else:
            assert process.wait() == 0, log.read_text()
        assert resumed in log.read_text()
        found = checkpoints.latest(output / "joint" / "checkpoints")
        step = int(found.name[5:]) if found else 0
    assert step == 20
    assert_equal_runs(tmp_path / "whole", output)
    assert clips(tmp_path / "whole") == clips(output)


@pytest.mark.slow
def test_ranks_skip_and_bar_the_clips_that_one_rank_does(tmp_path):
    films = write_set(tmp_path / "shards", [film_sample(i, seconds=1.1) for i in range(24)])
    request = EncodeOptions((films,), tmp_path / "set", height=32, width=32, frames=(9,), stride=4)
    found = encode(request).output
    rule = SpikeRule(above=8, after=8, strikes=1, in_a_row=6)
    run = exact(40, tasks={"t2v": 1.0}, spikes=rule, max_corrupt=1)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, before in (("one", []), ("two", launcher)):
        job = ranks(found, tmp_path / name, run, 1)
        (tmp_path / f"{name}.json").write_bytes(poisoned_run.OPTIONS.dump_json(job))
        words = [sys.executable, *before, poisoned_run.__file__, tmp_path / f"{name}.json"]
        subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    skipped = [line["skipped"] for line in metrics(tmp_path / "one") if "skipped" in line]
    with LatentDataset(found) as data:
        wild, damaged = poisoned_run.planted(found, 0.3)
        assert {k for each in skipped for k in each} == {data.column("key")[r] for r in wild}
        assert data.column("key")[damaged] not in {
            k for _, keys in clips(tmp_path / "two") for k in keys
        }
    again = [line["skipped"] for line in metrics(tmp_path / "two") if "skipped" in line]
    assert [set(each) for each in again] == [set(each) for each in skipped]
    assert_near_runs(tmp_path / "one", tmp_path / "two")
    assert clips(tmp_path / "one") == clips(tmp_path / "two")
    states = [
        json.loads(
            (checkpoints.latest(tmp_path / n / "joint/checkpoints") / "state.json").read_text()
        )
        for n in ("one", "two")
    ]
    for field in ("barred", "corrupt"):
        assert states[0][field].keys() == states[1][field].keys()
    assert len(states[0]["corrupt"]) == 1


@pytest.mark.slow
def test_a_lost_rank_is_an_error_after_which_a_flow_tries_again(latents, tmp_path):
    killed = []

    def kill(done, total, text):
        if done >= 3 and not killed:
            killed.append(next(i for i in below(os.getpid()) if "rank train" in command(i)))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(Interrupted, match="was killed") as error:
        train(ranks(latents, tmp_path, make_curriculum(400, validate_every=400), 2), kill)
    assert may_pass(error.value)
    assert not [i for i in below(os.getpid()) if "rank train" in command(i)]


@pytest.mark.slow
def test_what_a_rank_finds_wrong_is_raised_where_it_was_asked(latents, tmp_path):
    with pytest.raises(GateError, match="approve"):
        train(replace(ranks(latents, tmp_path, exact(), 2), unreviewed=False))
    with (
        locked(tmp_path),
        pytest.raises(WorkspaceError, match=f"being trained in by process {os.getpid()}"),
    ):
        train(ranks(latents, tmp_path, exact(), 2))


def epochs(latents, folder, steps):
    """Clips of each whole epoch of a run of one task, by the log."""
    with LatentDataset(latents) as data:
        held = held_out_rows(data.column("asset"), 0.3)
        good = ~held & (np.array(data.column("frames")) > 1)
        keys = {data.column("key")[row] for row in np.flatnonzero(good)}
    logged = clips(folder)
    assert [step for step, _ in logged] == list(range(steps))
    seen = [key for _, batch in logged for key in batch]
    whole = range(0, len(seen) - len(keys) + 1, len(keys))
    return keys, [seen[first : first + len(keys)] for first in whole]


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_a_run_goes_on_with_more_or_fewer_ranks(latents, tmp_path, first):
    run = exact(18, tasks={"t2v": 1.0}, checkpoint_every=100)
    train(ranks(latents, tmp_path / "whole", run, 1))

    asked = []

    def stop(done, total, text):
        if done >= 5 and not asked:
            asked.append(done)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="training stopped at step"):
        train(ranks(latents, tmp_path / "run", run, first), stop)
    result = train(ranks(latents, tmp_path / "run", run, 3 - first))
    assert 5 <= result.resumed_from < 18
    assert_near_runs(tmp_path / "whole", tmp_path / "run")
    keys, found = epochs(latents, tmp_path / "run", 18)
    assert len(found) >= 2
    for epoch in found:
        assert len(epoch) == len(set(epoch)) == len(keys)
        assert set(epoch) == keys


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_starts_the_command_line(tmp_path):
    shards = write_set(tmp_path / "shards", [film_sample(i, seconds=1.1) for i in range(12)])
    found = encode(EncodeOptions((shards,), tmp_path / "set", height=64, width=64, frames=(9,)))
    open_workspace(tmp_path / "w")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "reelmill"]
    asked = ["train", "-w", tmp_path / "w", "--latents", found.output, "--stage", "sync"]
    done = subprocess.run(
        [sys.executable, *words, *asked, "--unreviewed", "--json", "--log-clips"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["steps"] == 150
    log = tmp_path / "w" / "checkpoints" / "demo" / "sync" / "clips.jsonl"
    assert len(log.read_text().splitlines()) == 150
    told = [json.loads(line)["clips"] for line in log.read_text().splitlines()]
    assert {len(clips) for clips in told} == {16}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_train_gives_the_losses_of_torchrun(latents, tmp_path):
    train(ranks(latents, tmp_path / "torchrun", exact(), 2))
    train(ranks(latents, tmp_path / "ray", exact(), 2, launcher="ray"))
    assert_equal_runs(tmp_path / "torchrun", tmp_path / "ray")
    assert clips(tmp_path / "torchrun") == clips(tmp_path / "ray")
    with pytest.raises(GateError, match="approve"):
        train(replace(ranks(latents, tmp_path / "x", exact(), 2, launcher="ray"), unreviewed=False))
