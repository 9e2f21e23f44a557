import numpy as np
import pytest
from tests import latents

from reelmill.datasets.latents import LatentSample
from reelmill.errors import DatasetError, UsageError
from reelmill.training.curriculum import DataRule, TrainStage
from reelmill.training.stage_data import tokens, train_loader
from reelmill.training.tasks import TASKS


def sample(number, *, frames=9, size=4, source="video", audio=True):
    found = latents.make_sample(number, frames=frames, size=max(size, 1), audio=audio, text=True)
    meta = {**found.meta, "clip": f"c{number // 2}", "start_frame": number % 2, "source": source}
    meta |= {"height": 8 * size, "width": 8 * size}
    video = found.video if size else np.zeros((4, found.video.shape[1], 0, 0), np.float16)
    return LatentSample(**{**found.__dict__, "meta": meta, "video": video})


@pytest.fixture
def data(tmp_path):
    """16 clips of 4 x 4 latents, 8 of 8 x 8, 8 stills, 8 sounds."""
    samples = [sample(i) for i in range(16)]
    samples += [sample(i, size=8, source="film") for i in range(16, 24)]
    samples += [sample(i, frames=1, source="image", audio=False) for i in range(24, 32)]
    samples += [sample(i, size=0, source="audio") for i in range(32, 40)]
    with latents.write(tmp_path, samples) as found:
        yield found


def stage(tasks, **fields):
    named = dict.fromkeys(tasks.split(), 1.0)
    return TrainStage(**({"name": "s", "tasks": named, "steps": 1, "batch": 4} | fields))


def buckets(loader, steps=40):
    return {(b.task, *b.video.shape[2:]) for b in map(loader.batch, range(steps))}


def test_tasks_take_what_they_can_use(data):
    loader = train_loader(stage("t2i t2v t2a"), 0, data)
    assert buckets(loader) == {
        ("t2i", 1, 4, 4),
        ("t2v", 3, 4, 4),
        ("t2v", 3, 8, 8),
        ("t2a", 3, 4, 4),
        ("t2a", 3, 8, 8),
        ("t2a", 3, 0, 0),
    }


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"heights": (64,)}, {("t2v", 3, 8, 8), ("t2a", 3, 8, 8)}),
        ({"heights": (32, 0)}, {("t2v", 3, 4, 4), ("t2a", 3, 4, 4), ("t2a", 3, 0, 0)}),
        ({"sources": {"film": 1.0}}, {("t2v", 3, 8, 8), ("t2a", 3, 8, 8)}),
    ],
)
def test_a_stage_sees_the_heights_and_sources_it_names(data, rule, wanted):
    assert buckets(train_loader(stage("t2v t2a", data=DataRule(**rule)), 0, data)) == wanted


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ({"heights": (32, 480)}, r"heights 480; the latents have 0, 32, 64.*--also"),
        ({"sources": {"web": 1.0}}, r"sources web; the latents have audio, film, image, video"),
        ({"frames": (33, 81)}, r"'t2v' of the mixture has no sample"),
    ],
)
def test_data_that_is_not_there_is_named_before_anything_is_trained(data, rule, match):
    with pytest.raises(DatasetError, match=match):
        train_loader(stage("t2v", data=DataRule(**rule)), 0, data)


def test_batches_are_as_large_as_their_tokens_allow(data):
    loader = train_loader(stage("t2v", tokens=400, batch=64), 0, data, (1, 2, 2))
    sizes = {b.video.shape[3]: len(b.keys) for b in map(loader.batch, range(20))}
    assert sizes == {4: 400 // (3 * 4), 8: 400 // (3 * 16)}
    shared = train_loader(stage("t2v", tokens=400, batch=64, share=5), 0, data, (1, 2, 2))
    assert {len(b.keys) for b in map(shared.batch, range(20))} == {30, 5}
    assert len(shared.batch(0, 1, 5).keys) in (6, 1)
    with pytest.raises(UsageError, match="48 tokens"):
        train_loader(stage("t2v", tokens=40), 0, data, (1, 2, 2))


def test_tokens_are_those_that_the_model_sees(data):
    assert tokens(TASKS["t2v"], data, 0, (1, 2, 2)) == 3 * 4
    assert tokens(TASKS["image_ref"], data, 0, (1, 2, 2)) == 4 * 4
    assert tokens(TASKS["t2av"], data, 0, (1, 1, 1)) == 3 * 16 + 12
    assert tokens(TASKS["t2a"], data, 32, (1, 1, 1)) == 12
