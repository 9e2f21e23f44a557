"""Shards: deterministic, atomic, readable by anybody, refused when hostile."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelmill.datasets import shards as shards_module
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.shards import (
    ShardSample,
    find_existing,
    iter_shard,
    read_manifest,
    write_shards,
)
from reelmill.errors import DatasetError, WorkspaceError


def sample(number: int, size: int = 1000, caption: str | None = None) -> ShardSample:
    cut = {"seconds": 2.0, "width": 64, "height": 48, "fps": 16.0, "frames": 32}
    return ShardSample(
        key=f"{number:016x}_0_2000000",
        suffix=".mp4",
        media=hashlib.sha256(str(number).encode()).digest() * (size // 32),
        record={"kind": "video", "cut_key": f"k{number}", "cut": cut, "né": [1.5, None]},
        caption=caption,
    )


def write(folder: Path, samples, **options):
    sizes = {"max_samples": 3, "max_bytes": 1 << 20} | options
    return write_shards(samples, folder, prefix="video", **sizes)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_same_samples_give_the_same_bytes_and_the_manifest_vouches_for_each(tmp_path):
    samples = [sample(n, caption="a cat" if n % 2 else None) for n in range(8)]
    manifest = write(tmp_path / "a", samples)
    write(tmp_path / "b", iter(samples))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert [shard.samples for shard in manifest] == [3, 3, 2]
    for shard in manifest:
        data = (tmp_path / "a" / shard.file).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (shard.sha256, shard.bytes)
    assert read_manifest(tmp_path / "a") == manifest


def test_a_plain_tarfile_sees_one_key_after_the_other_with_fixed_headers(tmp_path):
    manifest = write(tmp_path, [sample(1, caption="hej"), sample(2)])
    with tarfile.open(tmp_path / manifest.shards[0].file) as tar:
        infos = tar.getmembers()
        names = [info.name.partition(".")[2] for info in infos]
        record = json.loads(tar.extractfile(infos[1]).read())
    assert names == ["mp4", "json", "txt", "mp4", "json"]
    assert {(i.mtime, i.uid, i.gid, i.mode, i.uname) for i in infos} == {(0, 0, 0, 0o644, "")}
    assert record["né"] == [1.5, None]


def test_webdataset_reads_every_sample(tmp_path):
    samples = [sample(n, caption=f"clip {n}") for n in range(5)]
    manifest = write(tmp_path, samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # webdataset's own deprecations
        import webdataset

        urls = [str(tmp_path / shard.file) for shard in manifest]
        found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in found] == [s.key for s in samples]
    assert [s["mp4"] for s in found] == [s.media for s in samples]
    assert [s["txt"].decode() for s in found] == [s.caption for s in samples]


def test_a_shard_is_full_before_it_passes_its_bytes(tmp_path):
    manifest = write(tmp_path, [sample(n, 4000) for n in range(5)], max_bytes=9000, max_samples=99)
    assert [shard.samples for shard in manifest] == [2, 2, 1]


def test_a_new_set_takes_the_place_of_the_old_one_and_can_reuse_its_bytes(tmp_path):
    write(tmp_path, [sample(n) for n in range(4)])
    old = find_existing(tmp_path)
    assert set(old) == {(sample(n).key, f"k{n}") for n in range(4)}
    kept = [sample(1), sample(3)]
    again = [
        ShardSample(s.key, s.suffix, old[s.key, s.record["cut_key"]](), s.record) for s in kept
    ]
    manifest = write(tmp_path, iter(again))
    assert ShardIndex.read(tmp_path).sample(kept[1].key)["mp4"] == kept[1].media
    assert len(list(tmp_path.iterdir())) == len(manifest) + 2
    write(tmp_path / "fresh", kept)
    fresh = contents(tmp_path / "fresh")
    assert {k: v for k, v in fresh.items() if v != (tmp_path / k).read_bytes()} == {}


def test_a_failure_half_way_leaves_the_old_set_whole(tmp_path):
    write(tmp_path, [sample(n) for n in range(4)])
    before = contents(tmp_path)

    def failing():
        yield from (sample(n, 2000) for n in range(10, 17))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, failing())
    assert contents(tmp_path) == before


def test_a_full_disk_says_so_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    write(tmp_path, [sample(1)])
    before = contents(tmp_path)

    class Full(shards_module._Hashed):
        def write(self, data: bytes) -> int:
            if self.count > 8000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(shards_module, "_Hashed", Full)
    with pytest.raises(WorkspaceError, match="disk full"):
        write(tmp_path, [sample(n, 4000) for n in range(9)], max_samples=99)
    assert contents(tmp_path) == before


def test_no_survivors_is_an_empty_set_and_no_folder_an_empty_manifest(tmp_path):
    assert len(read_manifest(tmp_path / "none")) == 0
    assert find_existing(tmp_path / "none") == {}
    assert len(write(tmp_path, [])) == 0
    assert len(ShardIndex.read(tmp_path)) == 0


def test_a_missing_shard_counts_as_not_cut(tmp_path):
    manifest = write(tmp_path, [sample(n) for n in range(4)])
    (tmp_path / manifest.shards[0].file).unlink()
    assert set(find_existing(tmp_path)) == {(sample(3).key, "k3")}


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a/b", "ä", "a" * 96, "a b"])
def test_unsafe_keys_are_refused(tmp_path, key):
    with pytest.raises(DatasetError, match="shard key"):
        write(tmp_path, [ShardSample(key, ".mp4", b"x", {})])


def test_keys_must_rise_and_records_must_be_json(tmp_path):
    with pytest.raises(DatasetError, match="must rise"):
        write(tmp_path, [sample(2), sample(1)])
    with pytest.raises(DatasetError, match="must rise"):
        write(tmp_path, [sample(2), sample(2)])
    with pytest.raises(DatasetError, match="no plain JSON"):
        write(tmp_path, [ShardSample("a", ".mp4", b"x", {"score": float("nan")})])
    with pytest.raises(DatasetError, match="no suffix"):
        write(tmp_path, [ShardSample("a", ".json", b"x", {})])


def hostile(path: Path, *infos: tarfile.TarInfo, data: bytes = b"") -> Path:
    with tarfile.open(path, "w") as tar:
        for info in infos:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "infos",
    [
        [member("../../etc/passwd.mp4")],
        [member("/etc/passwd.mp4")],
        [member("a.mp4", tarfile.SYMTYPE, "/etc/passwd")],
        [member("a.mp4", tarfile.LNKTYPE, "b.mp4")],
        [member("a.mp4", tarfile.CHRTYPE)],
        [member("a", tarfile.DIRTYPE)],
        [member("a.mp4"), member("b.mp4"), member("a.json")],
        [member("a.mp4"), member("a.mp4")],
    ],
)
def test_hostile_tars_are_refused(tmp_path, infos):
    with pytest.raises(DatasetError):
        list(iter_shard(hostile(tmp_path / "x.tar", *infos, data=b"data")))


def test_a_tar_that_is_cut_off_lies_about_sizes_or_is_compressed_is_refused(tmp_path):
    manifest = write(tmp_path, [sample(n, 4000) for n in range(3)])
    whole = (tmp_path / manifest.shards[0].file).read_bytes()
    cut_off = tmp_path / "cut.tar"
    cut_off.write_bytes(whole[:6000])
    with pytest.raises(DatasetError):
        list(iter_shard(cut_off))
    lying = member("a.mp4")
    lying.size = 1 << 40
    (tmp_path / "lying.tar").write_bytes(lying.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    with pytest.raises(DatasetError):
        list(iter_shard(tmp_path / "lying.tar"))
    import gzip

    (tmp_path / "gz.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(DatasetError):
        list(iter_shard(tmp_path / "gz.tar"))
    assert len(list(iter_shard(tmp_path / manifest.shards[0].file))) == 3


@settings(max_examples=60)
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=20))
def test_mutated_tars_give_samples_or_a_dataset_error(tmp_path_factory, flips):
    folder = tmp_path_factory.mktemp("fuzz")
    manifest = write(folder, [sample(n, 320) for n in range(3)])
    data = bytearray((folder / manifest.shards[0].file).read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    mutated = folder / "m.tar"
    mutated.write_bytes(bytes(data))
    try:
        for key, members in iter_shard(mutated):
            assert key
            assert members
    except DatasetError:
        pass
