import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reelmill.training.regions import prefix, region

SIDE = st.integers(1, 12)


@settings(max_examples=200, deadline=None)
@given(SIDE, SIDE, SIDE, st.integers(0, 2**32))
def test_something_is_always_made(frames, height, width, seed):
    known = region(frames, height, width, np.random.default_rng(seed))
    assert known.shape == (frames, height, width)
    assert known.dtype == np.bool_
    assert not known.all()


def test_every_shape_comes_up_and_a_picture_has_boxes_only():
    random = np.random.default_rng(0)
    drawn = [region(9, 8, 8, random) for _ in range(400)]
    whole_frames = [k.all(axis=(1, 2)) | ~k.any(axis=(1, 2)) for k in drawn]
    still = [(k == k[0]).all() for k in drawn]
    assert 0.1 < np.mean([w.all() for w in whole_frames]) < 0.5
    assert 0.3 < np.mean(still) < 0.7
    stills = [region(1, 8, 8, random) for _ in range(100)]
    assert all(k.any() for k in stills)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32))
def test_a_video_goes_on_from_its_first_latents(frames, seed):
    known = prefix(frames, np.random.default_rng(seed))
    assert 1 <= known.sum() < frames
    assert known[: known.sum()].all()
