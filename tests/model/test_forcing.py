"""T11, T12: a time per frame, and SkyReels-V2's asynchronous schedule (diffusers as the oracle)."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from reelmill.errors import PromptError
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.forcing import Forcing, force, schedule_matrix
from reelmill.model.guidance import Guider, TextCFG
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.pipeline import Pipeline
from reelmill.model.sampler import VideoCanvas, sample
from reelmill.model.solvers import HEUN, SOLVERS, UNIPC

NULL = Text(torch.full((1, 1, 64), 0.3))


@pytest.fixture(scope="module")
def model() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(preset("tiny")).eval()
    with torch.no_grad():
        model.video.head.weight.normal_(std=0.2)
    return model


def prompt(batch=1) -> Text:
    return Text(torch.randn(batch, 4, 64, generator=torch.Generator().manual_seed(5)))


def canvas(frames=6, given=0, batch=1, seed=3) -> VideoCanvas:
    g = torch.Generator().manual_seed(seed)
    known = torch.randn(batch, 16, frames, 4, 4, generator=g)
    mask = torch.zeros(batch, 1, frames, 4, 4)
    mask[:, :, :given] = 1
    return VideoCanvas(known, mask)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"lag": 0}, 10),
        ({"lag": 2}, 48),
        ({"lag": 5}, 105),
        ({"lag": 5, "block": 5}, 25),
        ({"lag": 5, "ready": 3}, 90),
    ],
)
def test_golden_numbers_of_rows(options, rows):
    assert len(schedule_matrix(20, 10, **options).done) == rows


schedules = st.tuples(
    st.integers(1, 8), st.integers(1, 12), st.integers(0, 6), st.integers(1, 3), st.integers(0, 4)
)


@given(schedules)
def test_noise_never_falls_along_time_and_every_frame_steps_exactly_so_often(case):
    blocks, steps, lag, block, ready = case
    frames, ready = blocks * block, min(ready, blocks) * block
    m = schedule_matrix(frames, steps, lag, ready=ready, block=block)
    assert m.update.sum(0).tolist() == [0] * ready + [steps] * (frames - ready)
    rows = steps + (frames - ready - 1) // block * min(lag, steps)
    assert len(m.done) == (rows if ready < frames else 0)
    assert (m.done.diff(dim=1) <= 0).all()
    if len(m.done):
        assert (m.done[-1] == steps).all()


@given(schedules, st.integers(1, 8))
def test_the_schedule_is_that_of_diffusers(case, seen):
    diffusers = pytest.importorskip("diffusers")
    blocks, steps, lag, block, ready = case
    assume(seen >= blocks or lag * seen >= steps)
    assume(ready < blocks)
    frames, window = blocks * block, min(seen, blocks) * block
    theirs = diffusers.SkyReelsV2DiffusionForcingPipeline.generate_timestep_matrix(
        None, frames, torch.arange(steps, 0, -1), window, lag, ready * block, block
    )
    ours = schedule_matrix(frames, steps, lag, ready=ready * block, block=block, window=window)
    assert torch.equal(ours.update, theirs[2])
    assert torch.equal(ours.done, theirs[1].clamp(max=steps))
    assert ours.spans == theirs[3]


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_with_all_frames_together_it_is_the_ordinary_sampler(model, solver):
    video = canvas(batch=2)
    video.mask[:, :, 2, :2] = 1  # known by parts
    options = {"seeds": [1, 2], "steps": 4, "s": 3.0, "solver": SOLVERS[solver]}
    options |= {"guider": Guider(text=TextCFG(3)), "null": NULL}
    plain, _ = sample(model, prompt(2), video=video, **options)
    forced = force(model, prompt(2), video, Forcing(), **options)
    assert torch.allclose(plain, forced, atol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_history_is_kept_to_the_bit_and_read(model, noise):
    made = []
    for seed in (3, 4):
        video = canvas(given=2, seed=seed)
        video.known[:, :, 2:] = 0  # only history differs
        z = force(model, prompt(), video, Forcing(lag=2, history_noise=noise), seeds=[1], steps=4)
        assert torch.equal(z[:, :, :2], video.known[:, :, :2])
        made.append(z[:, :, 2:])
    assert not torch.allclose(*made, atol=1e-3)


def test_a_long_video_slides_over_a_window(model, monkeypatch):
    seen = []
    forward = model.forward

    def spied(video, audio, text, **how):
        seen.append(video.x.shape[1] // 4)
        return forward(video, audio, text, **how)

    monkeypatch.setattr(model, "forward", spied)
    video = canvas(frames=16)
    told = []
    z = force(
        model, prompt(), video, Forcing(lag=2, window=4), seeds=[1], steps=6, solver=UNIPC,
        progress=lambda *x: told.append(x),
    )  # fmt: skip
    assert set(seen) == {4}
    assert len(seen) == 6 + 15 * 2
    assert told[-1] == (36, 36)
    assert z.isfinite().all()
    assert 0.2 < z[:, :, -4:].std() / z[:, :, :4].std() < 5


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (5, {"lag": 1, "block": 2}, "multiples of the block"),
        (8, {"lag": -1}, "lag -1"),
        (8, {"lag": 1, "window": 4}, "need a lag of 3 or more"),
    ],
)
def test_schedules_that_cannot_be_are_prompt_errors(frames, options, message):
    with pytest.raises(PromptError, match=message):
        schedule_matrix(frames, 10, **options)


def test_heun_is_refused(model):
    with pytest.raises(PromptError, match="heun"):
        force(model, prompt(), canvas(), Forcing(), seeds=[1], steps=2, solver=HEUN)


def test_pipeline_makes_long_video_and_says_how(model):
    r = np.random.default_rng(0)
    clips = [r.integers(0, 256, (9, 32, 32, 3)).astype(np.uint8) for _ in range(12)]
    sounds = [r.normal(0, 0.1, 20_000).astype(np.float32) for _ in range(5)]
    pipeline = Pipeline(model, PatchPCAVideo.fit(clips), MelPCAAudio.fit(sounds), HashTextEncoder())
    options = {"height": 32, "width": 32, "steps": 4, "forcing": Forcing(lag=2, window=3)}
    clip = pipeline.generate("a ball", task="t2v", frames=29, **options)
    assert clip.video.shape == (29, 32, 32, 3)
    assert clip.provenance["forcing"]["window"] == 3
    with pytest.raises(PromptError, match="without sound"):
        pipeline.generate("a ball", frames=29, **options)
