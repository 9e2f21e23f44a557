import numpy as np
import pytest
from tests.scene_shards import film_sample, make_scene, write_set

from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.media.onsets import onset_envelope, planted_envelope
from reelmill.errors import DatasetError
from reelmill.model.pipeline import Pipeline
from reelmill.training.config import TrainOptions
from reelmill.training.curriculum import Curriculum, Model, TrainStage
from reelmill.training.encode import EncodeOptions, encode
from reelmill.training.trainer import train
from reelmill.training.validate import (
    compare,
    correlations,
    onset_correlation,
    spread,
)

pytestmark = pytest.mark.long


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_the_envelope_follows_planted_bounces_and_no_others(rate):
    scenes = [random_scene(seed, seconds=2.0, size=(64, 64)) for seed in range(8)]
    true = np.stack([onset_envelope(scene_audio(s, rate), rate) for s in scenes])
    planted = np.stack([planted_envelope([b.t for b in s.bounces], 2.0) for s in scenes])
    found = correlations(true, planted)
    assert np.diag(found).min() > 0.9
    assert abs(found[~np.eye(8, dtype=bool)].mean()) < 0.2


def test_an_envelope_is_late_by_what_the_sound_is_late():
    rate = 44_100
    sound = scene_audio(random_scene(3, seconds=2.0, size=(64, 64)), rate).mean(0)
    late = np.concatenate([np.zeros(rate // 10), sound])[: len(sound)]
    a, b = onset_envelope(sound, rate)[:150], onset_envelope(late, rate)
    best = max(range(30), key=lambda k: correlations(a[None], b[None, k : k + 150])[0, 0])
    assert best == pytest.approx(10, abs=1)


def test_silence_agrees_with_nothing_and_is_counted():
    made, true = np.random.default_rng(0).random((3, 50)), np.random.default_rng(1).random((3, 50))
    true[1] = 0.0
    report = compare(made, made, true, ["a", "b", "c"])
    assert (report.clips, report.silent, report.matched.clips) == (3, 1, 2)
    assert np.isfinite(report.shuffled.mean)


def test_compare_tells_a_model_that_listens_from_one_that_does_not():
    random = np.random.default_rng(0)
    true = random.random((20, 200))
    heard = true + 0.5 * random.random((20, 200))
    deaf = random.random((20, 200))
    report = compare(heard, deaf, true, [f"file{i // 2}" for i in range(20)], planted=true)
    assert report.matched.mean > 0.8
    assert report.matched.low > max(report.shuffled.high, report.apart.high) + 0.5
    assert report.planted.mean == report.matched.mean
    assert compare(deaf, deaf, true, [f"file{i}" for i in range(20)]).matched.low < 0.1


def test_the_interval_draws_whole_files_not_windows():
    values = np.repeat([0.0, 1.0, 0.0, 1.0], 25)
    one_file_each = spread(values, [f"w{i}" for i in range(100)])
    four_files = spread(values, [f"f{i // 25}" for i in range(100)])
    assert one_file_each.mean == four_files.mean == 0.5
    assert four_files.high - four_files.low > 3 * (one_file_each.high - one_file_each.low)


def test_a_short_run_is_measured_on_files_it_never_saw(tmp_path):
    shards = write_set(tmp_path / "video", [film_sample(i, seconds=1.1) for i in range(10)])
    latents = encode(
        EncodeOptions((shards,), tmp_path / "set", height=32, width=32, frames=(17,))
    ).output
    stage = TrainStage(name="joint", tasks={"v2a": 1.0}, steps=2, batch=2, held_out=0.4)
    curriculum = Curriculum(name="x", model=Model(preset="tiny", patch=(1, 4, 4)), stages=(stage,))
    result = train(TrainOptions(latents, tmp_path / "run", curriculum, unreviewed=True))
    pipeline = Pipeline.load(result.export)
    onsets = {
        film_sample(i, seconds=1.1).key: [b.t for b in make_scene(i, seconds=1.1).bounces]
        for i in range(10)
    }
    with LatentDataset(latents) as data:
        report = onset_correlation(pipeline, data, held_out=0.4, steps=2, onsets=onsets)
        again = onset_correlation(pipeline, data, held_out=0.4, steps=2, onsets=onsets)
        with pytest.raises(DatasetError, match="two or more"):
            onset_correlation(pipeline, data, held_out=0.05)
    assert report == again
    assert report.clips == 4
    # Two steps teach nothing: cross-attention still starts at zero, so it makes no difference yet.
    assert abs(report.matched.mean - report.apart.mean) < 0.2
    assert "shuffled pairs" in str(report)
