"""A gate between stages of training: who may go on, who may not, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.evaluation.footage import prompt
from tests.scene_shards import film_sample, write_set
from typer.testing import CliRunner

from reelmill.errors import GateError, UsageError
from reelmill.evaluation.history import read_history
from reelmill.flows.promotion import EVALUATIONS, train
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import (
    Curriculum,
    GateBound,
    Model,
    Optim,
    StageGate,
    TrainStage,
    read_gate,
)
from reelmill.training.encode import EncodeOptions, encode

CERTAIN_TO_FALL = {"OnsetAgreement": GateBound(required=True)}  # no prompt of ours knows onsets
NEVER_FALLS = {"Sharpness": GateBound(may_fall=1e6)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of a few clips, and a bench of five prompts, one of which says what must be seen."""
    folder = tmp_path_factory.mktemp("promotion")
    shards = write_set(folder / "shards", [film_sample(i, seconds=1.1) for i in range(8)])
    encode(EncodeOptions(
        shards=(shards,), output=folder / "latents", height=32, width=32, frames=(9,), stride=4
    ))  # fmt: skip
    rows = [prompt(id=f"p{i}", seconds=0.6, scene_known=True) for i in range(5)]
    text = yaml.safe_dump([p.model_dump(mode="json") for p in rows])
    (folder / "bench.yaml").write_text(text)
    return folder


def options(home: Path, output: Path, bounds: dict[str, GateBound]) -> TrainOptions:
    """Three stages; the second has a gate."""
    gates = [NEVER_FALLS, bounds, NEVER_FALLS]
    stages = tuple(
        TrainStage(
            name=f"s{i}",
            init_from=f"s{i - 1}" if i else None,
            tasks={"t2av": 1.0},
            steps=2,
            batch=2,
            optim=Optim(warmup_steps=1),
            held_out=0.3,
            gate=StageGate(
                bounds=bound, prompts=str(home / "bench.yaml"), frames=9, height=32, width=32,
                steps=2,
            ),
        )
        for i, bound in enumerate(gates)
    )  # fmt: skip
    model = Model(preset="tiny", patch=(1, 4, 4))
    curriculum = Curriculum(name="gated", model=model, stages=stages)
    return TrainOptions(home / "latents", output, curriculum, unreviewed=True, threads=1)


@pytest.mark.slow
def test_a_stage_that_does_not_pass_ends_the_run_before_the_next_and_says_why(
    home: Path, tmp_path: Path
):
    chosen = options(home, tmp_path, CERTAIN_TO_FALL)
    with pytest.raises(GateError, match="'s1' is not promoted over 's0': OnsetAgreement") as e:
        train(chosen)
    assert e.value.exit_code == 4
    assert (tmp_path / EVALUATIONS / "s1.html").exists()
    assert not (tmp_path / "s2").exists()
    passed = [(p.name, p.promoted) for p in read_history(tmp_path / EVALUATIONS)]
    assert passed == [("s0", True), ("s1", False)]

    # With another gate, the same run goes on from where it is: s1 is not trained again.
    result = train(options(home, tmp_path, NEVER_FALLS))
    assert [stage.name for stage in result.stages] == ["s0", "s1", "s2"]
    assert [stage.resumed_from for stage in result.stages] == [2, 2, 0]
    assert [p.promoted for p in read_history(tmp_path / EVALUATIONS)] == [True, True, True]


def test_a_gate_is_data_and_a_wrong_one_is_named(tmp_path: Path):
    path = tmp_path / "gate.yaml"
    path.write_text("bounds: {Sharpness: {may_fall: 0.01}}\nprompts: bench.yaml\nlimit: 3\n")
    gate = read_gate(path)
    assert gate.bounds == {"Sharpness": GateBound(may_fall=0.01)}
    assert gate.prompts == str(tmp_path / "bench.yaml")
    for text, told in (
        ("bounds: {}", "bounds"),
        ("bounds: {Sharpness: {may_fall: -1}}", "may_fall"),
        ("[1", "YAML"),
        ("limit: 3", "bounds"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=told):
            read_gate(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_gate(tmp_path / "none.yaml")


def test_the_command_takes_a_gate():
    from reelmill.cli import app

    told = CliRunner().invoke(app, ["train", "--help"]).output
    assert "--gate" in told
