"""Latents without an asset: the bytes of an encode that never saw it, also after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.latents import make_sample, write
from tests.scene_shards import film_sample, still_sample, write_set
from tests.trees import digests

import reelmill.datasets.latents as latents
from reelmill.datasets.latent_removal import fitted_codecs, leave_out, resume, sources_now
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.shards import ShardSample
from reelmill.errors import DatasetError
from reelmill.training.encode import EncodeOptions, EncodeResult, encode

SETTINGS = {"height": 32, "width": 32, "frames": (17, 9), "stride": 4}
GONE = 1
ASSET = f"{GONE:064x}"


def films() -> list[ShardSample]:
    """The asset's is the second; one is too short, one is broken."""
    made = [film_sample(i) for i in range(4)] + [film_sample(7, seconds=0.3)]
    broken = ShardSample("ffff_0_1", ".mp4", made[0].media[:900], made[0].record, "cut short")
    return [*made, film_sample(5, seconds=0.75), broken]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Shards, codecs that were fitted to other clips, and latents of all with these."""
    folder = tmp_path_factory.mktemp("root")
    others = write_set(folder / "other" / "video", [film_sample(40), film_sample(41)])
    encode(EncodeOptions(shards=(others,), output=folder / "fitted", **SETTINGS))
    samples = films()
    write_set(folder / "all" / "shards" / "video", samples, per_shard=3)
    write_set(folder / "all" / "shards" / "image", [still_sample(20)])
    rest = [s for s in samples if s.record["asset"] != ASSET]
    write_set(folder / "rest" / "shards" / "video", rest, per_shard=3)
    write_set(folder / "rest" / "shards" / "image", [still_sample(20)])
    for name in ("all", "rest"):
        encoded(folder, folder / name)
    return folder


def encoded(root: Path, place: Path) -> EncodeResult:
    return encode(
        EncodeOptions(
            shards=(place / "shards" / "video", place / "shards" / "image"),
            output=place / "latents",
            video_codec=root / "fitted" / "video_codec",
            audio_codec=root / "fitted" / "audio_codec",
            **SETTINGS,
        )
    )


@pytest.fixture
def place(root, tmp_path) -> Path:
    return shutil.copytree(root / "all", tmp_path / "all")


def contents(folder: Path) -> dict[str, str]:
    return {k: v for k, v in digests(folder).items() if k != "codecs.json"}


def mend_shards(root: Path, place: Path) -> dict[str, Path]:
    """The shards without the asset take the place of those with it."""
    sources = sources_now(place / "latents")
    shutil.rmtree(place / "shards")
    shutil.copytree(root / "rest" / "shards", place / "shards")
    return sources


def test_latents_are_those_of_an_encode_that_never_saw_the_asset(root, place, tmp_path):
    """The asset's clip goes, those after it move to other shards, and all counts are right."""
    sources = mend_shards(root, place)
    assert leave_out(place / "latents", ASSET, tmp_path / "scratch", sources) == 2
    assert contents(place / "latents") == contents(root / "rest" / "latents")
    assert not (tmp_path / "scratch").exists()
    again = encoded(root, place)
    assert again.reused == again.parts == 3
    assert contents(place / "latents") == contents(root / "rest" / "latents")


def test_another_asset_takes_nothing_out(place, tmp_path):
    before = digests(place)
    assert leave_out(place / "latents", "f" * 64, tmp_path / "scratch", None) == 0
    assert digests(place) == before


def test_latents_whose_shards_are_others_lose_the_asset_and_are_encoded_again(
    root, place, tmp_path
):
    mend_shards(root, place)
    assert sources_now(place / "latents") is None
    assert leave_out(place / "latents", ASSET, tmp_path / "scratch", None) == 2
    with LatentDataset(place / "latents") as data:
        assert ASSET not in data.column("asset")
        assert [data.read(row).key for row in range(len(data))] == data.column("key")
    assert encoded(root, place).reused == 0
    assert contents(place / "latents") == contents(root / "rest" / "latents")


def test_the_last_asset_leaves_no_latents(tmp_path):
    write(tmp_path / "set", [make_sample(5 * i) for i in range(6)]).close()
    assert leave_out(tmp_path / "set", "asset0", tmp_path / "scratch", None) == 6
    assert digests(tmp_path / "set") == {}


@pytest.mark.parametrize("writes", [*range(0, 14, 3), 100])
def test_killed_while_it_writes_or_moves_the_next_request_ends_it(
    root, place, tmp_path, monkeypatch, writes
):
    """writes: files that were written or moved when it died."""
    sources = mend_shards(root, place)
    left = [writes]

    def counting(real):
        def one(*given, **more):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*given, **more)

        return one

    folder, scratch = place / "latents", tmp_path / "scratch"
    with monkeypatch.context() as patch:
        patch.setattr(latents, "commit_bytes", counting(latents.commit_bytes))
        patch.setattr(Path, "unlink", counting(Path.unlink))
        patch.setattr(Path, "replace", counting(Path.replace))
        try:
            leave_out(folder, ASSET, scratch, sources)
        except KeyboardInterrupt:
            assert writes < 100
    resume(scratch, folder)
    assert not scratch.exists()
    leave_out(folder, ASSET, scratch, sources)
    assert contents(folder) == contents(root / "rest" / "latents")


def test_codecs_that_were_fitted_are_told_from_those_that_were_given(root):
    assert fitted_codecs(root / "all" / "latents") == []
    folder = root / "fitted"
    assert fitted_codecs(folder) == [str(folder / f"{n}_codec") for n in ("video", "audio")]
    assert fitted_codecs(root) == []


def test_damaged_latents_are_told_in_words(place, tmp_path):
    sources = sources_now(place / "latents")
    (tar,) = (place / "latents").glob("video*000000*.tar")
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(DatasetError, match="damaged"):
        leave_out(place / "latents", ASSET, tmp_path / "scratch", sources)
