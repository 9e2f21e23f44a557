import json
import shutil

import numpy as np
import pytest
import torch
import torchaudio
from tests.scene_shards import film_sample, make_scene, sound_sample, still_sample, write_set

from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.shards import ShardSample
from reelmill.errors import CheckpointError, DatasetError, UsageError
from reelmill.model.codecs.codec import to_frames
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.training.encode import EncodeOptions, encode

SETTINGS = {"channels": 16, "height": 32, "width": 32, "frames": (17, 9), "stride": 4}


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    root = tmp_path_factory.mktemp("curated")
    films = [film_sample(i) for i in range(5)]
    films += [
        film_sample(5, silent=True),
        film_sample(6, seconds=0.75),
        film_sample(7, seconds=0.3),
    ]
    return (
        write_set(root / "video", films),
        write_set(root / "image", [still_sample(20 + i) for i in range(2)]),
    )


@pytest.fixture(scope="module")
def encoded(curated, tmp_path_factory):
    output = tmp_path_factory.mktemp("latents") / "set"
    return encode(EncodeOptions(shards=curated, output=output, **SETTINGS))


def test_every_clip_is_accounted_for(encoded):
    assert (encoded.clips, encoded.short, dict(encoded.failed)) == (10, 1, {})
    with LatentDataset(encoded.output) as data:
        frames = data.column("frames")
        # 24 frames: windows of 17 at 0 and 4; 12 frames: of 9 at 0; stills: one frame.
        assert [frames.count(n) for n in (17, 9, 1)] == [12, 1, 2]
        assert len(data) == encoded.samples == encoded.manifest.samples
        assert sum(data.column("has_audio")) == 11


def test_latents_decode_to_the_window_they_came_from(encoded):
    video = load_video_codec(encoded.output / "video_codec")
    truth = render_scene(make_scene(2), 16)
    with LatentDataset(encoded.output) as data:
        keys = [k for k in data.column("key") if k.startswith(f"{2:016x}_") and "_17_4" in k]
        sample = data.read(data.column("key").index(keys[0]))
    assert sample.video.shape == (16, 5, 4, 4)
    decoded = to_frames(video.decode(torch.from_numpy(sample.video.astype(np.float32))[None]))

    def error(start):
        return np.abs(decoded.astype(float) - truth[start : start + 17]).mean()

    assert error(4) < 16
    assert min(error(s) for s in (3, 5)) > error(4)  # the right frames, not their neighbours
    assert sample.meta["caption"] == make_scene(2).caption
    assert sample.text.shape[1] == 64


@pytest.mark.parametrize("seed", [1, 3])
def test_sound_is_aligned_with_the_first_frame_of_its_window(encoded, seed):
    codec = load_audio_codec(encoded.output / "audio_codec")
    scene = make_scene(seed)
    played = torch.from_numpy(scene_audio(scene, 48_000).mean(0))
    true = torchaudio.functional.resample(played, 48_000, codec.rate)
    with LatentDataset(encoded.output) as data:
        keys = [k for k in data.column("key") if k.startswith(f"{seed:016x}_") and "_17_4" in k]
        sample = data.read(data.column("key").index(keys[0]))
    length = sample.audio.shape[1]
    assert length == int(17 / 16 * 44_100 / 1024)
    errors = {}
    for shift in range(-2048, 2049, 256):
        start = round(4 / 16 * codec.rate) + shift
        own = codec.encode(true[None, start : start + length * codec.hop])[0].numpy()
        errors[shift] = np.square(own - sample.audio.astype(np.float32)).mean()
    assert min(errors, key=errors.get) == 0


def test_equal_shards_give_equal_bytes_and_finished_parts_are_kept(curated, encoded, tmp_path):
    again = encode(EncodeOptions(shards=curated, output=tmp_path / "again", **SETTINGS))
    assert again.manifest.video == encoded.manifest.video
    parts = sorted(p.name for p in encoded.output.glob("*.tar"))
    assert len(parts) == 3
    for name in parts:
        assert (again.output / name).read_bytes() == (encoded.output / name).read_bytes()
    (again.output / parts[0]).unlink()
    (again.output / "manifest.json").unlink()
    resumed = encode(EncodeOptions(shards=curated, output=again.output, **SETTINGS))
    assert (resumed.parts, resumed.reused) == (3, 2)
    assert resumed.manifest == again.manifest


def test_other_settings_encode_anew(curated, encoded, tmp_path):
    output = tmp_path / "set"
    shutil.copytree(encoded.output, output)
    result = encode(EncodeOptions(shards=curated, output=output, **(SETTINGS | {"stride": 8})))
    assert result.reused == 0
    assert result.samples < encoded.samples


def test_a_named_codec_is_used_and_its_fingerprint_kept(curated, encoded, tmp_path):
    options = EncodeOptions(
        shards=curated[1:],
        output=tmp_path / "stills",
        video_codec=encoded.output / "video_codec",
        audio_codec=encoded.output / "audio_codec",
        **SETTINGS,
    )
    result = encode(options)
    assert result.manifest.video == encoded.manifest.video
    with pytest.raises(CheckpointError):
        encode(EncodeOptions(shards=curated, output=tmp_path / "x", video_codec=tmp_path))


def test_a_broken_clip_fails_alone_and_by_name(curated, encoded, tmp_path):
    good = film_sample(1)
    bad = ShardSample("ffff_0_1", ".mp4", good.media[:900], good.record, "cut short")
    shards = write_set(tmp_path / "video", [good, bad])
    options = EncodeOptions(
        shards=(shards,),
        output=tmp_path / "latents",
        video_codec=encoded.output / "video_codec",
        audio_codec=encoded.output / "audio_codec",
        **SETTINGS,
    )
    result = encode(options)
    assert list(result.failed) == ["ffff_0_1"]
    assert result.failed["ffff_0_1"].startswith("ffff_0_1 cannot be opened")
    assert result.samples == 2
    assert encode(options).failed == result.failed


def test_clips_that_are_all_too_short_are_an_error(encoded, tmp_path):
    shards = write_set(tmp_path / "video", [film_sample(7, seconds=0.3)])
    options = EncodeOptions(
        shards=(shards,),
        output=tmp_path / "latents",
        video_codec=encoded.output / "video_codec",
        audio_codec=encoded.output / "audio_codec",
        **SETTINGS,
    )
    with pytest.raises(DatasetError, match="9 frames"):
        encode(options)


def test_the_manifest_names_the_shards_by_digest_and_relative_path(curated, encoded):
    manifest = json.loads((encoded.output / "manifest.json").read_text())
    assert set(manifest["sources"]) == {"video", "image"}
    where = (encoded.output / manifest["options"]["shards"]["video"]).resolve()
    assert where == curated[0].resolve()
    assert encoded.manifest.digest == LatentDataset(encoded.output).manifest.digest


def test_sound_alone_is_cut_into_windows_end_to_end(encoded, tmp_path):
    shards = write_set(tmp_path / "audio", [sound_sample(9)])
    codecs = {n: encoded.output / n for n in ("video_codec", "audio_codec")}
    result = encode(EncodeOptions(shards=(shards,), output=tmp_path / "out", **codecs, **SETTINGS))
    codec = load_audio_codec(encoded.output / "audio_codec")
    played = torch.from_numpy(scene_audio(make_scene(9, seconds=3.0), 48_000).mean(0))
    true = torchaudio.functional.resample(played, 48_000, codec.rate)
    with LatentDataset(result.output) as data:
        assert data.column("start_frame") == [0, 17]  # 48 frames of time
        assert set(data.column("height")) == {0}
        sample = data.read(1)
    assert sample.video.shape == (16, 5, 0, 0)
    start = round(17 / 16 * codec.rate)
    own = codec.encode(true[None, start : start + sample.audio.shape[1] * codec.hop])[0].numpy()
    np.testing.assert_allclose(own, sample.audio.astype(np.float32), atol=0.05)
    assert sample.meta["caption"] == make_scene(9, seconds=3.0).caption


def test_further_sizes_are_the_windows_of_the_first_one_larger(curated, encoded, tmp_path):
    codecs = {n: encoded.output / n for n in ("video_codec", "audio_codec")}
    options = {**SETTINGS, **codecs, "sizes": ((48, 64),)}
    result = encode(EncodeOptions(shards=curated, output=tmp_path / "both", **options))
    with LatentDataset(result.output) as data, LatentDataset(encoded.output) as one:
        sizes = list(zip(data.column("height"), data.column("width"), strict=True))
        assert len(data) == 2 * len(one)
        assert sizes.count((48, 64)) == sizes.count((32, 32)) == len(one)
        for row, key in enumerate(one.column("key")):
            at = data.column("key").index(key)
            np.testing.assert_array_equal(data.read(at).video, one.read(row).video)
            assert data.read(at + 1).video.shape[2:] == (6, 8)
            for name in ("clip", "start_frame", "frames"):
                assert data.column(name)[at] == data.column(name)[at + 1]
        assert "black.17x48x64" in data.constants
    with pytest.raises(UsageError, match="twice"):
        EncodeOptions(shards=curated, output=tmp_path, **{**options, "sizes": ((32, 32),)})


def test_no_shards_is_an_error(encoded, curated, tmp_path):
    with pytest.raises(UsageError, match="no shards"):
        encode(EncodeOptions(shards=(), output=tmp_path))
    with pytest.raises(DatasetError):
        encode(EncodeOptions(shards=(tmp_path / "none",), output=tmp_path / "latents"))


@pytest.mark.parametrize(
    "field", [{"frames": (16,)}, {"height": 30}, {"stride": 0}, {"dtype": "i8"}]
)
def test_impossible_settings_are_usage_errors(tmp_path, field):
    with pytest.raises(UsageError):
        EncodeOptions(shards=(), output=tmp_path, **field)
