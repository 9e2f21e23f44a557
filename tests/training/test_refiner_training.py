"""A Refiner is trained for an exported model, goes with it, and makes its clips larger."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tests.scene_shards import film_sample, write_set
from typer.testing import CliRunner

from reelmill.cli import app
from reelmill.datasets.latents import LatentDataset
from reelmill.errors import DatasetError, PromptError, UsageError
from reelmill.model.pipeline import VIDEO_CODEC, Pipeline
from reelmill.model.refiner import RefineOptions
from reelmill.training.config import TrainOptions, TrainResult
from reelmill.training.curriculum import Curriculum, Model, Objective, Optim, TrainStage
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.generate import GenerateOptions, generate
from reelmill.training.trainer import train

pytestmark = pytest.mark.long

MODEL = Model(preset="tiny", patch=(1, 2, 2))


def stage(name: str, **fields: object) -> TrainStage:
    given = {
        "steps": 4,
        "batch": 4,
        "optim": Optim(lr=2e-3, warmup_steps=3),
        "held_out": 0.3,
        "validate_every": 20,
        "checkpoint_every": 20,
    }
    return TrainStage(name=name, **(given | fields))  # type: ignore[arg-type]


REFINER = Curriculum(
    name="refiner",
    model=MODEL,
    stages=(
        stage(
            "refiner",
            refiner=True,
            tasks={"refine": 1.0},
            steps=60,
            sparsity=0.5,
            objective=Objective(video_floor=0.3),
        ),
    ),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    films = [film_sample(i, seconds=1.2) for i in range(10)]
    return write_set(tmp_path_factory.mktemp("shards") / "video", films)


@pytest.fixture(scope="module")
def base(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    root = tmp_path_factory.mktemp("base")
    options = EncodeOptions((shards,), root / "set", height=32, width=32, frames=(9,), stride=8)
    curriculum = Curriculum(name="base", model=MODEL, stages=(stage("joint", tasks={"t2av": 1}),))
    latents = encode(options).output
    return train(TrainOptions(latents, root / "run", curriculum, unreviewed=True, threads=1))


@pytest.fixture(scope="module")
def pairs(shards: Path, base: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = EncodeOptions(
        (shards,),
        tmp_path_factory.mktemp("pairs") / "set",
        height=64,
        width=64,
        frames=(17,),
        stride=8,
        low=2,
        video_codec=base.export / VIDEO_CODEC,
    )
    return encode(options).output


@pytest.fixture(scope="module")
def refined(
    pairs: Path, base: TrainResult, tmp_path_factory: pytest.TempPathFactory
) -> TrainResult:
    output = tmp_path_factory.mktemp("refiner") / "run"
    return train(TrainOptions(pairs, output, REFINER, unreviewed=True, threads=1, base=base.export))


def test_a_pair_is_the_same_clip_smaller_and_at_half_the_rate(pairs: Path, base: TrainResult):
    codec = Pipeline.load(base.export).video_codec
    with LatentDataset(pairs) as data:
        sample = data.read(0)
    assert sample.low is not None
    assert sample.video.shape[1:] == (5, 8, 8)
    assert sample.low.shape[1:] == (3, 4, 4)
    high, low = (
        codec.decode(torch.from_numpy(z.astype(np.float32))[None])[0]
        for z in (sample.video, sample.low)
    )
    same = torch.nn.functional.avg_pool2d(high[:, ::2].transpose(0, 1), 2).transpose(0, 1)
    other = same.roll(3, 1)
    assert (same - low).abs().mean() < 0.5 * (other - low).abs().mean()


def test_training_lowers_its_held_out_loss(refined: TrainResult):
    assert refined.loss_end < 0.9 * refined.loss_start


def test_it_is_exported_with_the_model_that_it_is_for(refined: TrainResult, base: TrainResult):
    pipeline, before = Pipeline.load(refined.export), Pipeline.load(base.export)
    assert pipeline.refiner is not None
    assert pipeline.digest == before.digest
    assert pipeline.refiner.config.video.sparse


def test_refining_doubles_size_and_rate_and_leaves_the_sound(refined: TrainResult, tmp_path: Path):
    def make(name: str, **fields: object) -> Path:
        options = {"height": 32, "width": 32, "frames": 17, "steps": 2, "seed": 3, **fields}
        return generate(
            GenerateOptions("a red ball", refined.export, tmp_path / name, **options)  # type: ignore[arg-type]
        ).output

    plain, large = make("plain.mov"), make("large.mov", refine=True, refine_steps=2)
    pictures, sounds, rates = [], [], []
    for path in (plain, large):
        with av.open(str(path)) as file:
            rates.append(file.streams.video[0].average_rate)
            pictures.append([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
        with av.open(str(path)) as file:
            sounds.append(np.concatenate([f.to_ndarray() for f in file.decode(audio=0)], 1))
    assert rates == [16, 32]
    assert [len(p) for p in pictures] == [17, 34]
    assert [p[0].shape for p in pictures] == [(32, 32, 3), (64, 64, 3)]
    assert np.array_equal(*sounds)


def test_the_command_gives_a_large_mp4_at_32_fps_with_sound(refined: TrainResult, tmp_path: Path):
    output = tmp_path / "large.mp4"
    told = ["generate", "a red ball", "--model", str(refined.export), "--refine", "-o", str(output)]
    told += ["--height", "32", "--width", "32", "--frames", "17", "--steps", "2"]
    run = CliRunner().invoke(app, [*told, "--refine-steps", "2", "--scale", "4"])
    assert run.exit_code == 0, run.output
    with av.open(str(output)) as file:
        video, sound = file.streams.video[0], file.streams.audio[0]
        assert (video.width, video.height, video.average_rate) == (128, 128, 32)
        assert len(list(file.decode(video=0))) == 34
    with av.open(str(output)) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
    assert samples / sound.rate == pytest.approx(34 / 32, abs=0.06)  # AAC rounds up to its frames


def test_a_refiner_without_a_model_or_pairs_is_told(
    pairs: Path, base: TrainResult, shards: Path, tmp_path: Path
):
    with pytest.raises(UsageError, match="--base"):
        train(TrainOptions(pairs, tmp_path / "a", REFINER, unreviewed=True))
    plain = EncodeOptions((shards,), tmp_path / "set", height=32, width=32, frames=(9,))
    alone = encode(plain).output
    with pytest.raises(DatasetError, match="refine"):
        train(TrainOptions(alone, tmp_path / "b", REFINER, unreviewed=True, base=base.export))


def test_what_cannot_be_refined_is_told(refined: TrainResult, base: TrainResult):
    with pytest.raises(PromptError, match="no Refiner"):
        Pipeline.load(base.export).generate("a", frames=9, steps=1, refine=RefineOptions())
    pipeline = Pipeline.load(refined.export)
    video = np.zeros((9, 32, 32, 3), np.uint8)
    keep = np.ones((32, 32), np.bool_)
    with pytest.raises(PromptError, match="made anew"):
        pipeline.generate("a", task="edit", video=video, keep=keep, steps=1, refine=RefineOptions())
    with pytest.raises(PromptError, match="1 to 4 times"):
        pipeline.generate("a", frames=9, steps=1, refine=RefineOptions(), scale=5)


@pytest.mark.parametrize("given", [{"frames": (13,)}, {"height": 48}])
def test_sizes_that_do_not_halve_are_told(shards: Path, tmp_path: Path, given: dict):
    options = {"height": 64, "width": 64, "frames": (17,), "low": 2, **given}
    with pytest.raises(UsageError, match="--low 2"):
        EncodeOptions((shards,), tmp_path / "x", **options)
