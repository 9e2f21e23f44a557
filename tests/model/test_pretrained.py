"""Import and export: names of Wan, SkyReels and HunyuanVideo-1.5, with diffusers as the oracle."""

import json
import math
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import Tensor

from reelmill.errors import CheckpointError, UsageError, WeightsError
from reelmill.model.conditioning import video_modality, video_velocity
from reelmill.model.flow import from_sigma_velocity
from reelmill.model.mmdit import MMDiT
from reelmill.model.modality import Text
from reelmill.model.pretrained.exported import export_weights
from reelmill.model.pretrained.hunyuan import hunyuan_config, hunyuan_video_weights
from reelmill.model.pretrained.imported import import_video
from reelmill.model.pretrained.source import Source
from reelmill.model.pretrained.wan import (
    diffusers_names,
    wan_config,
    wan_state,
    wan_video_weights,
)
from reelmill.model.rope import rope
from reelmill.model.weights_file import read_model

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "num_attention_heads": 4, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
    "text_dim": 24, "ffn_dim": 96, "num_layers": 3, "freq_dim": 256,
}  # fmt: skip


def randomised(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def wan():
    return randomised(diffusers.WanTransformer3DModel(**SMALL))


@pytest.fixture(scope="module")
def hunyuan():
    model = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=32, num_layers=2,
        num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=24, text_embed_2_dim=12,
        image_embed_dim=10, rope_axes_dim=(4, 14, 14), rope_theta=256.0,
    )  # fmt: skip
    return randomised(model)


def original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers state by Wan's own names, written out by hand."""
    out = {}
    for name, value in state.items():
        for theirs, first in (
            ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
            ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
            ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
            ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
            ("condition_embedder.time_proj", "time_projection.1"),
            ("attn1", "self_attn"), ("attn2", "cross_attn"), (".to_out.0", ".o"), (".to_", "."),
            ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"), ("norm2", "norm3"),
            ("proj_out", "head.head"),
        ):  # fmt: skip
            name = name.replace(theirs, first)
        if name == "scale_shift_table":
            name = "head.modulation"
        out[name.replace("scale_shift_table", "modulation")] = value
    return out


def save(folder, state, name="model.safetensors", **config):
    folder.mkdir(exist_ok=True)
    data = {k: v.clone().contiguous() for k, v in state.items()}
    safetensors.torch.save_file(data, folder / name)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def velocity(config, weights, z, t, words):
    model = MMDiT(config).double().eval()
    model.load_state_dict(weights)
    model.double().video.text_bias = -math.inf
    tokens = video_modality(config, z, t, torch.randn_like(z), torch.rand_like(z[:, :1]))
    with torch.no_grad():
        v, _ = model(tokens, None, Text(words))
    return video_velocity(config, v, z.shape[2:])


def test_original_names_become_what_diffusers_makes_of_them(wan):
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    first = original(wan.state_dict())
    assert "blocks.0.self_attn.q.weight" in first
    ours, theirs = diffusers_names(first), convert_wan_transformer_to_diffusers(dict(first))
    assert ours.keys() == theirs.keys() == wan.state_dict().keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("names", ["diffusers", "original", "wrapped", "sharded"])
def test_an_imported_wan_gives_wans_velocity(wan, tmp_path, names):
    state = wan.state_dict()
    if names in ("original", "wrapped"):
        state = original(state)
    if names == "wrapped":
        state = {f"model.diffusion_model.{k}": v for k, v in state.items()}
    if names == "sharded":
        keys = sorted(state)
        (tmp_path / "wan").mkdir()
        for part in (0, 1):
            shard = {k: state[k] for k in keys[part::2]}
            save(
                tmp_path / "wan" / "transformer",
                shard,
                f"m-{part}.safetensors",
                num_attention_heads=4,
            )
        place = tmp_path / "wan"
    else:
        place = save(tmp_path / "wan", state, num_heads=4)
    got = import_video(place, dual=1)
    assert (got.family, got.unmatched, got.fresh) == ("wan", [], [])
    assert (got.config.video.heads, got.config.video.dual, got.config.video.single) == (4, 1, 2)
    assert len(got.files) == (2 if names == "sharded" else 1)
    z, words = torch.randn(2, 16, 3, 8, 6).double(), torch.randn(2, 7, 24).double()
    t = torch.tensor([0.3, 0.8]).double()
    with torch.no_grad():
        theirs = wan.double()(z, 1000 * (1 - t), words, return_dict=False)[0]
    wan.float()
    expected = from_sigma_velocity(theirs)
    ours = velocity(got.config, got.weights, z, t, words)
    assert (ours - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("extras", [False, True])
def test_skyreels_names_are_wans_and_what_is_more_is_listed(tmp_path, extras):
    more = {"inject_sample_info": True, "image_dim": 32, "added_kv_proj_dim": 48} if extras else {}
    model = randomised(diffusers.SkyReelsV2Transformer3DModel(**SMALL, **more))
    got = import_video(save(tmp_path / "sky", model.state_dict(), num_attention_heads=4))
    strange = {n.split(".")[0] if "fps" in n else ("image" if "image" in n else "added")
               for n in got.unmatched}  # fmt: skip
    assert strange == ({"fps_embedding", "fps_projection", "image", "added"} if extras else set())
    assert not got.fresh
    used = wan_video_weights(model.state_dict(), got.config)
    assert all(torch.equal(got.weights[name], used[name]) for name in used)


def test_an_image_to_video_wan_brings_columns_for_image_and_mask(tmp_path):
    model = randomised(diffusers.WanTransformer3DModel(**(SMALL | {"in_channels": 36})))
    got = import_video(save(tmp_path / "i2v", model.state_dict(), num_attention_heads=4), dual=1)
    z, image = torch.randn(2, 1, 16, 3, 8, 6).double()
    mask = torch.zeros(1, 1, 3, 8, 6).double()
    mask[:, :, 0] = 1
    words, t = torch.randn(1, 7, 24).double(), torch.tensor([0.4]).double()
    with torch.no_grad():
        inputs = torch.cat((z, mask.expand(-1, 4, -1, -1, -1), image), 1)
        theirs = model.double()(inputs, 1000 * (1 - t), words, return_dict=False)[0]
        ours = MMDiT(got.config)
        ours.load_state_dict(got.weights)
        ours = ours.double().eval()
        ours.video.text_bias = -math.inf
        v, _ = ours(video_modality(got.config, z, t, image, mask), None, Text(words))
    expected = from_sigma_velocity(theirs)
    found = video_velocity(got.config, v, (3, 8, 6))
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_a_dual_block_with_hunyuans_weights_is_hunyuans(hunyuan):
    config = hunyuan_config(hunyuan.state_dict())
    assert config.video.rope_dims == (4, 14, 14)
    model = MMDiT(config)
    missing, unexpected = model.load_state_dict(
        hunyuan_video_weights(hunyuan.state_dict(), config), strict=False
    )
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"video", "layers"}
    model, theirs = model.double().eval(), hunyuan.double()
    z, c = torch.randn(2, 9, 3, 4, 6).double(), torch.randn(2, 5, 64).double()
    t = torch.tensor([0.3, 0.8]).double()
    seen = torch.ones(2, 5, dtype=torch.bool)
    block = theirs.transformer_blocks[0]
    with torch.no_grad():
        temb = theirs.time_embed(1000 * (1 - t))
        x = theirs.x_embedder(z)
        want_x, want_c = block(x, c, temb, seen, theirs.rope(z))
        tokens = video_modality(config, z[:, :4], t, z[:, 4:8], z[:, 8:])
        state = model.video.enter(tokens, model.encode_text(Text(torch.zeros(2, 5, 24))).video)
        assert torch.allclose(state.x, x, atol=1e-9)
        assert torch.allclose(state.ctx.time.emb, temb, atol=1e-5)
        ours = model.layers[0].video
        ours.text = None  # HunyuanVideo has none; ours has zero output
        got_x, got_c = ours.feed(*ours.attend(state.x, c, state.ctx, 0), state.ctx)
    hunyuan.float()
    for found, want in ((got_x, want_x), (got_c, want_c)):
        assert want.abs().max() > 1
        assert (found - want).abs().max() <= 1e-5 * want.abs().max()


def test_hunyuans_head_is_ours_with_opposite_sign(hunyuan):
    config = hunyuan_config(hunyuan.state_dict())
    model = MMDiT(config)
    model.load_state_dict(hunyuan_video_weights(hunyuan.state_dict(), config), strict=False)
    x, t = torch.randn(2, 7, 64), torch.tensor([0.3, 0.8])
    z = torch.zeros(2, 4, 1, 1, 7)
    with torch.no_grad():
        temb = hunyuan.time_embed(1000 * (1 - t))
        theirs = hunyuan.proj_out(hunyuan.norm_out(x, temb))
        m = video_modality(config, z, t, z, z[:, :1])
        s = model.video.enter(m, model.encode_text(Text(torch.zeros(2, 1, 24))).video)
        ours = model.video.leave(s._replace(x=x), m)
    assert torch.allclose(ours, -theirs, atol=1e-4)


def test_import_of_hunyuan_accounts_for_every_tensor(hunyuan, tmp_path):
    state = hunyuan.state_dict()
    got = import_video(save(tmp_path / "hy", state), text_dim=40)
    assert got.family == "hunyuan-video-1.5"
    assert {n.split(".")[0] for n in got.unmatched} == {
        "context_embedder", "context_embedder_2", "image_embedder", "cond_type_embed",
    }  # fmt: skip
    assert all(".text." in name for name in got.fresh)
    assert got.weights["video.text.0.weight"].shape == (64, 40)
    assert not got.weights["layers.0.video.text.out.weight"].any()
    source = Source(state)
    hunyuan_video_weights(source, got.config)
    assert sorted([*source.taken, *got.unmatched]) == sorted(state)
    got.save(tmp_path / "ours")
    model, details = read_model(tmp_path / "ours")
    assert details["provenance"]["unmatched"] == got.unmatched
    assert model.config == got.config


@pytest.mark.parametrize("dual", [0, 2])
def test_exported_by_wans_names_it_is_the_wan_that_was_imported(wan, tmp_path, dual):
    state = wan.state_dict()
    import_video(save(tmp_path / "wan", state), dual=dual, heads=4).save(tmp_path / "ours")
    left, count = export_weights(tmp_path / "ours", tmp_path / "out.safetensors", names="wan")
    back = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert count == sum(v.numel() for v in state.values())
    assert all(".c." in n or n.startswith(("video.keyframe", "video.inp")) for n in left)
    assert len([n for n in left if ".c." in n]) == (0 if dual == 0 else 11 * dual)


def test_export_by_our_names_is_everything(wan, tmp_path):
    got = import_video(save(tmp_path / "wan", wan.state_dict()), heads=4)
    got.save(tmp_path / "ours")
    out = tmp_path / "half.safetensors"
    left, _ = export_weights(tmp_path / "ours", out, dtype="bfloat16")
    back = safetensors.torch.load_file(out)
    assert not left
    assert all(torch.equal(back[n], v.bfloat16()) for n, v in got.weights.items())
    assert [p.name for p in tmp_path.glob(".*")] == []
    for bad in ({"names": "flux"}, {"dtype": "int4"}):
        with pytest.raises(UsageError, match="there are"):
            export_weights(tmp_path / "ours", out, **bad)
    with pytest.raises(UsageError, match="safetensors"):
        export_weights(tmp_path / "ours", tmp_path / "out.bin")


def test_pickles_and_strangers_are_refused(wan, hunyuan, tmp_path):
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "model.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(WeightsError, match="only safetensors"):
        import_video(tmp_path / "pickled")
    with pytest.raises(WeightsError, match=r"no \*\.safetensors there"):
        import_video(tmp_path / "nothing")
    with pytest.raises(WeightsError, match="holds a, "):
        import_video(save(tmp_path / "other", {"a": torch.zeros(2)}))
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_video(tmp_path / "bad.safetensors")
    state = wan.state_dict()
    with pytest.raises(CheckpointError, match="int64"):
        import_video(save(tmp_path / "q", state | {"x": torch.zeros(2, dtype=torch.int64)}))
    with pytest.raises(CheckpointError, match=r"blocks.1.attn1.to_q.weight.* missing"):
        import_video(
            save(
                tmp_path / "hole",
                {k: v for k, v in state.items() if k != "blocks.1.attn1.to_q.weight"},
            )
        )
    broken = state | {"proj_out.bias": torch.full_like(state["proj_out.bias"], torch.nan)}
    with pytest.raises(CheckpointError, match="not finite"):
        import_video(save(tmp_path / "nan", broken), heads=4)
    with pytest.raises(CheckpointError, match="comes more than once"):
        import_video(
            save(tmp_path / "twice", state | {"model.proj_out.bias": state["proj_out.bias"]})
        )
    odd = wan_config(state, dual=1, heads=4)
    odd = replace(odd, video=replace(odd.video, qk_norm="head"))
    with pytest.raises(CheckpointError, match="not Wan's"):
        wan_state(MMDiT(odd).state_dict(), odd)


def test_audio_positions_turn_as_in_ovi():
    """T19: Ovi turns the first 44 of 128 dimensions of audio by index x .19676, and no others."""
    index = torch.arange(157, dtype=torch.float64)
    table = rope((index * 0.19676)[None, :, None], (44, 42, 42))
    rates = 1.0 / 10_000 ** (torch.arange(0, 44, 2, dtype=torch.float64) / 44)
    angles = torch.outer(index, rates * 0.19676)
    expected = torch.polar(torch.ones_like(angles), angles)
    found = table.turn[0, :, 0]
    assert torch.allclose(found[:, :22].to(torch.complex128), expected, atol=1e-5)
    assert (found[:, 22:] == 1).all()


def test_the_command_line_imports_lists_and_exports(tmp_path):
    from typer.testing import CliRunner

    from reelmill.cli import app

    model = diffusers.SkyReelsV2Transformer3DModel(**SMALL, inject_sample_info=True)
    place = save(tmp_path / "sky", randomised(model).state_dict(), num_attention_heads=4)
    run = CliRunner().invoke
    done = run(app, ["model", "import", str(place), "-o", str(tmp_path / "ours"), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["family"] == "wan"
    assert "fps_embedding.weight" in answer["unmatched"]
    out = tmp_path / "wan.safetensors"
    done = run(app, ["model", "export", str(tmp_path / "ours"), "-o", str(out), "--names", "wan"])
    assert done.exit_code == 0, done.output
    assert "layers.0.video.c.out.weight" in done.output
    assert out.is_file()
    again = run(app, ["model", "import", str(place), "-o", str(tmp_path / "ours")])
    assert isinstance(again.exception, UsageError)
