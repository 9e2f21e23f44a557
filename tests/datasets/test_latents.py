import io
import json
import tarfile

import numpy as np
import pytest
import safetensors.numpy
import webdataset
from tests.latents import make_sample, write

from reelmill.datasets.latents import (
    LatentDataset,
    LatentSample,
    PartWriter,
    held_out_rows,
    read_commit,
)
from reelmill.errors import DatasetError


def test_what_is_written_is_read_back(tmp_path):
    samples = [make_sample(i, audio=i % 3 > 0, text=True) for i in range(10)]
    with write(tmp_path, samples) as data:
        assert len(data) == 10
        for row in (7, 0, 9, 3):
            got = data.read(row)
            assert got.key == samples[row].key
            assert got.meta == samples[row].meta
            np.testing.assert_array_equal(got.video, samples[row].video)
            np.testing.assert_array_equal(got.text, samples[row].text)
            assert (got.audio is None) == (row % 3 == 0)
        assert data.column("has_audio") == [i % 3 > 0 for i in range(10)]


def test_equal_samples_give_equal_bytes(tmp_path):
    samples = [make_sample(i) for i in range(6)]
    write(tmp_path / "a", samples).close()
    write(tmp_path / "b", samples).close()
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# webdataset leaves closing the shard to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tarfile_and_webdataset_read_the_shards(tmp_path):
    samples = [make_sample(i) for i in range(4)]
    write(tmp_path, samples).close()
    shard = tmp_path / "part-00000.tar"
    with tarfile.open(shard) as file:
        assert file.getnames()[:2] == ["k000.safetensors", "k000.json"]
        data = file.extractfile("k001.safetensors").read()
    np.testing.assert_array_equal(safetensors.numpy.load(data)["video"], samples[1].video)
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [item["__key__"] for item in read] == [s.key for s in samples]
    assert json.loads(read[2]["json"])["caption"] == samples[2].meta["caption"]


def test_one_flipped_byte_is_found_and_named(tmp_path):
    data = write(tmp_path, [make_sample(i) for i in range(4)])
    path = tmp_path / "part-00000.tar"
    content = bytearray(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(bytes(content))) as file:
        place = file.getmember("k002.safetensors").offset_data + 200
    content[place] ^= 1
    path.write_bytes(bytes(content))
    data.read(1)
    with pytest.raises(DatasetError, match=r"k002.*damaged"):
        data.read(2)
    data.close()


def test_a_truncated_shard_is_an_error_not_a_short_sample(tmp_path):
    data = write(tmp_path, [make_sample(i) for i in range(4)])
    path = tmp_path / "part-00000.tar"
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(DatasetError, match="k003"):
        data.read(3)
    data.close()


def test_a_changed_index_is_refused(tmp_path):
    write(tmp_path, [make_sample(i) for i in range(4)]).close()
    path = tmp_path / "index.parquet"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DatasetError, match="encode"):
        LatentDataset(tmp_path)


def test_other_codecs_are_refused_with_both_names(tmp_path):
    with write(tmp_path, [make_sample(0)], video="codec-one") as data:
        data.require(video="codec-one", audio="pca-a")
        with pytest.raises(DatasetError, match=r"codec-one.*codec-two"):
            data.require(video="codec-two", audio="pca-a")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "extra": 2}', "\x00"]
)
def test_a_manifest_that_is_none_is_a_dataset_error(tmp_path, text):
    write(tmp_path, [make_sample(0)]).close()
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError):
        LatentDataset(tmp_path)


def test_a_folder_without_latents_says_so(tmp_path):
    with pytest.raises(DatasetError, match="reelmill encode"):
        LatentDataset(tmp_path)


def test_a_key_that_leaves_the_folder_is_refused(tmp_path):
    writer = PartWriter(tmp_path, "part-0", key="k")
    sample = make_sample(0)
    with pytest.raises(DatasetError, match="key"):
        writer.add(LatentSample(**{**sample.__dict__, "key": "../../etc/x"}))


def test_a_part_counts_only_under_its_key_and_with_whole_files(tmp_path):
    write(tmp_path, [make_sample(0)]).close()
    assert read_commit(tmp_path, "part-00000", "key0")["samples"] == 1
    assert read_commit(tmp_path, "part-00000", "key1") is None
    path = tmp_path / "part-00000.tar"
    path.write_bytes(path.read_bytes()[:-1])
    assert read_commit(tmp_path, "part-00000", "key0") is None
    assert read_commit(tmp_path, "part-00009", "key0") is None


def test_parts_that_left_are_dropped(tmp_path):
    write(tmp_path, [make_sample(i) for i in range(8)]).close()
    with write(tmp_path, [make_sample(i) for i in range(4)]) as data:
        assert len(data) == 4
    assert not (tmp_path / "part-00001.tar").exists()


def test_the_split_never_parts_an_asset_and_ignores_order():
    assets = [f"asset{i // 3}" for i in range(60)]
    held = held_out_rows(assets, 0.2)
    assert held.sum() == 12
    by_asset = {a: {bool(h) for b, h in zip(assets, held, strict=True) if a == b} for a in assets}
    assert all(len(sides) == 1 for sides in by_asset.values())
    np.testing.assert_array_equal(held_out_rows(assets[::-1], 0.2), held[::-1])
    assert held_out_rows(["a", "b"], 0.01).sum() == 1
    assert held_out_rows(["a"], 0.5).sum() == 0


def test_shards_that_are_missing_or_cut_short_are_named_before_anything_is_read(tmp_path):
    with write(tmp_path, [make_sample(i) for i in range(8)]) as data:
        data.require_whole()
    path = tmp_path / "part-00001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with LatentDataset(tmp_path) as data, pytest.raises(DatasetError, match=r"00001.*cut short"):
        data.require_whole()
    path.unlink()
    with LatentDataset(tmp_path) as data, pytest.raises(DatasetError, match=r"00001.*No such file"):
        data.require_whole()


def test_shards_of_another_schema_say_how_to_make_them_anew(tmp_path):
    write(tmp_path, [make_sample(0)]).close()
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1'))
    with pytest.raises(DatasetError, match=r"schema version 1.*reads version 2. Encode"):
        LatentDataset(tmp_path)
