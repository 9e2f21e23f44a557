"""From a prompt and files to a file, with an untrained model: form, lengths, errors, repetition."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.media.decode import probe
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.errors import CheckpointError, PromptError, UsageError
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import Pipeline
from reelmill.training.generate import GenerateOptions, generate

SCENE = random_scene(3, seconds=1.5, size=(96, 64), contrast=8.0)
FRAMES = render_scene(SCENE, 16)
SOUND = scene_audio(SCENE, 44_100)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    video = PatchPCAVideo.fit([FRAMES], channels=8)
    audio = MelPCAAudio.fit([SOUND.mean(0)], channels=8)
    encoder = HashTextEncoder()
    config = preset(
        "tiny",
        video_channels=video.channels,
        audio_channels=audio.channels,
        text_dim=encoder.width,
    )
    return Pipeline(MMDiT(config), video, audio, encoder).save(tmp_path_factory.mktemp("m") / "x")


def options(model: Path, output: Path, **given: object) -> GenerateOptions:
    wanted = {"prompt": "a red ball", "height": 32, "width": 32, "steps": 2, "frames": 17, **given}
    return GenerateOptions(model=model, output=output, **wanted)  # type: ignore[arg-type]


def streams(path: Path) -> dict[str, float]:
    """Seconds of each decoded stream, by kind."""
    with av.open(str(path)) as file:
        found = {s.type: 0.0 for s in file.streams}
        for frame in file.decode():
            if isinstance(frame, av.AudioFrame):
                found["audio"] += frame.samples / frame.sample_rate
            else:
                found["video"] += 1 / 16
    return found


def test_picture_and_sound_are_equally_long(model: Path, tmp_path: Path):
    made = generate(options(model, tmp_path / "clip.mp4"))
    lengths = streams(made.output)
    assert set(lengths) == {"video", "audio"}
    assert lengths["video"] == pytest.approx(17 / 16)
    assert lengths["audio"] == pytest.approx(17 / 16, abs=1024 / 44_100)
    assert made.seconds == pytest.approx(17 / 16, abs=1e-4)


def test_the_same_options_give_the_same_bytes_and_another_seed_gives_others(
    model: Path, tmp_path: Path
):
    first, second, third = (
        generate(options(model, tmp_path / f"{name}.mp4", seed=seed)).output.read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second != third


def test_the_provenance_lies_beside_the_clip(model: Path, tmp_path: Path):
    generate(options(model, tmp_path / "clip.mp4", seed=5))
    told = json.loads((tmp_path / "clip.mp4.json").read_text())
    assert (told["prompt"], told["seed"], told["task"]) == ("a red ball", 5, "t2av")


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".m4a"])
def test_sound_alone(model: Path, tmp_path: Path, suffix: str):
    made = generate(options(model, tmp_path / f"sound{suffix}", task="t2a"))
    assert set(streams(made.output)) == {"audio"}


def test_a_picture_alone(model: Path, tmp_path: Path):
    made = generate(options(model, tmp_path / "still.png", task="t2i", frames=None))
    info = probe(made.output)
    assert info.video is not None
    assert (info.video.width, info.video.height) == (32, 32)
    assert made.seconds == 0


def test_a_video_gets_sound_and_stays_as_it_is(model: Path, tmp_path: Path):
    source = tmp_path / "silent.mp4"
    write_video(source, FRAMES, fps=Fraction(16), crf=10)
    made = generate(options(model, tmp_path / "with.mp4", video=source, height=32, width=48))
    assert set(streams(made.output)) == {"video", "audio"}
    with av.open(str(made.output)) as file:
        shown = next(file.decode(video=0)).to_ndarray(format="rgb24")
    small = FRAMES[0].reshape(32, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(shown - small).mean() < 6  # 8-bit steps: two encodings and a filter apart


def test_a_sound_gets_a_picture_and_stays_as_it_is(model: Path, tmp_path: Path):
    source = tmp_path / "sound.flac"
    write_audio(source, SOUND, 44_100)
    made = generate(options(model, tmp_path / "seen.mov", audio=source))
    lengths = streams(made.output)
    assert lengths["video"] == pytest.approx(17 / 16)
    with av.open(str(made.output)) as file:
        heard = np.concatenate([f.to_ndarray().mean(0) for f in file.decode(audio=0)])
    mono = SOUND.mean(0)[: len(heard)]
    assert np.corrcoef(heard[: len(mono)], mono)[0, 1] > 0.95


def test_an_image_is_the_first_frame(model: Path, tmp_path: Path):
    source = tmp_path / "first.png"
    write_image(source, FRAMES[0][:, 16:80])
    made = generate(options(model, tmp_path / "clip.mp4", image=source))
    with av.open(str(made.output)) as file:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    wanted = FRAMES[0][:, 16:80].reshape(32, 2, 32, 2, 3).mean((1, 3))
    distances = [np.abs(frame - wanted).mean() for frame in frames]
    assert distances[0] == min(distances)


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def small(frames: np.ndarray) -> np.ndarray:
    return frames.reshape(len(frames), 32, 2, 48, 2, 3).mean((2, 4))


@pytest.mark.parametrize("how", ["change", "keep"])
def test_what_is_to_stay_stays_and_the_rest_is_made_anew(model: Path, tmp_path: Path, how: str):
    source, mask = tmp_path / "source.mp4", tmp_path / "mask.png"
    write_video(source, FRAMES[:17], fps=Fraction(16), crf=4)
    light = np.full((32, 48, 3), 255, np.uint8)
    light[8:24, 16:40] = 0
    write_image(mask, light)
    given = {"change": (16, 8, 24, 16)} if how == "change" else {"keep": mask}
    made = generate(
        options(
            model, tmp_path / "edited.mp4", video=source, task="edit", height=32, width=48, **given
        )
    )
    off = np.abs(pictures(made.output).astype(float) - small(FRAMES[:17])).mean((0, 3))
    kept = light[..., 0] > 0
    # two encodings apart; 2 pixels beside the edge share its chroma
    assert np.median(off[kept]) < 6 < np.median(off[~kept])


def test_an_image_is_painted_in(model: Path, tmp_path: Path):
    source = tmp_path / "still.png"
    write_image(source, FRAMES[0][:, 16:80])
    made = generate(
        options(
            model,
            tmp_path / "painted.png",
            image=source,
            change=(8, 8, 16, 16),
            task="inpaint",
            frames=None,
        )
    )
    assert made.frames == 1


def test_a_video_goes_on_and_what_there_was_comes_back(model: Path, tmp_path: Path):
    source = tmp_path / "start.mp4"
    write_video(source, FRAMES[:9], fps=Fraction(16), crf=4)
    made = generate(
        options(
            model,
            tmp_path / "longer.mp4",
            video=source,
            task="extend",
            height=32,
            width=48,
            frames=17,
        )
    )
    found = pictures(made.output)
    assert len(found) == 17
    assert np.abs(found[:9].astype(float) - small(FRAMES[:9])).mean() < 6


def test_a_last_frame_references_guidance_and_another_solver(model: Path, tmp_path: Path):
    first, last = tmp_path / "first.png", tmp_path / "last.png"
    write_image(first, FRAMES[0][:, 16:80])
    write_image(last, FRAMES[-1][:, 16:80])
    made = generate(
        options(
            model,
            tmp_path / "between.mp4",
            prompt="@image_1 moves",
            image=first,
            end=last,
            task="start_end_av",
            references={"image_1": first},
            negative="grey",
            text_scale=3.0,
            audio_text_scale=2.0,
            modality_scale=1.5,
            reference_scale=2.0,
            rescale=0.7,
            solver="unipc",
            preview=True,
        )
    )
    told = json.loads((tmp_path / "between.mp4.json").read_text())
    assert told["solver"] == "unipc"
    assert told["guidance"]["text"] == {"video": 3.0, "audio": 2.0}
    assert told["guidance"]["rescale"] == {"video": 0.7, "audio": 0.7}
    assert told["references"] == ["image_1"]
    sheet = probe(tmp_path / "between.mp4.preview.jpg").video
    assert sheet is not None
    assert (sheet.width, sheet.height) == (4 * 192, 3 * 192)
    with av.open(str(made.output)) as file:
        assert json.loads(file.metadata["comment"]) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": "absent.png"}, "absent.png: there is no such file"),
        ({"end": "absent.png", "image": "absent.png"}, "absent.png: there is no such file"),
        ({"references": {"image_1": Path("absent.png")}}, "ref image_1 absent.png"),
        ({"references": {"thing": Path("absent.png")}}, "@thing"),
        ({"solver": "magic"}, "magic"),
        ({"rescale": 2.0}, "rescale is 2.0"),
        ({"fps": 0}, "0 fps"),
        ({"change": (0, 0, 99, 1), "image": "absent.png"}, "leaves the picture"),
        ({"task": "t3v"}, "t3v"),
        ({"frames": 16}, "multiple of 4"),
        ({"height": 33}, "33"),
        ({"task": "t2a"}, ".flac"),
        ({"output": "clip.txt"}, "clip.txt"),
    ],
)
def test_what_does_not_fit_is_told(model: Path, tmp_path: Path, given: dict, told: str):
    given = {k: tmp_path / v if k in ("image", "end", "output") else v for k, v in given.items()}
    output = given.pop("output", tmp_path / "clip.mp4")
    with pytest.raises(UsageError, match=told):
        generate(options(model, output, **given))
    assert not output.exists()


def test_a_file_that_is_no_media_is_told(model: Path, tmp_path: Path):
    source = tmp_path / "notes.mp4"
    source.write_text("no media")
    for name in ("image", "video", "audio"):
        with pytest.raises(PromptError, match=r"notes\.mp4"):
            generate(options(model, tmp_path / "clip.mp4", **{name: source}))


def test_a_folder_that_is_no_model_is_told(tmp_path: Path):
    with pytest.raises(CheckpointError, match="train"):
        generate(options(tmp_path / "absent", tmp_path / "clip.mp4"))
