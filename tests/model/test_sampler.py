"""Sampling and guidance: T7, T22, V2A and A2V, and which forward passes a step costs."""

import pytest
import torch
from torch import nn

from reelmill.model.config import preset
from reelmill.model.guidance import (
    APART,
    FULL,
    NO_GUIDANCE,
    NO_TEXT,
    NOTHING,
    Guider,
    ModalityCFG,
    ReferenceCFG,
    Rescale,
    TextCFG,
)
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.sampler import AudioCanvas, VideoCanvas, noise, sample
from reelmill.model.solvers import SOLVERS

CONFIG = preset("tiny")


@pytest.fixture(scope="module")
def model() -> MMDiT:
    torch.manual_seed(0)
    model = MMDiT(CONFIG).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
            elif "norm" not in name:
                p.copy_(0.1 * torch.randn_like(p))
    return model


def canvas(batch=1, mask=0.0, held=False, seed=3) -> VideoCanvas:
    known = torch.randn(batch, 16, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return VideoCanvas(known, torch.full((batch, 1, 3, 4, 4), mask), held=held)


def prompt(batch=1, words=4, seed=5) -> Text:
    return Text(torch.randn(batch, words, 64, generator=torch.Generator().manual_seed(seed)))


SOUND = AudioCanvas(length=10, latents=3)
NULL = Text(torch.full((1, 1, 64), 0.3))


def test_a_mask_of_ones_returns_what_was_given_to_the_bit(model):
    video = canvas(mask=1.0)
    z, _ = sample(model, prompt(), video=video, audio=SOUND, seeds=[1], steps=3)
    assert torch.equal(z, video.known)


def test_known_frames_come_back_to_the_bit_and_the_others_do_not(model):
    video = canvas()
    video.mask[:, :, 0] = 1
    z, _ = sample(model, prompt(), video=video, seeds=[1], steps=3)
    assert torch.equal(z[:, :, 0], video.known[:, :, 0])
    assert not torch.isclose(z[:, :, 1:], video.known[:, :, 1:]).any(1).all()
    free, _ = sample(model, prompt(), video=video, seeds=[1], steps=3, paste_known=False)
    assert not torch.equal(free[:, :, 0], video.known[:, :, 0])


def test_the_same_seed_gives_the_same_clip_and_another_seed_another(model):
    first, second, other = (
        sample(model, prompt(), video=canvas(), audio=SOUND, seeds=[s], steps=3) for s in (7, 7, 8)
    )
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c, atol=0.1)


def test_a_batch_equals_its_singles(model):
    guider = Guider(text=TextCFG(3, 2), modality=ModalityCFG(2, 1.5))
    seeds, texts, video = [4, 9, 2], prompt(3), canvas(3)
    options = {"audio": SOUND, "steps": 3, "guider": guider, "null": NULL}
    z, a = sample(model, texts, video=video, seeds=seeds, **options)
    for i in range(3):
        one = slice(i, i + 1)
        single = VideoCanvas(video.known[one], video.mask[one])
        z1, a1 = sample(model, Text(texts.tokens[one]), video=single, seeds=[seeds[i]], **options)
        assert torch.allclose(z[one], z1, atol=2e-4)
        assert torch.allclose(a[one], a1, atol=2e-4)


def test_noise_of_one_modality_does_not_depend_on_the_other():
    video, audio = noise([3], "video", (4, 5)), noise([3], "audio", (4, 5))
    assert torch.equal(video, noise([3], "video", (4, 5)))
    assert not torch.equal(video, audio)
    assert torch.equal(noise([1, 3], "video", (4, 5))[1:], video)


def test_video_to_audio_holds_the_video_and_listens_to_it(model):
    kept, a = sample(model, prompt(), video=canvas(held=True), audio=SOUND, seeds=[1], steps=3)
    assert torch.equal(kept, canvas().known)
    other, b = sample(
        model, prompt(), video=canvas(held=True, seed=4), audio=SOUND, seeds=[1], steps=3
    )
    assert torch.equal(other, canvas(seed=4).known)
    assert not torch.allclose(a, b, atol=1e-2)
    deaf = [
        sample(
            model,
            prompt(),
            video=canvas(held=True, seed=s),
            audio=SOUND,
            seeds=[1],
            steps=3,
            av=False,
        )[1]
        for s in (3, 4)
    ]
    assert torch.equal(*deaf)


def test_audio_to_video_holds_the_audio_and_watches_it(model):
    sounds = [torch.randn(1, 40, 10, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    clips = []
    for sound in sounds:
        audio = AudioCanvas(10, 3, held=sound)
        z, kept = sample(model, prompt(), video=canvas(), audio=audio, seeds=[1], steps=3)
        assert torch.equal(kept, sound)
        clips.append(z)
    assert not torch.allclose(*clips, atol=1e-2)


def test_references_change_the_clip_but_not_its_length(model):
    plain = canvas()
    refs = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(8))
    z, _ = sample(model, prompt(), video=plain, seeds=[1], steps=3)
    y, _ = sample(
        model, prompt(), video=VideoCanvas(plain.known, plain.mask, refs), seeds=[1], steps=3
    )
    assert y.shape == z.shape
    assert not torch.allclose(z, y, atol=1e-2)


def test_one_euler_step_is_noise_plus_velocity(model):
    video = canvas()
    z, _ = sample(model, prompt(), video=video, seeds=[6], steps=1, s=1.0)
    from reelmill.model.conditioning import video_modality, video_velocity

    start = noise([6], "video", video.known.shape[1:])
    tokens = video_modality(CONFIG, start, torch.zeros(1), video.known, video.mask)
    with torch.no_grad():
        v, _ = model(tokens, None, prompt())
    assert torch.allclose(z, start + video_velocity(CONFIG, v, (3, 4, 4)), atol=1e-5)


@pytest.mark.parametrize(
    ("guider", "branches"),
    [
        (NO_GUIDANCE, (FULL,)),
        (Guider(text=TextCFG(3, 1)), (FULL, NO_TEXT)),
        (Guider(modality=ModalityCFG(1, 3)), (FULL, APART)),
        (Guider(text=TextCFG(3, 3), modality=ModalityCFG(2, 2)), (FULL, NO_TEXT, APART)),
    ],
)
def test_a_step_costs_the_forward_passes_of_its_plan_batched(model, guider, branches, monkeypatch):
    assert guider.plan() == branches
    calls = []
    forward = model.forward

    def counted(video, audio, text, **how):
        calls.append((len(video.x), how["av"]))
        return forward(video, audio, text, **how)

    monkeypatch.setattr(model, "forward", counted)
    sample(
        model,
        prompt(2),
        video=canvas(2),
        audio=SOUND,
        seeds=[1, 2],
        steps=1,
        guider=guider,
        null=NULL,
    )
    together = sum(b.av for b in branches)
    assert calls == [(2 * together, True)] + [(2, False)] * (APART in branches)


def test_guidance_of_a_modality_that_is_not_made_costs_nothing():
    assert Guider(text=TextCFG(1, 5)).plan(("video",)) == (FULL,)


def test_guided_velocity_is_the_formula():
    g = torch.Generator().manual_seed(0)
    c, n, i = torch.randn(3, 2, 4, 5, generator=g).double()
    guider = Guider(TextCFG(3, 1), ModalityCFG(2, 1))
    parts = {FULL: c, NO_TEXT: n, APART: i}
    assert torch.allclose(guider.combine("video", parts), c + 2 * (c - n) + (c - i))
    assert torch.equal(guider.combine("audio", parts), c)
    rescaled = Guider(TextCFG(3, 1), rescale=Rescale(1.0, 0)).combine(
        "video", {FULL: c, NO_TEXT: n}
    )
    assert torch.allclose(rescaled.std((1, 2)), c.std((1, 2)))


def test_rescaled_guidance_of_nothing_is_nothing():
    still = torch.zeros(2, 3, 4)
    both = {FULL: still, NO_TEXT: still}
    guided = Guider(TextCFG(3, 3), rescale=Rescale(0.7, 0.7)).combine("video", both)
    assert torch.equal(guided, still)


def test_guidance_at_scale_one_is_no_guidance(model):
    options = {"video": canvas(), "audio": SOUND, "seeds": [1], "steps": 2}
    plain = sample(model, prompt(), **options)
    guided = sample(model, prompt(), guider=Guider(), null=NULL, **options)
    assert torch.equal(plain[0], guided[0])


def test_progress_is_told_after_every_step(model):
    seen: list[tuple[int, int]] = []
    sample(model, prompt(), video=canvas(), seeds=[1], steps=3, progress=lambda *x: seen.append(x))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_sampled_is_said(model):
    with pytest.raises(ValueError, match="null="):
        sample(model, prompt(), video=canvas(), seeds=[1], guider=Guider(TextCFG(2, 2)))
    with pytest.raises(ValueError, match="nothing to sample"):
        sample(model, prompt(), video=canvas(held=True), seeds=[1])
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=lambda s: s.name)
def test_every_solver_keeps_what_is_known_and_goes_the_same_way(model, solver):
    video = canvas()
    video.mask[:, :, 0] = 1
    options = {"video": video, "audio": SOUND, "seeds": [1], "s": 1.0}
    z, a = sample(model, prompt(), steps=12, solver=solver, **options)
    assert torch.equal(z[:, :, 0], video.known[:, :, 0])
    assert z.isfinite().all()
    fine, sound = sample(model, prompt(), steps=60, **options)
    rough, noise_ = sample(model, prompt(), steps=1, **options)
    assert (z - fine).norm() < 0.5 * (rough - fine).norm()
    assert (a - sound).norm() < 0.5 * (noise_ - sound).norm()


def test_negative_prompts_reach_the_tower_that_they_are_for(model):
    other = Text(torch.full((1, 2, 64), -0.7))
    options = {"video": canvas(), "audio": SOUND, "seeds": [1], "steps": 2, "null": NULL}
    options["guider"] = Guider(text=TextCFG(3, 3))
    plain = sample(model, prompt(), av=True, **options)
    same = sample(model, prompt(), null_audio=NULL, **options)
    assert torch.equal(plain[0], same[0])
    assert torch.equal(plain[1], same[1])
    first = options | {"steps": 1}  # after one step, the towers have told each other
    plain, changed = (sample(model, prompt(), null_audio=n, **first) for n in (None, other))
    assert not torch.allclose(plain[1], changed[1], atol=1e-3)
    with torch.no_grad():  # the video of one forward pass hears audio, not its prompt
        both = model.encode_text(NULL, audio=other)
        assert torch.equal(both.video.c, model.encode_text(NULL).video.c)
        assert torch.equal(both.audio.c, model.encode_text(other).audio.c)


def test_reference_guidance_is_that_of_skyreels_v3(model):
    c, n, o = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    guider = Guider(TextCFG(7.5, 1), reference=ReferenceCFG(5, 1))
    guided = guider.combine("video", {FULL: c, NO_TEXT: n, NOTHING: o})
    assert torch.allclose(guided, o + 5 * (n - o) + 7.5 * (c - n))
    assert guider.plan(references=True) == (FULL, NO_TEXT, NOTHING)
    assert guider.plan(references=False) == (FULL, NO_TEXT)
    assert Guider(reference=ReferenceCFG(1, 5)).plan(("video",), True) == (FULL,)


def test_the_pass_without_references_does_not_see_them_in_a_shared_batch(model, monkeypatch):
    plain = canvas()
    refs = torch.randn(2, 1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(8))
    guider = Guider(reference=ReferenceCFG(2, 2))
    seen = []
    forward = model.forward

    def spied(video, audio, text, **how):
        out = forward(video, audio, text, **how)
        seen.append((out[0][:, -12:], out[1]))
        return out

    monkeypatch.setattr(model, "forward", spied)
    for r in refs:
        sample(
            model, prompt(), video=VideoCanvas(plain.known, plain.mask, r), audio=SOUND,
            seeds=[1], steps=1, guider=guider, null=NULL,
        )  # fmt: skip
    sample(model, NULL, video=plain, audio=SOUND, seeds=[1], steps=1)
    (v, a), (v2, _), (alone, alone_a) = seen
    assert len(v) == 3
    assert not torch.allclose(v[:2], v2[:2], atol=1e-3)
    assert torch.allclose(v[2], v2[2], atol=1e-5)
    assert torch.allclose(v[2], alone[0], atol=1e-4)
    assert torch.allclose(a[2], alone_a[0], atol=1e-4)


def test_a_source_is_changed_by_as_much_as_its_strength(model):
    plain = canvas()
    source = torch.randn(plain.known.shape, generator=torch.Generator().manual_seed(2))
    moved = []
    for strength in (0.05, 0.5, 1.0):
        video = VideoCanvas(plain.known, plain.mask, source=source, strength=strength)
        z, _ = sample(model, prompt(), video=video, seeds=[1], steps=8)
        moved.append((z - source).norm().item())
    assert moved[0] < moved[1] < moved[2]
    free, _ = sample(model, prompt(), video=plain, seeds=[1], steps=8)
    assert torch.equal(z, free)
    with pytest.raises(ValueError, match="sound"):
        sample(model, prompt(), video=video, audio=SOUND, seeds=[1], steps=1)
