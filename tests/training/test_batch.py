"""Batches of requests: what is read, what is made again, what fails and stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from reelmill.datasets.media.encode import write_image
from reelmill.errors import UsageError
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import Pipeline
from reelmill.training.batch import generate_batch, read_requests
from reelmill.training.generate import GenerateOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (17, 32, 32, 3), dtype=np.uint8)
    video = PatchPCAVideo.fit([frames], channels=4)
    audio = MelPCAAudio.fit([random.standard_normal(40_000).astype(np.float32) / 9], channels=4)
    encoder = HashTextEncoder()
    config = preset("tiny", video_channels=4, audio_channels=4, text_dim=encoder.width)
    return Pipeline(MMDiT(config), video, audio, encoder).save(tmp_path_factory.mktemp("m") / "x")


def batch(folder: Path, *rows: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def defaults(model: Path, folder: Path) -> GenerateOptions:
    output = folder / "clips" / "000001.mp4"
    return GenerateOptions("", model, output, height=32, width=32, steps=1, frames=5)


def test_a_batch_is_made_once_and_only_what_changed_is_made_again(model: Path, tmp_path: Path):
    write_image(tmp_path / "first.png", np.full((32, 32, 3), 90, np.uint8))
    rows = [
        {"prompt": "a ball"},
        {"prompt": "a box", "image": "first.png", "task": "i2v", "output": "box.mp4"},
        "",
        {"prompt": "a cone", "task": "t2a", "output": "cone.flac", "seed": 3},
    ]
    path, seen = batch(tmp_path, *rows), []

    def run():
        requests = read_requests(path, defaults(model, tmp_path))
        return generate_batch(requests, lambda done, total, text: seen.append((done, total)))

    first = run()
    names = ["000001.mp4", "box.mp4", "cone.flac"]
    assert [p.name for p in first.made] == names
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)
    bytes_ = {p.name: p.read_bytes() for p in first.made}
    again = run()
    assert ([p.name for p in again.reused], again.made) == (names, ())
    write_image(tmp_path / "first.png", np.full((32, 32, 3), 91, np.uint8))
    first.made[2].unlink()  # as if killed between clip and clip
    last = run()
    assert [p.name for p in last.made] == ["box.mp4", "cone.flac"]
    assert last.made[1].read_bytes() == bytes_["cone.flac"]
    assert last.requests == len(last.made) + len(last.reused) + len(last.failed)


def test_a_request_that_does_not_fit_fails_by_name_and_stops_nothing(model: Path, tmp_path: Path):
    path = batch(
        tmp_path,
        {"prompt": "a ball", "image": "absent.png"},
        {"prompt": "@image_1 rolls"},
        {"prompt": "a box"},
    )
    result = generate_batch(read_requests(path, defaults(model, tmp_path)), lambda *told: None)
    assert set(result.failed) == {"000001.mp4", "000002.mp4"}
    assert "absent.png" in result.failed["000001.mp4"]
    assert "@image_1" in result.failed["000002.mp4"]
    assert [p.name for p in result.made] == ["000003.mp4"]
    assert json.loads((tmp_path / "clips" / "failed.json").read_text()) == dict(result.failed)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "0 requests"),
        (["{"], "line 1 is no JSON"),
        (['["a"]'], "line 1: an object"),
        ([{"seed": 1}], "line 1: an object with `prompt`"),
        ([{"prompt": "a"}, {"prompt": "b", "sede": 1}], "line 2.*sede.*seed"),
        ([{"prompt": "a", "steps": "many"}], "line 1, steps.*many"),
        ([{"prompt": "a", "model": "elsewhere"}], "model"),
        ([{"prompt": "a", "output": "../b.mp4"}], "no plain file name"),
        ([{"prompt": "a", "output": "/tmp/b.mp4"}], "no plain file name"),
        ([{"prompt": "a", "output": "b.txt"}], r"line 1: .*b\.txt"),
        ([{"prompt": "a", "output": "b.mp4"}] * 2, "that of line 1 too"),
        ([{"prompt": "a", "keep": "a.png", "change": [0, 0, 1, 1]}], "one of them"),
    ],
)
def test_a_batch_that_is_wrong_is_told_before_any_work(
    model: Path, tmp_path: Path, rows: list, told: str
):
    with pytest.raises(UsageError, match=told):
        read_requests(batch(tmp_path, *rows), defaults(model, tmp_path))
    assert not (tmp_path / "clips").exists()


def test_a_batch_that_cannot_be_read_is_told(model: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_requests(tmp_path / "absent.jsonl", defaults(model, tmp_path))


def test_a_request_equals_the_same_clip_made_alone(model: Path, tmp_path: Path):
    from reelmill.training.generate import generate

    one = defaults(model, tmp_path)
    requests = read_requests(batch(tmp_path, {"prompt": "a ball", "seed": 5}), one)
    made = generate_batch(requests, lambda *told: None).made[0]
    alone = generate(
        GenerateOptions(
            "a ball", model, tmp_path / "alone.mp4", height=32, width=32, steps=1, frames=5, seed=5
        )
    ).output

    def pictures(path: Path) -> list[np.ndarray]:
        with av.open(str(path)) as file:
            return [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]

    assert all(np.array_equal(a, b) for a, b in zip(pictures(made), pictures(alone), strict=True))
