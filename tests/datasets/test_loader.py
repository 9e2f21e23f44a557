import logging

import numpy as np
import pyarrow as pa
import pytest
from tests import latents

from reelmill.datasets.arrow import whole_numbers
from reelmill.datasets.loader import Loader, make_pools
from reelmill.datasets.mixture import Mixture
from reelmill.errors import DatasetError, UsageError


@pytest.fixture
def data(tmp_path):
    samples = [latents.make_sample(i, audio=i >= 4, text=True) for i in range(20)]
    samples += [latents.make_sample(i, frames=17, text=True) for i in range(20, 24)]
    with latents.write(tmp_path, samples) as found:
        yield found


def make_loader(data, *, batch=6, **fields):
    audible = np.array(data.column("has_audio"))
    pools = {"t2v": make_pools(data, np.ones(len(data), bool)), "v2a": make_pools(data, audible)}
    return Loader(data, Mixture({"t2v": 1.0, "v2a": 1.0}, pools, batch, 3), **fields)


def test_batches_have_the_shapes_they_promise(data):
    loader = make_loader(data)
    seen = set()
    for step in range(12):
        batch = loader.batch(step)
        seen.add((batch.task, batch.video.shape[2]))
        assert batch.video.shape[0] == len(batch.keys) == len(batch.captions) == 6
        assert batch.video.dtype == np.float16
        assert batch.text.shape == (6, batch.text_mask.sum(1).max(), 8)
        assert not batch.text[~batch.text_mask].any()
        if batch.task == "v2a":
            assert batch.audio.shape == (6, 6, 12)
    assert seen == {("t2v", 3), ("t2v", 5), ("v2a", 3), ("v2a", 5)}


@pytest.mark.parametrize("world", [2, 3, 6])
def test_any_world_size_sees_the_same_global_batches(data, world):
    whole = make_loader(data)
    parts = [make_loader(data) for _ in range(world)]
    for step in (0, 1, 57):
        wanted = whole.batch(step)
        got = [loader.batch(step, rank, world) for rank, loader in enumerate(parts)]
        for rank, batch in enumerate(got):
            assert batch.keys == wanted.keys[rank::world]
            np.testing.assert_array_equal(batch.slots, np.arange(6)[rank::world])
            np.testing.assert_array_equal(batch.video, wanted.video[rank::world])


def test_a_world_size_that_does_not_divide_the_batch_is_a_usage_error(data):
    with pytest.raises(UsageError, match="divides"):
        make_loader(data).batch(0, 0, 4)


def test_reading_ahead_changes_nothing(data):
    loader = make_loader(data)
    ahead = [batch.keys for batch in make_loader(data).batches(3, 9)]
    assert ahead == [loader.batch(step).keys for step in range(3, 9)]


def test_batches_hold_what_the_samples_hold(data):
    loader = make_loader(data)
    for step in range(8):
        batch = loader.batch(step)
        for i, key in enumerate(batch.keys):
            sample = data.read(data.column("key").index(key))
            np.testing.assert_array_equal(batch.video[i], sample.video)
            np.testing.assert_array_equal(batch.text[i][batch.text_mask[i]], sample.text)
            assert batch.captions[i] == sample.meta["caption"]
            assert dict(batch.meta[i]) == sample.meta
            if batch.audio is not None:
                np.testing.assert_array_equal(batch.audio[i], sample.audio)


def damage(data, rows):
    for row in rows:
        path = data.folder / f"{data.column('part')[row]}.tar"
        content = bytearray(path.read_bytes())
        content[data.column("data_offset")[row] + 150] ^= 255
        path.write_bytes(bytes(content))


def test_damaged_samples_are_logged_counted_and_replaced_from_their_pool(data, caplog):
    damage(data, [5, 6])
    bad = {data.column("key")[row] for row in (5, 6)}
    loader = make_loader(data, max_corrupt=2)
    with caplog.at_level(logging.WARNING):
        for step in range(20):
            batch = loader.batch(step)
            assert not bad & set(batch.keys)
            assert len(batch.keys) == 6
    assert set(loader.corrupt) == bad
    assert len(caplog.records) == 2
    again = make_loader(data, max_corrupt=2)
    assert again.batch(11).keys == loader.batch(11).keys


def test_more_damage_than_allowed_ends_the_run(data):
    damage(data, [5, 6])
    loader = make_loader(data, max_corrupt=1)
    with pytest.raises(DatasetError, match="2 damaged samples, and 1"):
        list(loader.batches(0, 20))


def test_whole_numbers_are_those_of_the_column():
    column = pa.chunked_array([pa.array([1, 2, 3], pa.int32())[1:], pa.array([4], pa.int32())])
    assert whole_numbers(column).tolist() == [2, 3, 4]
    assert whole_numbers(pa.chunked_array([], pa.int64())).tolist() == []
