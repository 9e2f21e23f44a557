import pytest
from pydantic import ValidationError

from reelmill.errors import GateError
from reelmill.training.curriculum import Curriculum, DataRule, Model, Retention, TrainStage
from reelmill.training.mini import LINES, MINI
from reelmill.training.paper import PAPER
from reelmill.training.retention import judge, require


def stage(name, tasks, before=None, **fields):
    base = {"name": name, "tasks": tasks, "steps": 1, "batch": 1, "init_from": before}
    return TrainStage(**(base | fields))


def make(**fields):
    small, large = DataRule(heights=(64,)), DataRule(heights=(96,))
    rule = Retention(allowance=0.1, of_task={"t2i": 0.5})
    stages = (
        stage("one", {"t2i": 1.0}, data=small),
        stage("two", {"t2i": 1.0, "t2v": 3.0}, "one", data=small),
        stage("three", {"t2v": 1.0}, "two", data=large, retention=rule),
    )
    return Curriculum(name="x", model=Model(), stages=stages, cumulative=True, **fields)


def test_a_stage_is_measured_on_all_that_was_learned_up_to_it():
    found = make()
    told = [
        [(c.name, c.task, c.stage.name, c.weight) for c in found.checks(s)] for s in found.stages
    ]
    assert told[0] == [("t2i", "t2i", "one", 1.0)]
    assert told[1] == [("t2i", "t2i", "one", 1.0), ("t2v", "t2v", "two", 3.0)]
    assert told[2] == [
        ("t2i", "t2i", "one", 0.0),
        ("t2v", "t2v", "two", 0.0),
        ("t2v@three", "t2v", "three", 1.0),
    ]


def judged(last):
    found = make()
    three = found.stages[2]
    first = {"t2i": 1.0, "t2v": 1.0, "t2v@three": 2.0}
    return three, judge(three, found.checks(three), first, last, {"t2i": 1.0, "t2v": 1.0})


def test_a_stage_that_forgets_within_its_allowance_is_promoted():
    three, found = judged({"t2i": 1.49, "t2v": 1.09, "t2v@three": 1.0})
    require(three, found)
    assert (found.before, found.after) == (2.0, 1.0)
    assert [k.bound for k in found.tasks] == [1.5, pytest.approx(1.1), None]


def test_a_stage_that_forgets_more_ends_the_run_with_what_it_forgot():
    three, found = judged({"t2i": 1.51, "t2v": 1.2, "t2v@three": 1.0})
    with pytest.raises(
        GateError, match=r"t2i is 1.5100, was 1.0000, and may rise by 50%.*t2v is 1.2"
    ):
        require(three, found)
    assert GateError.exit_code == 4


def test_a_stage_that_learns_nothing_is_not_promoted():
    three, found = judged({"t2i": 1.0, "t2v": 1.0, "t2v@three": 2.0})
    with pytest.raises(GateError, match="did not fall"):
        require(three, found)


def test_retention_is_judged_where_all_is_measured_on_the_same_files():
    with pytest.raises(ValidationError, match="cumulative"):
        Curriculum(name="x", model=Model(), stages=make().stages)
    stages = (make().stages[0], stage("b", {"t2v": 1.0}, held_out=0.2))
    with pytest.raises(ValidationError, match="same share"):
        Curriculum(name="x", model=Model(), stages=stages, cumulative=True)


def test_mini_has_the_rows_of_the_paper_in_their_order():
    assert [s.name for s in MINI.stages] == [row.name for row in PAPER]
    for row, mini, before in zip(PAPER, MINI.stages, (None, *MINI.stages), strict=False):
        assert mini.tasks == row.tasks
        assert mini.init_from == (before.name if before else None)
        assert mini.retention is not None
        if row.heights and not row.keyframes:
            assert set(mini.data.heights) - {0} == {LINES[lines] for lines in row.heights}
    assert [s.name for s in MINI.stages if s.refiner] == ["refiner"]
    learned = [check.name for check in MINI.checks(MINI.stages[-2])]
    tasks = {task for row in PAPER[:-1] for task in row.tasks}
    assert tasks <= set(learned)
