"""SyncNet: the published layout, the published formula, and planted offsets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reelmill.curation.models.syncnet import SyncNet, compare, load
from reelmill.errors import WeightsError

PUBLISHED = {  # names and shapes of syncnet_v2.model, as its repository's network has them
    "netcnnaud.0.weight": (64, 1, 3, 3),
    "netcnnaud.4.weight": (192, 64, 3, 3),
    "netcnnaud.8.weight": (384, 192, 3, 3),
    "netcnnaud.11.weight": (256, 384, 3, 3),
    "netcnnaud.14.weight": (256, 256, 3, 3),
    "netcnnaud.18.weight": (512, 256, 5, 4),
    "netcnnaud.19.running_var": (512,),
    "netfcaud.0.weight": (512, 512),
    "netfcaud.1.running_mean": (512,),
    "netfcaud.3.weight": (1024, 512),
    "netfclip.3.bias": (1024,),
    "netcnnlip.0.weight": (96, 3, 5, 7, 7),
    "netcnnlip.4.weight": (256, 96, 1, 5, 5),
    "netcnnlip.8.weight": (256, 256, 1, 3, 3),
    "netcnnlip.11.weight": (256, 256, 1, 3, 3),
    "netcnnlip.14.weight": (256, 256, 1, 3, 3),
    "netcnnlip.18.weight": (512, 256, 1, 6, 6),
    "netcnnlip.19.num_batches_tracked": (),
}


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(SyncNet().state_dict(), path)
    return path


def test_layout_is_the_published_one():
    state = SyncNet().state_dict()
    assert {name: tuple(state[name].shape) for name in PUBLISHED} == PUBLISHED
    assert len(state) == 2 * (6 * 7 + 2 * 2 + 5)  # convolutions with norms, two dense, one norm


def test_weights_load_strictly_and_embeddings_do_not_depend_on_the_batch(random_weights):
    network = load(random_weights)
    mfcc = torch.randn(3, 1, 13, 20)
    with torch.inference_mode():
        together = network.sound(mfcc)
        alone = torch.cat([network.sound(one[None]) for one in mfcc])
        lips = network.lips(torch.rand(1, 3, 5, 224, 224) * 255)
    assert together.shape == (3, 1024)
    assert lips.shape == (1, 1024)
    assert torch.allclose(together, alone, atol=1e-5)


def test_missing_strange_and_hostile_weights_are_errors(random_weights, tmp_path):
    state = torch.load(random_weights, weights_only=True)
    less = dict(state)
    del less["netfclip.3.bias"]
    more = state | {"netfcextra.weight": torch.zeros(1)}
    path = tmp_path / "syncnet_v2.model"
    for wrong in (less, more):
        torch.save(wrong, path)
        with pytest.raises(WeightsError, match="syncnet_v2"):
            load(path)

    class Hostile:
        def __reduce__(self):
            return (print, ("code ran",))

    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(WeightsError):
        load(path)


def reference(lips: torch.Tensor, sound: torch.Tensor, reach: int) -> tuple[int, float, float]:
    """The published computation, by torch's own distance, frame by frame."""
    padded = torch.nn.functional.pad(sound, (0, 0, reach, reach))
    rows = [
        torch.nn.functional.pairwise_distance(
            lips[i : i + 1].expand(2 * reach + 1, -1), padded[i : i + 2 * reach + 1]
        )
        for i in range(len(lips))
    ]
    means = torch.stack(rows).mean(0)
    least, at = means.min(0)
    return reach - int(at), float(means.median() - least), float(least)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 15), st.integers(0, 99))
def test_offset_confidence_and_distance_are_the_published_ones(frames, reach, seed):
    torch.manual_seed(seed)
    lips, sound = torch.randn(2, frames, 64)
    found = compare(lips.numpy(), sound.numpy(), reach)
    offset, confidence, distance = reference(lips, sound, reach)
    assert found.offset == offset
    assert found.confidence == pytest.approx(confidence, abs=1e-4)
    assert found.distance == pytest.approx(distance, abs=1e-4)


@given(st.integers(-10, 10))
def test_planted_offsets_and_their_sign(early):
    row = np.random.default_rng(0).standard_normal((120, 32)).astype(np.float32)
    lips, sound = row[30:90], row[30 + early : 90 + early]
    assert compare(lips, sound).offset == early
