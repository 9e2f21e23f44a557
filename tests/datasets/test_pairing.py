import numpy as np
import pytest
from tests import latents

from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.loader import Loader, make_pools
from reelmill.datasets.mixture import Mixture
from reelmill.datasets.pairing import Pairing
from reelmill.errors import DatasetError


def window(number, clip, start, *, size=4):
    sample = latents.make_sample(number, size=size)
    meta = {**sample.meta, "clip": clip, "asset": clip, "start_frame": start}
    return type(sample)(**{**sample.__dict__, "meta": meta, "asset": clip})


@pytest.fixture
def data(tmp_path):
    """Three windows of one clip at two sizes, and a clip of one window."""
    samples = [window(i, "a", 8 * i) for i in range(3)]
    samples += [window(10 + i, "a", 8 * i, size=6) for i in range(3)]
    samples.append(window(20, "b", 0))
    with latents.write(tmp_path, samples) as found:
        yield found


def test_another_moment_is_of_the_same_file_and_size_and_never_the_same(data):
    pairing = Pairing(data)
    assert pairing.partners("moment", 0) == [1, 2]
    assert pairing.partners("moment", 4) == [3, 5]
    assert pairing.partners("moment", 6) == []
    assert pairing.paired("moment").tolist() == [True] * 6 + [False]


def test_the_same_moment_larger(data):
    pairing = Pairing(data)
    assert [pairing.partners("size", row) for row in range(7)] == [[3], [4], [5], [], [], [], []]


def test_which_moment_is_a_function_of_seed_step_and_slot(data):
    pairing = Pairing(data)
    orders = [pairing.order("moment", 0, 3, step, 0) for step in range(200)]
    assert orders == [Pairing(data).order("moment", 0, 3, step, 0) for step in range(200)]
    first = np.mean([rows[0] == 1 for rows in orders])
    assert 0.35 < first < 0.65
    assert all(sorted(rows) == [1, 2] for rows in orders)


def paired_loader(data, **fields):
    pairing = Pairing(data)
    pools = {"image_ref": make_pools(data, pairing.paired("moment"))}
    mixture = Mixture({"image_ref": 1.0}, pools, 3, 1)
    return Loader(data, mixture, pairs={"image_ref": "moment"}, **fields)


def test_batches_bring_what_goes_with_each_sample(data):
    for step in range(8):
        batch = paired_loader(data).batch(step)
        assert batch.other.shape == batch.video.shape
        assert batch.other_audio.shape == batch.audio.shape
        assert not (batch.other == batch.video).all(axis=(1, 2, 3, 4)).any()


def test_a_damaged_partner_is_counted_and_another_takes_its_place(data):
    path = data.folder / f"{data.column('part')[1]}.tar"
    content = bytearray(path.read_bytes())
    content[data.column("data_offset")[1] + 150] ^= 255
    path.write_bytes(bytes(content))
    with LatentDataset(data.folder) as again:
        loader = paired_loader(again, max_corrupt=1)
        third = again.read(2).video
        for step in range(8):
            batch = loader.batch(step)
            for key, other in zip(batch.keys, batch.other, strict=True):
                if key == again.column("key")[0]:
                    np.testing.assert_array_equal(other, third)
        assert list(loader.corrupt) == [again.column("key")[1]]
        with pytest.raises(DatasetError, match="1 damaged samples, and 0"):
            list(paired_loader(again).batches(0, 8))
