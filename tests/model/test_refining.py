"""What the Refiner gets from the base model and from the user beside the low-resolution video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reelmill.model.canvas import cover, video_canvas
from reelmill.model.codecs.codec import to_frames
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import JOBS, GeneratedClip, Pipeline
from reelmill.model.refiner import RefineOptions, refiner_of
from reelmill.model.refining import Refining, makes_keyframes
from reelmill.model.sampler import denoise
from reelmill.model.tasks import Inputs

STILL = np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """Its Refiner is untrained: it gives Z_up back, keyframes included."""
    r = np.random.default_rng(0)
    clips = [
        r.integers(0, 256, (1, 4, 4, 3)).repeat(9, 0).repeat(8, 1).repeat(8, 2) for _ in range(30)
    ]
    sounds = [r.normal(0, 0.1, 20_000).astype(np.float32) for _ in range(5)]
    torch.manual_seed(0)
    model = MMDiT(preset("tiny")).eval()
    with torch.no_grad():
        model.video.head.weight.normal_(std=0.1)
    codec = PatchPCAVideo.fit([c.astype(np.uint8) for c in clips])
    refiner = refiner_of(model, residual=True).eval()
    return Pipeline(model, codec, MelPCAAudio.fit(sounds), HashTextEncoder(), refiner=refiner)


def trained(pipeline: Pipeline) -> Pipeline:
    """As if the base model had been trained for keyframes."""
    model = MMDiT(pipeline.model.config).eval()
    model.load_state_dict(pipeline.model.state_dict())
    with torch.no_grad():
        model.video.keyframe.normal_()
    return replace(pipeline, model=model)


def make(pipeline: Pipeline, **options: object) -> GeneratedClip:
    given = {"frames": 17, "height": 32, "width": 32, "steps": 2, "refine": RefineOptions(steps=1)}
    return pipeline.generate("a red ball", **(given | options))  # type: ignore[arg-type]


def coded(pipeline: Pipeline, frames: int = 1) -> np.ndarray:
    """The still through the codec, in high resolution."""
    codec = pipeline.video_codec
    pixels = cover(STILL, 64, 64).expand(-1, -1, frames, -1, -1)
    return to_frames(codec.decode(codec.encode(pixels)))


def test_given_pictures_are_seen_in_high_resolution(pipeline):
    clip = make(pipeline, image=STILL, end=STILL)
    assert clip.video is not None
    assert clip.video.shape == (34, 64, 64, 3)
    np.testing.assert_allclose(clip.video[0].astype(int), coded(pipeline)[0], atol=1)
    np.testing.assert_allclose(clip.video[32].astype(int), coded(pipeline, 5)[-1], atol=1)
    assert np.abs(clip.video[16].astype(int) - coded(pipeline)[0]).mean() > 10
    small = make(pipeline, image=STILL, end=STILL, refine=None).video
    assert small is not None
    large = make(pipeline, frames=17, image=STILL, scale=1).video  # the keyframe is the frame
    assert large is not None
    np.testing.assert_allclose(large[0].astype(int), small[0], atol=1)


def test_a_base_that_was_not_trained_for_keyframes_is_left_alone(pipeline):
    assert not makes_keyframes(pipeline.model)
    plain, refined = make(pipeline, refine=None), make(pipeline, scale=1)
    assert plain.video is not None
    assert refined.video is not None
    np.testing.assert_allclose(refined.video[0].astype(int), plain.video[0], atol=1)


def test_a_base_that_was_trained_for_them_makes_as_many_as_the_video_costs(pipeline):
    able = trained(pipeline)
    assert makes_keyframes(able.model)
    way = Refining(able.refiner, RefineOptions(), 2)
    wanted = way.keyframes(able.video_codec, Inputs(image=STILL), 9, 32, 32, made=True)
    assert wanted is not None
    assert wanted.frames == (0, 8)  # as many tokens as 8 of the 9 frames
    assert wanted.mask[:, :, 0].all()
    assert not wanted.mask[:, :, 1].any()


def test_keyframes_that_the_base_makes_reach_the_refiner(pipeline):
    able = trained(pipeline)
    codec, text = able.video_codec, able.encoder.encode(["a red ball"])
    way = Refining(able.refiner, RefineOptions(), 2)
    high = way.keyframes(codec, Inputs(), 9, 32, 32, made=True)
    low = video_canvas(codec, JOBS["t2v"], Inputs(), 33, 32, 32)
    made = denoise(able.model, text, video=replace(low, keyframes=high), seeds=[1], steps=2)
    clip = make(able, task="t2v", seed=1, frames=33).video
    assert clip is not None
    first = to_frames(codec.decode(made.keyframes[:, :, :1]))[0].astype(int)
    np.testing.assert_allclose(clip[0].astype(int), first, atol=1)
    small = to_frames(codec.decode(made.video))[0].astype(int)
    assert np.abs(first - small.repeat(2, 0).repeat(2, 1)).mean() > 5


def test_sound_is_made_beside_keyframes(pipeline):
    clip = make(trained(pipeline), task="t2av")
    assert clip.video is not None
    assert clip.audio is not None
    assert clip.fps == 32
    assert clip.audio.shape[1] == round(17 / 16 * clip.audio_rate)
    assert len(clip.video) == 34
