"""Spikes are left out, traced to clips that were planted, and the run goes back or ends."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.scene_shards import film_sample, write_set
from tests.training.test_trainer import assert_equal_runs, make_curriculum, metrics, options

from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.loader import Batch
from reelmill.errors import Diverged, Interrupted
from reelmill.reports.training import render_training
from reelmill.training import trainer
from reelmill.training.curriculum import SpikeRule
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.objective import Losses
from reelmill.training.spikes import Spikes
from reelmill.training.trainer import train

pytestmark = pytest.mark.long
RULE = SpikeRule(above=8, after=8, strikes=2)


def batch(keys, task="t2v") -> Batch:
    slots = np.arange(len(keys))
    return Batch(0, task, slots, tuple(keys), np.zeros((len(keys), 1)), None, None, None, (), ())


def losses(values, t=0.5) -> Losses:
    return Losses(torch.zeros(()), torch.tensor(values), None, torch.full((len(values),), t))


def steady(spikes: Spikes, steps: int = 16) -> None:
    for n in range(steps):
        assert (
            spikes.judge(batch("abcd"), losses([1.0, 1.1, 0.9, 1.05]), 0.5 + 0.01 * (n % 3)) == {}
        )


def test_a_clip_far_above_its_kind_is_a_spike_and_its_neighbours_are_not():
    spikes = Spikes(RULE)
    steady(spikes)
    assert (
        spikes.judge(batch("abcd"), losses([1.0, 1.1, 5.0, 1.0]), 0.5) == {}
    )  # e^1.6: below 8 x .25
    found = spikes.judge(batch("abxd"), losses([1.0, 1.1, 9.0, 1.0]), 0.5)
    assert list(found) == ["x"]
    assert "9" in found["x"]
    assert "t = 0.50" in found["x"]
    assert spikes.barred(found) == []
    assert spikes.barred(spikes.judge(batch("abxd"), losses([1.0, 1.1, 9.0, 1.0]), 0.5)) == ["x"]


def test_losses_are_compared_with_those_of_the_same_time():
    spikes = Spikes(RULE)
    for _ in range(16):
        assert spikes.judge(batch("ab"), losses([1.0, 1.1], t=0.05), 0.5) == {}
        assert spikes.judge(batch("ab"), losses([0.01, 0.011], t=0.95), 0.5) == {}
    assert spikes.judge(batch("ab"), losses([1.0, 0.01], t=0.95), 0.5).keys() == {"a"}
    assert spikes.judge(batch("ab"), losses([1.0, 1.1], t=0.05), 0.5) == {}


def test_the_gradient_alone_is_laid_to_the_whole_batch():
    spikes = Spikes(RULE)
    steady(spikes)
    assert spikes.judge(batch("abcd"), losses([1.0] * 4), 50.0).keys() == set("abcd")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_a_spike_from_the_first_step_on(value):
    spikes = Spikes(SpikeRule())
    assert spikes.judge(batch("ab"), losses([1.0, value]), 0.5).keys() == {"b"}
    assert spikes.judge(batch("ab"), losses([1.0, 1.0]), value).keys() == {"a", "b"}
    assert not spikes.must_go_back
    assert spikes.judge(batch("ab"), losses([value, value]), value).keys() == {"a", "b"}
    assert spikes.must_go_back


def test_the_state_goes_through_json():
    one, two = Spikes(RULE), Spikes(RULE)
    steady(one)
    one.judge(batch("ab"), losses([1.0, 99.0]), 0.5)
    two.restore(json.loads(json.dumps(one.state())))
    assert two == one


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    shards = write_set(root / "shards", [film_sample(i, seconds=1.1) for i in range(24)])
    settings = EncodeOptions(
        shards=(shards,), output=root / "set", height=32, width=32, frames=(9,), stride=4
    )
    return encode(settings).output


def poison(monkeypatch, latents, count: int, times: float = 40.0) -> set[str]:
    """Makes clips that are trained on come out of the set as nothing that a codec writes."""
    with LatentDataset(latents) as data:
        held = held_out_rows(data.column("asset"), 0.3)
        rows = np.flatnonzero(~held)[:count].tolist()
        keys = {data.column("key")[row] for row in rows}
    members = LatentDataset.members

    def poisoned(self, wanted):
        found = members(self, wanted)
        for number, row in enumerate(wanted):
            if row in rows:
                found.one(number, "video")[...] *= times
        return found

    monkeypatch.setattr(LatentDataset, "members", poisoned)
    return keys


def curriculum(**fields):
    rule = SpikeRule(above=8, after=8, strikes=1, in_a_row=6)
    return make_curriculum(**({"steps": 40, "tasks": {"t2v": 1.0}, "spikes": rule} | fields))


def test_three_poisoned_clips_are_named_and_no_others(latents, tmp_path, monkeypatch):
    keys = poison(monkeypatch, latents, 3)
    train(options(latents, tmp_path / "run", curriculum()))
    named = [line["skipped"] for line in metrics(tmp_path / "run") if "skipped" in line]
    assert {key for found in named for key in found} == keys
    assert len(named) <= 3  # barred by then
    page = render_training(tmp_path / "run")
    assert all(key in page for key in keys)

    def interrupt(done, total, text):
        if done == 20:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        train(options(latents, tmp_path / "twice", curriculum()), interrupt)
    train(options(latents, tmp_path / "twice", curriculum()))
    assert_equal_runs(tmp_path / "run", tmp_path / "twice")


def test_spikes_in_a_row_go_back_to_a_checkpoint_and_then_end(latents, tmp_path, monkeypatch):
    run = curriculum(spikes=SpikeRule(above=8, after=8, in_a_row=2, roll_backs=1))
    step = trainer.flow_loss
    wild: list[int] = []
    far = 20.0

    def breaking(*args, **kwargs):
        """From step 14 on, for as often as `wild` says: losses as those of a model that broke."""
        found = step(*args, **kwargs)
        if torch.is_grad_enabled() and args[2].step >= 14 and len(wild) < times:
            wild.append(args[2].step)
            return replace(found, total=found.total * far, video=found.video * far)
        return found

    monkeypatch.setattr(trainer, "flow_loss", breaking)
    times = 2
    train(options(latents, tmp_path / "once", run))
    assert wild == [14, 15]
    steps = [line["step"] for line in metrics(tmp_path / "once") if "held_out" not in line]
    assert steps == list(range(40))  # what was taken back was logged once
    assert not any("skipped" in line for line in metrics(tmp_path / "once"))
    wild.clear()
    times = 10**6
    with pytest.raises(Diverged, match=r"2 steps in a row spiked, the last of them step \d+"):
        train(options(latents, tmp_path / "ever", run))
