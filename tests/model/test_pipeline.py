"""Pipeline: from a prompt and inputs to a clip; the folder that it is saved in; bad input."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import safetensors.torch
import torch

from reelmill.errors import CheckpointError, PromptError, UsageError
from reelmill.model.codecs.codec import to_frames, to_pixels
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import MMDiTConfig, preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.guidance import Guider, ModalityCFG, TextCFG
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import JOBS, GeneratedClip, Pipeline, cover
from reelmill.model.weights_file import read_model, write_model

RATE = 44_100


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    r = np.random.default_rng(0)
    clips = [
        r.integers(0, 256, (1, 4, 4, 3)).repeat(9, 0).repeat(8, 1).repeat(8, 2) for _ in range(30)
    ]
    sounds = [r.normal(0, 0.1, 20_000).astype(np.float32) for _ in range(5)]
    torch.manual_seed(0)
    model = MMDiT(preset("tiny")).eval()
    with torch.no_grad():
        for tower in (model.video, model.audio):
            tower.head.weight.normal_(std=0.1)
        for layer in model.layers:
            layer.cross.audio.out.weight.normal_(std=0.2)
            layer.cross.video.out.weight.normal_(std=0.2)
    return Pipeline(
        model,
        PatchPCAVideo.fit([c.astype(np.uint8) for c in clips]),
        MelPCAAudio.fit(sounds),
        HashTextEncoder(),
        {"stage": "joint", "step": 7},
    )


def picture(seed=0, frames=9, height=32, width=48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def sound(seconds=0.6, channels=1) -> np.ndarray:
    shape = (channels, round(seconds * RATE))
    return np.random.default_rng(1).normal(0, 0.1, shape).astype(np.float32)


def make(pipeline, **options) -> GeneratedClip:
    return pipeline.generate("a red ball", **({"height": 32, "width": 48, "steps": 2} | options))


@pytest.mark.parametrize(("frames", "fps"), [(17, 16), (9, 16), (5, 30000 / 1001), (33, 25)])
def test_sound_is_exactly_as_long_as_the_picture(pipeline, frames, fps):
    clip = make(pipeline, frames=frames, fps=fps)
    assert clip.video.shape == (frames, 32, 48, 3)
    assert clip.video.dtype == np.uint8
    exact = Fraction(frames) / Fraction(fps).limit_denominator(1001) * RATE
    assert clip.audio.shape == (1, round(exact))
    assert clip.audio.dtype == np.float32
    assert np.abs(clip.audio).max() <= 1
    assert (clip.audio_rate, clip.fps) == (RATE, fps)


@pytest.mark.parametrize(("seconds", "frames"), [(0.3, 5), (1, 17), (1.2, 21), (0.4, 5)])
def test_seconds_become_the_nearest_length_that_the_codec_has(pipeline, seconds, frames):
    assert len(make(pipeline, seconds=seconds).video) == frames


def test_a_seed_names_a_clip(pipeline):
    first, second, other = (make(pipeline, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.video, second.video)
    assert np.array_equal(first.audio, second.audio)
    assert not np.array_equal(first.video, other.video)


GIVEN = {
    "image": picture()[0],
    "end": picture(4)[0],
    "video": picture(),
    "keep": np.arange(32 * 48).reshape(32, 48) % 48 < 24,
    "strength": 0.5,
    "audio": sound(),
}
LONGER = {task: {} for task in JOBS} | {"extend": {"frames": 15, "window": 13, "context": 5}}


@pytest.mark.parametrize("task", JOBS)
def test_every_task_makes_what_it_says(pipeline, task):
    clip = make(
        pipeline, task=task, **{name: GIVEN[name] for name in JOBS[task].needs}, **LONGER[task]
    )
    assert (clip.video is None) == (task == "t2a")
    assert (clip.audio is None) == (JOBS[task].audio == "absent")
    if task in ("t2i", "inpaint"):
        assert len(clip.video) == 1
    assert clip.provenance["task"] == task


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ({}, "t2av"),
        ({"image": picture()[0]}, "i2v"),
        ({"video": picture()}, "v2a"),
        ({"audio": sound()}, "a2v"),
        ({"image": picture()[0], "audio": sound()}, "ia2v"),
        ({"image": picture()[0], "end": picture()[1]}, "start_end"),
        ({"image": picture()[0], "keep": GIVEN["keep"]}, "inpaint"),
        ({"video": picture(), "keep": GIVEN["keep"]}, "edit_av"),
        ({"video": picture(), "strength": 0.4}, "v2v"),
    ],
)
def test_what_is_given_chooses_the_task(pipeline, given, task):
    assert make(pipeline, **given).provenance["task"] == task


def test_the_first_frame_of_image_to_video_is_the_image_as_the_codec_has_it(pipeline):
    image = picture()[0]
    clip = make(pipeline, image=image, frames=9)
    codec = pipeline.video_codec
    expected = to_frames(codec.decode(codec.encode(to_pixels(image[None]))))[0]
    assert np.abs(clip.video[0].astype(int) - expected).max() <= 1
    assert np.abs(clip.video[8].astype(int) - expected).mean() > 5


def test_video_to_audio_keeps_the_video_and_follows_it(pipeline):
    a, b = (make(pipeline, video=picture(seed, frames=11)) for seed in (0, 5))
    assert np.array_equal(a.video, picture(0, frames=11)[:9])
    assert a.audio.shape == (1, round(9 / 16 * RATE))
    assert not np.allclose(a.audio, b.audio, atol=1e-3)


def test_audio_to_video_keeps_the_audio_and_follows_it(pipeline):
    given = sound(0.6, channels=2)
    clip = make(pipeline, audio=given)
    assert clip.video.shape[0] == 9
    assert np.array_equal(clip.audio, given[:, : round(9 / 16 * RATE)])
    quiet = make(pipeline, audio=given * 0)
    assert not np.array_equal(clip.video, quiet.video)


def test_guidance_changes_the_clip_and_stands_in_its_provenance(pipeline):
    guider = Guider(TextCFG(4, 3), ModalityCFG(2, 2))
    plain, guided = make(pipeline), make(pipeline, guider=guider)
    assert not np.array_equal(plain.video, guided.video)
    assert guided.provenance["guidance"]["text"] == {"video": 4, "audio": 3}


def test_provenance_says_what_made_the_clip(pipeline):
    made_with = make(pipeline, seed=5).provenance
    assert json.loads(json.dumps(made_with)) == made_with
    assert made_with["prompt"] == "a red ball"
    assert made_with["seed"] == 5
    assert made_with["config"] == pipeline.model.config.hash
    assert made_with["fingerprints"]["text"] == HashTextEncoder().fingerprint()
    assert made_with["codecs"]["text"] == "HashTextEncoder"
    assert made_with["model"] == {"stage": "joint", "step": 7}


def test_an_image_covers_the_frame():
    image = np.zeros((100, 50, 3), np.uint8)
    image[40:60] = 255  # a bar in the middle
    x = cover(image, 32, 32)
    assert x.shape == (1, 3, 1, 32, 32)
    assert (x[0, 0, 0, 14:18] > 0.9).all()
    assert (x[0, 0, 0, :8] < -0.9).all()


def test_saved_and_loaded_it_makes_the_same_clip(pipeline, tmp_path):
    folder = pipeline.save(tmp_path / "export")
    again = Pipeline.load(folder)
    a, b = make(pipeline), make(again)
    assert np.array_equal(a.video, b.video)
    assert np.array_equal(a.audio, b.audio)
    assert a.provenance == b.provenance
    pipeline.save(folder)  # over itself
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 40}, "multiple of 16"),
        ({"width": 0}, "multiple of 16"),
        ({"frames": 8}, r"1 \+ a multiple of 4"),
        ({"frames": -3}, r"1 \+ a multiple of 4"),
        ({"frames": 5, "seconds": 2}, "not both"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": 1e9}, "up to 3600"),
        ({"fps": 0}, "fps 0"),
        ({"steps": 0}, "steps 0"),
        ({"frames": 1, "fps": 60}, "too short for sound"),
        ({"task": "v2a"}, "takes video; given: nothing"),
        ({"task": "t2v", "audio": sound()}, "takes a prompt alone; given: audio"),
        ({"image": picture()[0], "video": picture()}, "together; given: image, video"),
        ({"image": picture()}, "uint8 RGB"),
        ({"image": picture()[0].astype(float)}, "uint8 RGB"),
        ({"video": picture()[..., :2]}, "uint8 RGB"),
        ({"audio": sound()[0]}, r"\[channels, n\]"),
        ({"audio": sound() * np.nan}, "finite"),
        ({"audio": sound(0.01)}, "the given audio has 0"),
        ({"video": picture(), "frames": 13}, "the given video has 9"),
    ],
)
def test_input_that_does_not_fit_is_a_prompt_error(pipeline, options, message):
    with pytest.raises(PromptError, match=message):
        make(pipeline, **options)


def test_an_unknown_task_names_those_there_are(pipeline):
    with pytest.raises(UsageError, match="t2i, t2v"):
        make(pipeline, task="dream")


def test_sound_from_a_model_without_audio_tower_is_refused(pipeline):
    model = MMDiT(replace(preset("tiny"), audio=None)).eval()
    mute = replace(pipeline, model=model)
    with pytest.raises(PromptError, match="no audio tower"):
        make(mute)
    assert make(mute, task="t2v").audio is None


def test_parts_of_other_sizes_are_refused(pipeline):
    with pytest.raises(CheckpointError, match=r"prompt width: the model has 64, .* 32"):
        replace(pipeline, encoder=HashTextEncoder(width=32))


def _edit(path, **change):
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | change))


def _fingerprints(folder):
    return json.loads((folder / "model.json").read_text())["details"]["fingerprints"]


def _edit_weights(folder, edit):
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    edit(weights)
    safetensors.torch.save_file(weights, path)


def _other_codec(folder):
    clips = [picture(i) for i in range(3)]
    PatchPCAVideo.fit(clips).save(folder / "video_codec")


DAMAGE = {
    "schema 99": lambda f: _edit(f / "model.json", schema=99),
    "was altered": lambda f: _edit(f / "model.json", config=preset("demo").to_json()),
    "no model config": lambda f: _edit(f / "model.json", config={"video": 3}),
    "video latents have fingerprint": _other_codec,
    "text latents have fingerprint 'x'": lambda f: _edit(
        f / "model.json", details={"fingerprints": _fingerprints(f) | {"text": "x"}}
    ),
    "cannot be read": lambda f: (f / "model.safetensors").write_bytes(b"\x80\x02}q\x00."),
    "model.json cannot be read": lambda f: (f / "model.json").unlink(),
    r"video.inp.bias is missing in the file and \(64,\)": lambda f: _edit_weights(
        f, lambda w: w.pop("video.inp.bias")
    ),
    r"video.inp.bias is \(3,\) in the file and \(64,\)": lambda f: _edit_weights(
        f, lambda w: w.update({"video.inp.bias": torch.zeros(3)})
    ),
    r"more is \(3,\) in the file and no part": lambda f: _edit_weights(
        f, lambda w: w.update(more=torch.zeros(3))
    ),
    "holds .*I64": lambda f: _edit_weights(
        f, lambda w: w.update({"video.inp.bias": torch.zeros(64, dtype=torch.int64)})
    ),
    "not finite": lambda f: _edit_weights(
        f, lambda w: w.update({"video.inp.bias": torch.full((64,), torch.nan)})
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_export_is_a_checkpoint_error(pipeline, tmp_path, message):
    folder = pipeline.save(tmp_path / "export")
    DAMAGE[message](folder)
    with pytest.raises(CheckpointError, match=message):
        Pipeline.load(folder)


def test_a_folder_that_is_not_there_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        Pipeline.load(tmp_path / "nothing")


def test_a_model_of_another_config_names_both_values(tmp_path):
    config = MMDiTConfig(preset("tiny").video, None)
    write_model(tmp_path, config, MMDiT(config).state_dict(), {})
    other = MMDiTConfig(replace(config.video, ffn=512), None)
    with pytest.raises(CheckpointError, match=r"video\.ffn: saved 256, asked 512"):
        read_model(tmp_path, expect=other)
    assert read_model(tmp_path, expect=config)[0].config == config
