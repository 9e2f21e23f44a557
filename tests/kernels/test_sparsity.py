from __future__ import annotations

import pytest

from reelmill.errors import UsageError
from reelmill.kernels.sparsity import SparsitySchedule


def test_training_rises_in_steps_and_ends_at_the_target():
    schedule = SparsitySchedule(target=0.9, rate=0.05, interval=10)
    values = [schedule.training(step, layer=0) for step in range(0, 300, 10)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[17] == 0.85
    assert values[18:] == [0.9] * 12
    assert schedule.training(9, 0) == 0
    assert schedule.training(10, 0) == 0.05


def test_a_target_between_steps_is_reached():
    assert SparsitySchedule(target=0.1, rate=0.03, interval=1).training(4, 0) == 0.1
    assert SparsitySchedule(target=0.5, rate=0).training(0, 0) == 0.5


def test_layers_and_first_sampling_steps_may_stay_dense():
    schedule = SparsitySchedule(target=0.5, dense_layers=(0, 3), dense_steps=2)
    assert schedule.training(10_000, 3) is None
    assert schedule.training(10_000, 1) == 0.5
    assert [schedule.sampling(step, 1) for step in range(4)] == [None, None, 0.5, 0.5]
    assert schedule.sampling(3, 0) is None


@pytest.mark.parametrize("wrong", [{"target": 1}, {"rate": -0.1}, {"interval": 0}])
def test_shares_are_shares(wrong):
    with pytest.raises(UsageError):
        SparsitySchedule(**wrong)
