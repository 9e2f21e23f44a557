"""Which files become which assets."""

import hashlib
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reelmill.datasets.manifest import build_manifest, find_files, read_hashes
from reelmill.datasets.workspace import open_workspace
from reelmill.errors import SourceError


def manifest_of(folder: Path, workspace: Path):
    return build_manifest(find_files([str(folder)]), open_workspace(workspace))


def test_equal_bytes_at_two_paths_are_one_asset(tmp_path):
    media = tmp_path / "media"
    (media / "sub").mkdir(parents=True)
    (media / "b.mp4").write_bytes(b"same")
    (media / "sub" / "a.mp4").write_bytes(b"same")
    (media / "c.mp4").write_bytes(b"other")
    manifest = manifest_of(media, tmp_path / "w")
    assert manifest.files == 3
    by_digest = {a.sha256: a.paths for a in manifest.assets}
    assert by_digest == {
        hashlib.sha256(b"same").hexdigest(): (str(media / "b.mp4"), str(media / "sub" / "a.mp4")),
        hashlib.sha256(b"other").hexdigest(): (str(media / "c.mp4"),),
    }


def test_changed_bytes_behind_the_same_path_are_seen(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    file = media / "a.mp4"
    file.write_bytes(b"first")
    before = manifest_of(media, tmp_path / "w")
    status = file.stat()
    file.write_bytes(b"secnd")  # same length
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # and same modification time
    after = manifest_of(media, tmp_path / "w")
    assert before.digest != after.digest
    assert after.assets[0].sha256 == hashlib.sha256(b"secnd").hexdigest()


def test_captions_hidden_files_and_the_workspace_are_no_sources(tmp_path):
    for name in ("a.mp4", "a.txt", "lone.txt", ".hidden.mp4", "w/x.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    found = find_files([str(tmp_path)], skip=tmp_path / "w")
    assert [p.name for p in found] == ["a.mp4", "lone.txt"]


@pytest.mark.parametrize("what", ["missing", "empty", "pattern", "socket"])
def test_a_source_that_names_nothing_is_refused_by_name(tmp_path, what):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "socket")
    source = str(tmp_path / {"pattern": "*.mp4"}.get(what, what))
    with pytest.raises(SourceError, match=what if what != "pattern" else "matches no file"):
        find_files([source])


def test_partitions_hold_every_asset_once_and_growth_moves_few(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for i in range(100):
        (media / f"{i}.bin").write_bytes(str(i).encode())
    first = manifest_of(media, tmp_path / "w")
    groups = first.partitions(size=8)
    assert sorted(a.sha256 for g in groups for a in g) == [a.sha256 for a in first.assets]
    (media / "new.bin").write_bytes(b"new")
    second = manifest_of(media, tmp_path / "w").partitions(size=8)
    changed = [g for g in second if g not in groups]
    assert len(changed) == 1


@pytest.mark.parametrize("column", ["path", "stat", "sha256", "bytes", "check"])
def test_a_remembered_hash_that_was_altered_is_not_believed(tmp_path, column):
    """Also by who leaves the file a whole Parquet: its row does not add up."""
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (media / name).write_bytes(name.encode())
    before = manifest_of(media, tmp_path / "w")
    place = open_workspace(tmp_path / "w")
    path = place.manifest / "hashes.parquet"
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[0] = values[0] + 1 if isinstance(values[0], int) else _one_bit(values[0])
    pq.write_table(table.set_column(table.column_names.index(column), column, [values]), path)
    assert list(read_hashes(place)) == [str(media / "b.mp4")]
    assert manifest_of(media, tmp_path / "w") == before
    assert len(read_hashes(place)) == 2


def _one_bit(text: str) -> str:
    return chr(ord(text[0]) ^ 1) + text[1:]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def refusing(folder):  # root, whom tests may run as, is refused nothing by the mode
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SourceError, match="closed cannot be listed: Permission denied"):
        find_files([str(tmp_path)])
