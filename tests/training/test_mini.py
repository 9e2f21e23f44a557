"""All rows of the paper's curriculum, a few steps each, on real latents."""

import json
import shutil

import pytest
from tests.scene_shards import film_sample, sound_sample, still_sample, write_set

from reelmill.errors import CheckpointError, DatasetError, GateError
from reelmill.model.pipeline import Pipeline
from reelmill.reports.training import render_training
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import Retention
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.mini import MINI
from reelmill.training.trainer import train

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini")
    size = (96, 96)
    shards = (
        write_set(root / "video", [film_sample(i, seconds=2.0, size=size) for i in range(8)]),
        write_set(root / "image", [still_sample(50 + i, size=size) for i in range(8)]),
        write_set(root / "audio", [sound_sample(80 + i) for i in range(6)]),
    )
    options = EncodeOptions(
        shards=shards, output=root / "set", frames=(17,), stride=8, sizes=((96, 96),), low=2
    )
    return encode(options).output


RULES = {"retention": None, "held_out": 0.4}  # of so few files


def short(steps, **fields):
    """The curriculum with a few steps a row, which may forget."""
    stages = tuple(
        s.model_copy(update={**RULES, "steps": steps, "validate_every": steps, **fields})
        for s in MINI.stages
    )
    return MINI.model_copy(update={"stages": stages})


def options(latents, output, curriculum, **fields):
    return TrainOptions(latents, output, curriculum, unreviewed=True, threads=1, **fields)


@pytest.fixture(scope="module")
def done(latents, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    return output, train(options(latents, output, short(2)))


def test_every_row_runs_and_is_measured_on_all_before_it(done):
    output, result = done
    assert [s.name for s in result.stages] == [s.name for s in MINI.stages]
    told = {}
    for stage in MINI.stages:
        judged = json.loads((output / stage.name / "held_out.json").read_text())
        told[stage.name] = [t["name"] for t in judged["tasks"]]
        own = {t["name"].partition("@")[0] for t in judged["tasks"] if t["own"]}
        assert own == set(stage.tasks)
    assert told["video_2"] == ["t2i", "t2v"]
    assert set(told["sft_2"]) < set(told["keyframes"])
    assert told["refiner"] == ["refine"]


def test_what_comes_out_has_the_refiner_of_its_own_weights(done):
    _, result = done
    pipeline = Pipeline.load(result.export)
    assert pipeline.refiner is not None
    assert pipeline.provenance["stage"] == "keyframes"


def test_the_page_shows_what_was_kept(done):
    source = render_training(done[0])
    assert "Held-out losses of all that was learned so far" in source
    assert "inpaint@video_4" in source


def test_a_finished_run_is_not_trained_again(done, latents):
    output, result = done
    again = train(options(latents, output, short(2)))
    assert again.resumed_from == again.steps == result.steps


def test_a_predecessor_of_another_config_is_refused(done, latents):
    changed = short(2)
    first = changed.stages[0].model_copy(update={"batch": 8})
    changed = changed.model_copy(update={"stages": (first, *changed.stages[1:])})
    with pytest.raises(CheckpointError, match=r"stage\.batch was 64, and is 8 now"):
        train(options(latents, done[0], changed, stages=("video_2",)))
    with pytest.raises(CheckpointError, match=r"seed was 0, and is 1"):
        train(options(latents, done[0], short(2), stages=("video_2",), seed=1))


def test_a_row_that_forgets_ends_the_run_before_the_next_one(latents, tmp_path):
    wild = short(2, retention=Retention(must_fall=False))
    optim = wild.stages[1].optim.model_copy(update={"lr": 1.0, "warmup_steps": 0})
    second = wild.stages[1].model_copy(update={"optim": optim, "steps": 12})
    wild = wild.model_copy(update={"stages": (wild.stages[0], second, *wild.stages[2:])})
    for _ in range(2):  # the second time, nothing is left to train
        with pytest.raises(GateError, match=r"'video_2' is not promoted.*t2i"):
            train(options(latents, tmp_path, wild))
        assert not (tmp_path / "video_3").exists()
    assert "Not promoted" in render_training(tmp_path)


def test_latents_that_cannot_be_trained_on_end_it_before_the_first_step(latents, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(latents, folder)
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(latents / "video_codec", folder / "text_encoder")
    with pytest.raises(CheckpointError):
        train(options(folder, tmp_path / "out", short(1)))
    shutil.copytree(latents, folder, dirs_exist_ok=True)
    next(folder.glob("audio-*.tar")).unlink()
    with pytest.raises(DatasetError, match="audio-"):
        train(options(folder, tmp_path / "out", short(1)))
    assert not list((tmp_path / "out").rglob("*.safetensors"))
