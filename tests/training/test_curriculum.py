import itertools
import math

import pytest
import torch
from pydantic import ValidationError

from reelmill.errors import UsageError
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.rope import rope, rotate
from reelmill.training.curricula import CURRICULA, curriculum
from reelmill.training.curriculum import Curriculum, Model, Optim, TrainStage
from reelmill.training.optim import learning_rate, make_adamw


@pytest.mark.parametrize("name", CURRICULA)
def test_built_in_curricula_survive_a_round_trip_and_build(name):
    found = curriculum(name)
    assert Curriculum.model_validate_json(found.model_dump_json()) == found
    with torch.device("meta"):
        model = MMDiT(found.model.config(4, 40, 64))
    assert model.config.video.out_ch == 4


def test_an_unknown_curriculum_lists_those_there_are():
    with pytest.raises(UsageError, match="demo, demo_full"):
        curriculum("nonesuch")


@pytest.mark.parametrize(
    "fields",
    [
        {"tasks": {}},
        {"tasks": {"t2x": 1.0}},
        {"tasks": {"t2v": 0.0}},
        {"steps": 0},
        {"name": "../up"},
        {"colour": "red"},
        {"held_out": 1.0},
    ],
)
def test_a_stage_that_cannot_run_is_refused(fields):
    good = {"name": "a", "tasks": {"t2v": 1.0}, "steps": 1, "batch": 1}
    TrainStage(**good)
    with pytest.raises(ValidationError):
        TrainStage(**(good | fields))


def test_a_stage_starts_from_an_earlier_one_only():
    def stage(**fields):
        return TrainStage(**({"name": "a", "tasks": {"t2v": 1.0}, "steps": 1, "batch": 1} | fields))

    with pytest.raises(ValidationError, match="no earlier stage"):
        Curriculum(name="x", model=Model(), stages=(stage(init_from="b"), stage(name="b")))
    with pytest.raises(ValidationError, match="two stages"):
        Curriculum(name="x", model=Model(), stages=(stage(), stage()))


def test_cross_gain_changes_the_sharpness_of_cross_attention_only():
    changed = Model(preset="tiny", cross_gain=3.0)
    torch.manual_seed(0)
    model = MMDiT(changed.config(4, 40, 64))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    changed.prepare(model)
    for name, parameter in model.named_parameters():
        norm = part_of(name) == "cross" and "qk_norm" in name
        assert torch.equal(parameter, before[name] * 3 if norm else before[name]), name


def test_the_learning_rate_rises_then_falls():
    config = Optim(lr=1.0, warmup_steps=10, schedule="cosine")
    rates = [learning_rate(s, 110, config) for s in range(110)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert rates[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert learning_rate(99, 110, Optim(lr=2.0, warmup_steps=0)) == 2.0
    assert not math.isnan(learning_rate(0, 1, Optim(warmup_steps=1, schedule="cosine")))


def test_only_matrices_decay():
    model = MMDiT(Model(preset="tiny").config(4, 40, 64))
    groups = make_adamw(model.named_parameters(), Optim(weight_decay=0.5)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_cross_focus_makes_a_token_look_at_its_own_moment_first():
    """With contents alike, attention between the towers falls with distance in time, both ways."""
    changed = Model(preset="tiny", dim=96, heads=3, rope_dims=(20, 6, 6), cross_focus=2.8)
    torch.manual_seed(0)
    model = MMDiT(changed.config(4, 40, 64))
    changed.prepare(model)
    cross = model.layers[0].cross.audio
    x = torch.randn(1, 1, 96)
    frames, tokens = torch.arange(9.0)[None, :, None], torch.arange(0, 9, 0.5)[None, :, None]
    dims = model.config.video.rope_dims
    q = rotate(cross.qk_norm(cross.qk_norm.q, cross.q(x)).expand(1, 18, -1, -1), rope(tokens, dims))
    k = cross.keys_values(x, None).k.expand(1, 9, -1, -1)
    k = rotate(k, rope(frames, dims))
    weight = torch.einsum("bqhd,bkhd->hqk", q, k).mean(0)  # heads lean before and after alike
    assert (weight.argmax(1) - tokens[0, :, 0]).abs().max() <= 1.0
    far = (tokens[0] - frames[0].T).abs() > 2
    assert weight[far].mean() < weight[~far].mean() - 5


def test_a_curriculum_of_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(curriculum("mini").model_dump_json())
    assert curriculum(str(path)) == curriculum("mini")
    path.write_text("name: mine\nmodel: {preset: tiny}\nstages: [{name: a, tasks: {t2x: 1}}]\n")
    with pytest.raises(UsageError, match=r"mine.yaml: stages\.0"):
        curriculum(str(path))
    with pytest.raises(UsageError, match="No such file"):
        curriculum(str(tmp_path / "none.yaml"))
