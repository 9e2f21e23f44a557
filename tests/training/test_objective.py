from dataclasses import replace

import numpy as np
import pytest
import torch

from reelmill.datasets.loader import Batch
from reelmill.errors import DatasetError
from reelmill.model.mmdit import MMDiT
from reelmill.model.refiner import refiner_config
from reelmill.training.curriculum import Model, Objective
from reelmill.training.objective import draw, flow_loss, held_out_draw
from reelmill.training.tasks import TASKS, condition, known_mask

CONSTANTS = {"null_text": torch.zeros(1, 8), "black.9x32x32": torch.full((4, 3, 4, 4), -2.0)}


def make_batch(slots, *, sound=True):
    random = np.random.default_rng(0)
    count = 6
    video = random.standard_normal((count, 4, 3, 4, 4), dtype=np.float32)
    audio = random.standard_normal((count, 6, 24), dtype=np.float32)
    text = random.standard_normal((count, 5, 8), dtype=np.float32)
    mask = np.arange(5) < np.array([5, 3, 1, 4, 5, 2])[:, None]
    meta = {"frames": 9, "height": 32, "width": 32}
    return Batch(
        step=0,
        task="t2av",
        slots=np.array(slots),
        keys=tuple(f"k{i}" for i in slots),
        video=video[slots],
        audio=audio[slots] if sound else None,
        text=(text * mask[..., None])[slots],
        text_mask=mask[slots],
        captions=("",) * len(slots),
        meta=(meta,) * len(slots),
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    built = MMDiT(Model(preset="tiny").config(4, 6, 8))
    with torch.no_grad():  # heads and cross-attention start at zero, which would hide everything
        for parameter in built.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return built


def loss(model, task, batch, draws, **fields):
    return flow_loss(model, TASKS[task], batch, draws, Objective(**fields), CONSTANTS)


def test_randomness_belongs_to_seed_step_and_slot_alone():
    whole = draw(5, 100, make_batch(range(6)), Objective())
    part = draw(5, 100, make_batch([1, 3, 5]), Objective())
    assert torch.equal(part.t, whole.t[1::2])
    assert torch.equal(part.video, whole.video[1::2])
    assert torch.equal(part.audio, whole.audio[1::2])
    for other in (
        draw(6, 100, make_batch(range(6)), Objective()),
        draw(5, 101, make_batch(range(6)), Objective()),
    ):
        assert not torch.equal(other.video, whole.video)
        assert not torch.equal(other.t, whole.t)
    assert len(set(whole.t.tolist())) == 6


def test_the_numbers_are_uniform_times_normal_noise_and_rare_drops():
    many = [
        draw(0, step, make_batch(range(6)), Objective(text_dropout=0.25)) for step in range(300)
    ]
    t = torch.cat([d.t for d in many])
    assert t.mean() == pytest.approx(0.5, abs=0.03)
    assert t.std() == pytest.approx(12**-0.5, abs=0.02)
    noise = torch.cat([d.video.flatten() for d in many])
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert torch.cat([d.drop_text for d in many]).float().mean() == pytest.approx(0.25, abs=0.04)
    shifted = draw(0, 1, make_batch(range(6)), Objective(shift=5.0)).t
    plain = draw(0, 1, make_batch(range(6)), Objective()).t
    assert torch.allclose(shifted, plain / (5 - 4 * plain))
    assert (shifted < plain).all()  # towards noise


def test_held_out_times_cover_the_range_evenly():
    draws = held_out_draw(make_batch(range(6)), 6)
    assert draws.t.tolist() == pytest.approx([(i + 0.5) / 6 for i in range(6)])
    assert not draws.drop_text.any()


def test_the_loss_is_the_mean_squared_error_of_the_velocity(model):
    """An oracle in plain float64 for a model that answers zero."""
    with torch.no_grad():
        for tower in (model.video, model.audio):
            tower.head.weight.zero_()
            tower.head.bias.zero_()
    batch = make_batch(range(6))
    draws = draw(1, 2, batch, Objective())
    found = loss(model, "t2av", batch, draws, video_weight=0.5, audio_weight=2.0)
    video = np.square(batch.video.astype(np.float64) - draws.video.numpy()).reshape(6, -1).mean(1)
    audio = np.square(batch.audio.astype(np.float64) - draws.audio.numpy()).reshape(6, -1).mean(1)
    np.testing.assert_allclose(found.video, video, rtol=1e-5)
    np.testing.assert_allclose(found.audio, audio, rtol=1e-5)
    assert found.total.item() == pytest.approx(0.5 * video.mean() + 2 * audio.mean(), rel=1e-5)


def test_below_its_floor_a_velocitys_error_counts_as_that_of_the_data(model):
    """The data's error is (1 - t) times the velocity's; above the floor nothing changes."""
    batch = make_batch(range(6))
    draws = replace(draw(1, 2, batch, Objective()), t=torch.linspace(0.1, 0.95, 6))
    plain = loss(model, "t2av", batch, draws)
    found = loss(model, "t2av", batch, draws, video_floor=0.3)
    wanted = np.minimum(1, (1 - draws.t.numpy().astype(np.float64)) / 0.3) ** 2
    np.testing.assert_allclose(found.video, plain.video.numpy() * wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.audio, plain.audio)
    assert wanted.min() < 0.1
    assert wanted.max() == 1


def test_the_refiners_task_needs_the_clip_in_small(model):
    batch = make_batch(range(2))
    with pytest.raises(DatasetError, match="--low"):
        loss(model, "refine", batch, draw(1, 2, batch, Objective()))


def test_a_sample_has_the_same_loss_in_any_batch(model):
    batch = make_batch(range(6))
    whole = loss(model, "t2av", batch, draw(1, 2, batch, Objective()))
    alone = make_batch([2])
    one = loss(model, "t2av", alone, draw(1, 2, alone, Objective()))
    assert one.video.item() == pytest.approx(whole.video[2].item(), rel=1e-4)
    assert one.audio.item() == pytest.approx(whole.audio[2].item(), rel=1e-4)


def test_a_clean_modality_has_no_loss_and_its_noise_is_not_seen(model):
    batch = make_batch(range(6))
    draws = draw(1, 2, batch, Objective(text_dropout=0))
    other = type(draws)(draws.t, draws.video + 1, draws.audio, draws.drop_text)
    first, second = (loss(model, "v2a", batch, d) for d in (draws, other))
    assert first.video is None
    assert torch.equal(first.audio, second.audio)
    other = type(draws)(draws.t, draws.video, draws.audio + 1, draws.drop_text)
    first, second = (loss(model, "a2v", batch, d) for d in (draws, other))
    assert first.audio is None
    assert torch.equal(first.video, second.video)


@pytest.mark.parametrize(("task", "tower"), [("t2v", "audio"), ("i2v", "audio"), ("t2a", "video")])
def test_the_tower_of_an_absent_modality_is_not_trained(model, task, tower):
    batch = make_batch(range(6))
    loss(model, task, batch, draw(1, 2, batch, Objective())).total.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if n.startswith(f"{tower}.")}
    assert grads
    assert all(g is None or not g.any() for g in grads.values())
    other = "video" if tower == "audio" else "audio"
    assert model.get_parameter(f"{other}.inp.weight").grad.any()


def test_v2a_reaches_the_audio_tower_through_cross_attention(model):
    batch = make_batch(range(6))
    draws = draw(1, 2, batch, Objective(text_dropout=0))
    first = loss(model, "v2a", batch, draws)
    first.total.backward()
    assert model.video.inp.weight.grad.any()
    moved = type(batch)(**{**batch.__dict__, "video": batch.video + 0.5})
    assert not torch.allclose(loss(model, "v2a", moved, draws).audio, first.audio)


def test_dropped_text_is_what_an_empty_caption_becomes(model):
    batch = make_batch(range(6))
    draws = draw(1, 2, batch, Objective(text_dropout=1.0))
    assert draws.drop_text.all()
    other = type(batch)(**{**batch.__dict__, "text": batch.text + 1})
    assert torch.equal(
        loss(model, "t2av", batch, draws).video, loss(model, "t2av", other, draws).video
    )


def test_i2v_gives_the_first_latent_frame_and_black_elsewhere():
    video = torch.randn(2, 4, 3, 4, 4)
    mask = known_mask(TASKS["i2v"], video)
    assert mask.shape == (2, 1, 3, 4, 4)
    assert mask[:, :, 0].all()
    assert not mask[:, :, 1:].any()
    given = condition(video, mask, CONSTANTS["black.9x32x32"])
    assert torch.equal(given[:, :, 0], video[:, :, 0])
    assert (given[:, :, 1:] == -2).all()
    assert known_mask(TASKS["v2a"], video).all()
    assert not known_mask(TASKS["t2av"], video).any()


def test_samples_fit_tasks_by_length_and_sound():
    frames, sound = np.array([1, 9, 9]), np.array([False, False, True])
    assert TASKS["t2i"].usable(frames, sound).tolist() == [True, False, False]
    assert TASKS["t2v"].usable(frames, sound).tolist() == [False, True, True]
    assert TASKS["v2a"].usable(frames, sound).tolist() == [False, False, True]


def test_a_task_with_sound_refuses_silent_samples(model):
    batch = make_batch(range(6), sound=False)
    with pytest.raises(DatasetError, match="k0"):
        loss(model, "v2a", batch, draw(1, 2, batch, Objective()))


def low_batch(slots, seed=0):
    """Low latents of nothing: what Z_up holds is known, and what a keyframe puts there shows."""
    batch = make_batch(np.array(slots) % 6, sound=False)
    video = np.random.default_rng(seed).standard_normal((len(slots), 4, 7, 4, 4), dtype=np.float32)
    low = np.zeros((len(slots), 4, 4, 2, 2), np.float32)
    return replace(batch, task="refine", slots=np.array(slots), video=video, low=low)


def test_keyframes_of_a_refiner_are_drawn_for_about_half_of_its_samples():
    draws = [draw(1, step, low_batch(range(6)), Objective()) for step in range(100)]
    chosen = torch.cat([d.keyframes for d in draws])
    noise = torch.cat([d.keyframe_noise for d in draws]).flatten(1).std(1)
    some = chosen.any(1)
    assert 0.4 < some.float().mean() < 0.6
    assert not chosen[:, 1::2].any()
    assert chosen[some][:, [0, -1]].all()
    assert {3, 2} <= set(chosen[some].sum(1).tolist()) <= {2, 3, 4}
    assert 0.095 < noise.max() < 0.106
    assert noise.min() < 0.01
    again = draw(1, 7, low_batch([2, 5]), Objective())
    assert torch.equal(again.keyframes, draws[7].keyframes[[2, 5]])
    assert torch.equal(again.keyframe_noise, draws[7].keyframe_noise[[2, 5]])


def test_keyframes_stand_in_what_the_refiner_goes_by():
    """A residual of zero leaves I: its loss is that of the low latents, and of the noise alone
    where a keyframe stands."""
    config = Model(preset="tiny").config(4, 6, 8)
    model = MMDiT(refiner_config(config, residual=True))
    batch = low_batch(range(6))
    draws = draw(3, 0, batch, Objective())
    z0, at = torch.from_numpy(batch.video), draws.keyframes[:, None, :, None, None]
    wanted = torch.where(at, draws.keyframe_noise, z0).square().flatten(1).mean(1)
    found = loss(model, "refine", batch, replace(draws, t=torch.full((6,), 0.5)), video_floor=0.5)
    assert torch.allclose(found.video, wanted * 4, rtol=1e-4)
    assert draws.keyframes.any()
    assert not draws.keyframes.any(1).all()


def with_other(task, slots=range(6), *, size=4):
    random = np.random.default_rng(1)
    other = random.standard_normal((6, 4, 3, size, size), dtype=np.float32)[list(slots)]
    sound = random.standard_normal((6, 6, 24), dtype=np.float32)[list(slots)]
    return replace(make_batch(list(slots)), task=task, other=other, other_audio=sound)


LARGE = CONSTANTS | {"black.9x64x64": torch.full((4, 3, 8, 8), -2.0)}


def value(model, batch, task=None):
    name = task or batch.task
    draws = draw(1, 2, batch, Objective(text_dropout=0.0))
    return flow_loss(model, TASKS[name], batch, draws, Objective(), LARGE)


@pytest.mark.parametrize("task", ["image_ref", "video_ref", "multimodal"])
def test_references_are_seen_but_not_made(model, task):
    batch = with_other(task)
    found = value(model, batch)
    changed = batch.other.copy()
    changed[:, :, 0] += 1
    assert not torch.equal(value(model, replace(batch, other=changed)).video, found.video)
    later = batch.other.copy()
    later[:, :, 1:] += 1  # beyond the first frame of an image
    same = torch.equal(value(model, replace(batch, other=later)).video, found.video)
    assert same == (task != "video_ref")
    assert (found.audio is None) == (task != "multimodal")
    if found.audio is not None:
        sound = replace(batch, other_audio=batch.other_audio + 1)
        assert not torch.equal(value(model, sound).audio, found.audio)
    with pytest.raises(DatasetError, match="other moments"):
        value(model, replace(batch, other=None))


def test_keyframes_are_made_in_the_same_pass(model):
    batch = with_other("keyframes", size=8)
    found = value(model, batch)
    alone = value(model, replace(batch, task="t2v"), "t2v")
    assert (found.video > alone.video).all()  # a sum of two errors
    found.total.backward()
    assert model.video.head.weight.grad.abs().sum() > 0
    with pytest.raises(DatasetError, match="--also"):
        value(model, replace(batch, other=None))


@pytest.mark.parametrize(("task", "frames"), [("v2v", 3), ("edit", 3), ("inpaint", 1)])
def test_what_is_given_is_drawn_by_seed_step_and_slot(model, task, frames):
    whole = replace(make_batch(range(6)), task=task)
    whole = replace(whole, video=whole.video[:, :, :frames])
    part = replace(whole, **{n: getattr(whole, n)[1::2] for n in ("slots", "video")})
    a, b = (draw(3, 9, batch, Objective()).known for batch in (whole, part))
    assert a.shape == (6, 1, frames, 4, 4)
    assert torch.equal(a[1::2], b)
    assert not torch.equal(a, draw(3, 10, whole, Objective()).known)
    assert a.flatten(1).any(1).sum() > 3
    assert not a.flatten(1).all(1).any()
    mask = known_mask(TASKS[task], torch.from_numpy(whole.video), a)
    assert torch.equal(mask.bool(), a)
