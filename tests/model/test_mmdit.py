"""The joint model: structure (A1 to A9) and the properties T1, T2, T3, T10, T11, T14.

Heads and the way between the towers start at zero; `lively` gives every parameter a value, so that
all that should matter does.
"""

import math
from dataclasses import replace

import pytest
import torch

from reelmill.model.conditioning import (
    audio_modality,
    audio_velocity,
    video_modality,
    video_velocity,
)
from reelmill.model.config import MMDiTConfig, preset
from reelmill.model.mmdit import MMDiT, part_of
from reelmill.model.modality import Modality, Text

CONFIG = preset("tiny")


def lively(config: MMDiTConfig = CONFIG, seed: int = 0) -> MMDiT:
    torch.manual_seed(seed)
    model = MMDiT(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.copy_(torch.randn_like(p) / p.shape[-1] ** 0.5)
            elif "norm" not in name:
                p.copy_(0.1 * torch.randn_like(p))
    return model.double().eval()


def clip(batch=2, frames=3, tokens=10, words=6, seed=1, refs=0, config=CONFIG):
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    z, known, sound = (
        randn(batch, 16, frames, 4, 4),
        randn(batch, 16, frames, 4, 4),
        randn(batch, 40, tokens),
    )
    mask = (randn(batch, 1, frames, 4, 4) > 0).double()
    t = torch.rand(batch, generator=g, dtype=torch.float64)
    references = randn(batch, 16, refs, 4, 4) if refs else None
    video = video_modality(config, z, t, known, mask, references)
    return video, audio_modality(config, sound, t, frames), Text(randn(batch, words, 64))


@torch.no_grad()
def run(model, video, audio, text, **options):
    return model(video, audio, text, **options)


def close(a, b, atol=1e-9):
    return torch.allclose(a, b, atol=atol, rtol=0)


def test_every_layer_has_dual_blocks_first_then_single_ones_in_both_towers():
    kinds = [(type(x.video).__name__, type(x.audio).__name__) for x in MMDiT(preset("demo")).layers]
    assert kinds == [("DualBlock",) * 2] * 2 + [("SingleBlock",) * 2] * 2


def test_towers_share_no_parameter_and_single_blocks_have_fewer():
    model = MMDiT(CONFIG)
    video = {id(p) for n, p in model.named_parameters() if part_of(n) == "video"}
    audio = {id(p) for n, p in model.named_parameters() if part_of(n) == "audio"}
    assert video
    assert audio
    assert not video & audio
    dual, single = (sum(p.numel() for p in x.audio.parameters()) for x in model.layers)
    assert single * 2 == dual


def test_only_video_has_text_cross_attention():
    names = [n for n, _ in MMDiT(CONFIG).named_parameters()]
    assert any(n.startswith("layers.0.video.text.") for n in names)
    assert not any(".audio.text." in n for n in names)


def test_velocities_come_for_every_token():
    video, audio, text = clip(refs=1)
    v, a = run(lively(), video, audio, text)
    assert v.shape == (2, 4 + 12, 64)
    assert a.shape == (2, 10, 40)


def test_a_new_model_predicts_zero_and_gets_gradients_where_they_belong():
    model = MMDiT(CONFIG).double()
    video, audio, text = clip()
    v, a = model(video, audio, text)
    assert not v.any()
    assert not a.any()
    (v - 1).square().mean().backward()
    assert model.video.head.weight.grad.any()


def test_a_tower_in_the_new_joint_model_equals_the_tower_alone():
    model = lively()
    with torch.no_grad():
        for layer in model.layers:
            for cross in (layer.cross.video, layer.cross.audio):
                cross.out.weight.zero_()
                cross.out.bias.zero_()
    video, audio, text = clip()
    v, a = run(model, video, audio, text)
    assert torch.equal(v, run(model, video, None, text)[0])
    assert torch.equal(a, run(model, None, audio, text)[1])


def test_the_way_between_the_towers_starts_at_zero():
    for layer in MMDiT(CONFIG).layers:
        for cross in (layer.cross.video, layer.cross.audio):
            assert not cross.out.weight.any()
            assert not cross.out.bias.any()


def test_without_its_partner_a_tower_is_what_it_is_with_av_off():
    model = lively()
    video, audio, text = clip()
    v, a = run(model, video, audio, text, av=False)
    assert torch.equal(v, run(model, video, None, text)[0])
    assert torch.equal(a, run(model, None, audio, text)[1])
    joint = run(model, video, audio, text)
    assert not close(v, joint[0], 1e-3)
    assert not close(a, joint[1], 1e-3)


def test_the_video_tower_alone_is_a_model_that_loads_the_joint_ones_weights():
    model = lively()
    alone = MMDiT(replace(CONFIG, audio=None)).double().eval()
    weights = {n: p for n, p in model.state_dict().items() if part_of(n) == "video"}
    alone.load_state_dict(weights, strict=True)
    video, _, text = clip()
    assert torch.equal(run(alone, video, None, text)[0], run(model, video, None, text)[0])


@pytest.mark.parametrize(("order", "changes"), [("sequential", True), ("parallel", False)])
def test_video_reads_the_updated_audio_in_the_papers_order_only(order, changes):
    config = replace(
        CONFIG,
        av_order=order,
        video=replace(CONFIG.video, single=0),
        audio=replace(CONFIG.audio, single=0),
    )
    model = lively(config)
    video, audio, text = clip()
    before = run(model, video, audio, text)[0]
    with torch.no_grad():
        model.layers[0].cross.audio.out.weight.mul_(3)
    after = run(model, video, audio, text)[0]
    assert torch.equal(before, after) != changes


def test_text_cross_attention_with_zero_output_is_none():
    model = lively()
    with torch.no_grad():
        for layer in model.layers:
            layer.video.text.out.weight.zero_()
            layer.video.text.out.bias.zero_()
    config = replace(CONFIG, video=replace(CONFIG.video, text_xattn=False))
    without = MMDiT(config).double().eval()
    without.load_state_dict(
        {
            n: p
            for n, p in model.state_dict().items()
            if "video.text." not in n or n.startswith("video")
        }
    )
    video, audio, text = clip()
    assert torch.equal(run(model, video, audio, text)[0], run(without, video, audio, text)[0])


def test_the_order_of_prompt_tokens_does_not_matter_but_their_content_does():
    model = lively()
    video, audio, text = clip()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    v, a = run(model, video, audio, text)
    v2, a2 = run(model, video, audio, Text(text.tokens[:, order]))
    assert close(v, v2)
    assert close(a, a2)
    v3, a3 = run(model, video, audio, Text(text.tokens.flip(0)))
    assert not close(v, v3, 1e-3)
    assert not close(a, a3, 1e-3)


def test_dual_blocks_permute_text_with_its_tokens():
    model = lively()
    video, _, text = clip()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    block = model.layers[0].video
    with torch.no_grad():
        s = model.video.enter(video, model.encode_text(text).video)
        x, c = block.attend(s.x, s.c, s.ctx, 0)
        x2, c2 = block.attend(s.x, s.c[:, order], s.ctx, 0)
    assert close(x, x2, 1e-12)
    assert close(c[:, order], c2, 1e-12)


def test_cached_text_gives_the_same():
    model = lively()
    video, audio, text = clip()
    with torch.no_grad():
        cached = model.encode_text(text, cache=True)
    v, a = run(model, video, audio, text)
    v2, a2 = run(model, video, audio, cached)
    assert torch.equal(v, v2)
    assert torch.equal(a, a2)


def test_moving_all_positions_changes_nothing_when_text_is_left_out():
    model = lively()
    model.video.text_bias = -math.inf
    video, _, text = clip(refs=1)
    v = run(model, video, None, text)[0]
    moved = replace(video, pos=video.pos + torch.tensor([-7.0, 3.0, 11.0]))
    assert close(v, run(model, moved, None, text)[0], 1e-4)  # tables are float32
    swapped = replace(video, pos=video.pos.flip(1))
    stretched = replace(video, pos=video.pos * 2)
    assert not close(v, run(model, stretched, None, text)[0], 1e-2)
    assert not close(v, run(model, swapped, None, text)[0], 1e-2)


def test_av_attention_sees_time_but_not_place():
    model = lively()
    video, audio, _ = clip()
    link = model.link(video, audio)
    elsewhere = replace(video, pos=video.pos + torch.tensor([0.0, 5.0, 9.0]))
    later = replace(video, pos=video.pos + torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(link.video_rope.cos, model.link(elsewhere, audio).video_rope.cos)
    assert not torch.equal(link.video_rope.cos, model.link(later, audio).video_rope.cos)


def test_padding_of_text_and_tokens_changes_nothing():
    model = lively()
    video, audio, text = clip()
    v, a = run(model, video, audio, text)
    pad = torch.zeros(2, 9, dtype=torch.bool)
    pad[:, 6:] = True
    padded_text = Text(torch.cat((text.tokens, torch.randn(2, 3, 64).double()), 1), pad)

    def pad_modality(m: Modality, n: int) -> Modality:
        length = m.x.shape[1]
        hidden = torch.zeros(2, length + n, dtype=torch.bool)
        hidden[:, length:] = True
        junk = torch.randn(2, n, m.x.shape[2]).double()
        return Modality(
            x=torch.cat((m.x, junk), 1),
            pos=torch.cat((m.pos, m.pos[:, :n] + 50), 1),
            t=m.t,
            pad=hidden,
        )

    v2, a2 = run(model, pad_modality(video, 5), pad_modality(audio, 4), padded_text)
    assert close(v, v2[:, :12])
    assert close(a, a2[:, :10])


def test_a_batch_equals_its_samples_one_by_one():
    model = lively()
    video, audio, text = clip(batch=3)
    v, a = run(model, video, audio, text)
    for i in range(3):
        one = slice(i, i + 1)
        single = (
            replace(video, x=video.x[one], t=video.t[one]),
            replace(audio, x=audio.x[one], t=audio.t[one]),
            Text(text.tokens[one]),
        )
        v1, a1 = run(model, *single)
        assert close(v[one], v1)
        assert close(a[one], a1)


@pytest.mark.parametrize("adaln", ["table", "linear"])
def test_a_time_per_token_that_is_constant_equals_one_time(adaln):
    config = replace(
        CONFIG, video=replace(CONFIG.video, adaln=adaln), audio=replace(CONFIG.audio, adaln=adaln)
    )
    model = lively(config)
    video, audio, text = clip(batch=3)
    v, a = run(model, video, audio, text)
    spread = [replace(m, t=m.t.expand(3, m.x.shape[1])) for m in (video, audio)]
    v2, a2 = run(model, *spread, text)
    assert close(v, v2)
    assert close(a, a2)
    other = replace(video, t=torch.where(torch.arange(12) < 4, 1.0, video.t))
    assert not close(v, run(model, other, audio, text)[0], 1e-3)


@pytest.mark.parametrize("qk_norm", ["full", "head"])
def test_both_qk_norms_make_attention_blind_to_the_scale_of_its_inputs(qk_norm):
    config = replace(
        CONFIG,
        video=replace(CONFIG.video, qk_norm=qk_norm),
        audio=replace(CONFIG.audio, qk_norm=qk_norm),
    )
    model = lively(config)
    stream, time = model.layers[0].video.x, None
    video, _, text = clip()
    with torch.no_grad():
        time = model.video.enter(video, model.encode_text(text).video).ctx.time
        x = model.video.inp(video.x)
        q, k, v = stream.project(x, time)
        stream.qkv.weight.mul_(4), stream.qkv.bias.mul_(4)
        q4, k4, v4 = stream.project(x, time)
    assert close(q, q4, 1e-4)
    assert close(k, k4, 1e-4)
    assert close(4 * v, v4)


def test_references_are_seen_by_video_but_not_by_audio():
    model = lively()
    video, audio, text = clip(refs=2)
    n = 2 * 4
    changed = replace(video, x=torch.cat((video.x[:, :n].flip(0), video.x[:, n:]), 1))
    v, a = run(model, video, audio, text)
    v2, _ = run(model, changed, audio, text)
    assert not close(v[:, n:], v2[:, n:], 1e-3)
    # The audio of one block attends target tokens alone: only those let a reference through.
    with torch.no_grad():
        state = model.audio.enter(audio, model.encode_text(text).audio)
        link = model.link(video, audio)
        h = torch.randn(2, n + 12, 64).double()
        h2 = torch.cat((torch.randn(2, n, 64).double(), h[:, n:]), 1)
        _, heard = model.layers[0].cross(h, state.x, link)
        _, heard2 = model.layers[0].cross(h2, state.x, link)
        everyone = replace(CONFIG, av_include_refs=True)
        model.config = everyone
        _, heard3 = model.layers[0].cross(h2, state.x, model.link(video, audio))
    assert close(heard, heard2, 1e-12)
    assert not close(heard, heard3, 1e-3)
    assert a.shape == (2, 10, 40)


def test_no_references_are_the_same_as_none_given():
    z, t = torch.randn(1, 16, 3, 4, 4), torch.tensor([0.5])
    mask = torch.zeros(1, 1, 3, 4, 4)
    none = video_modality(CONFIG, z, t, z, mask, None)
    empty = video_modality(CONFIG, z, t, z, mask, torch.zeros(1, 16, 0, 4, 4))
    assert torch.equal(none.x, empty.x)
    assert torch.equal(none.pos, empty.pos)
    assert empty.kind is None


def test_widths_that_do_not_fit_are_named():
    model = lively()
    video, audio, text = clip()
    with pytest.raises(ValueError, match=r"tokens are 128 wide.*132"):
        model(replace(video, x=video.x[..., :128]), audio, text)
    with pytest.raises(ValueError, match="2 samples, but 1 prompts"):
        model(video, audio, Text(text.tokens[:1]))
    with pytest.raises(ValueError, match="not made for"):
        MMDiT(replace(CONFIG, audio=None)).double()(video, audio, text)


def test_layers_can_be_recomputed_in_the_backward_pass():
    from torch.utils.checkpoint import checkpoint

    model, again = lively().train(), lively().train()
    for layer in again.layers:
        forward = layer.forward
        layer.forward = lambda *a, f=forward: checkpoint(f, *a, use_reentrant=False)
    video, audio, text = clip(refs=1)
    for m in (model, again):
        v, a = m(video, audio, text)
        (v.square().mean() + a.square().mean()).backward()
    for (name, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or close(p.grad, q.grad, 1e-12), name


@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_bfloat16_stays_near_float64(how):
    model = lively()
    video, audio, text = clip(refs=1)
    exact = run(model, video, audio, text)
    half = torch.bfloat16 if how == "cast" else torch.float32
    parts = [replace(m, x=m.x.to(half)) for m in (video, audio)]
    model.to(half)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        out = run(model, *parts, Text(text.tokens.to(half)))
    for a, b in zip(exact, out, strict=True):
        assert (a - b).std() < 0.05 * a.std()


@pytest.mark.parametrize("t", [(0.2, 0.7), ((0.1, 0.4, 0.9), (0.0, 0.5, 0.8))])
def test_a_tower_that_predicts_data_gives_the_velocity_towards_it(t):
    """A head of zeros predicts z0 = 0, whose velocity is -z / (1 - t), for any order of cells."""
    video_config = replace(CONFIG.video, predicts="data")
    audio_config = replace(CONFIG.audio, predicts="data")
    config = replace(CONFIG, video=video_config, audio=audio_config)
    model = lively(config)
    for tower in (model.video, model.audio):
        torch.nn.init.zeros_(tower.head.weight)
        torch.nn.init.zeros_(tower.head.bias)
    z, known, mask = (
        torch.randn(2, 16, 3, 4, 4),
        torch.randn(2, 16, 3, 4, 4),
        torch.ones(2, 1, 3, 4, 4),
    )
    z, known, mask = z.double(), known.double(), mask.double()
    sound, at = torch.randn(2, 40, 7).double(), torch.tensor(t).double()
    refs = torch.randn(2, 16, 2, 4, 4).double()
    late = at if at.ndim == 1 else at[:, 0]
    v, a = model(
        video_modality(config, z, at, known, mask, refs),
        audio_modality(config, sound, late, 3),
        Text(torch.randn(2, 5, 64).double()),
    )
    rest = 1 - at.reshape(2, 1, -1, 1, 1)
    assert torch.allclose(video_velocity(config, v, (3, 4, 4)), -z / rest)
    assert torch.allclose(audio_velocity(a, 7), -sound / (1 - late[:, None, None]))


def test_a_residual_is_about_what_the_video_goes_by():
    """A head of zeros predicts I, whose velocity is (I - z) / (1 - t), in any order of cells."""
    config = replace(CONFIG, audio=None, video=replace(CONFIG.video, predicts="residual"))
    model = lively(config)
    torch.nn.init.zeros_(model.video.head.weight)
    torch.nn.init.zeros_(model.video.head.bias)
    z, known = torch.randn(2, 16, 3, 4, 4).double(), torch.randn(2, 16, 3, 4, 4).double()
    t, refs = torch.tensor([0.2, 0.7]).double(), torch.randn(2, 16, 2, 4, 4).double()
    m = video_modality(config, z, t, known, torch.ones_like(z[:, :1]), refs)
    v, _ = model(m, None, Text(torch.randn(2, 5, 64).double()))
    rest = 1 - t.reshape(2, 1, 1, 1, 1)
    assert torch.allclose(video_velocity(config, v, (3, 4, 4)), (known - z) / rest)


def test_marked_frames_carry_the_marker_of_keyframes_and_references_do_not():
    z = torch.randn(1, 16, 3, 4, 4)
    marked = torch.tensor([True, False, True])
    refs = torch.randn(1, 16, 2, 4, 4)
    m = video_modality(CONFIG, z, torch.zeros(1), z, z[:, :1], refs, marked=marked)
    assert m.kind is not None
    assert m.kind[0].tolist() == [1] * 8 + [2] * 4 + [0] * 4 + [2] * 4
    alone = video_modality(CONFIG, z, torch.zeros(1), z, z[:, :1], marked=marked)
    assert alone.kind is not None
    assert alone.kind[0].tolist() == [2] * 4 + [0] * 4 + [2] * 4
