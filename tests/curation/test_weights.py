"""Weights: found in order, verified byte for byte, never silently replaced."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reelmill.curation.models.catalogue import WeightsEntry, WeightsFile
from reelmill.curation.models.weights import (
    Weights,
    WeightsState,
    catalogue,
    fetch,
    user_cache,
)
from reelmill.errors import WeightsError

WHISPER = ("model.bin", "config.json", "tokenizer.json")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No weights but the bundled ones."""
    monkeypatch.delenv("REELMILL_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def whisper(root: Path, text: str = "weights") -> Path:
    folder = root / "whisper"
    folder.mkdir(parents=True)
    for name in WHISPER:
        (folder / name).write_text(text)
    return folder


def test_every_entry_says_where_it_comes_from_and_under_which_terms():
    for name, entry in catalogue().items():
        assert entry.name == name
        assert entry.what
        assert entry.licence
        assert entry.source.startswith("https://")
        assert sum(map(bool, (entry.files, entry.needs, entry.either))) == 1, name
        assert len({file.name for file in entry.files}) == len(entry.files)
        for file in entry.files:
            assert file.bytes > 0
            assert len(bytes.fromhex(file.sha256)) == 32
            assert Path(file.name).name == file.name  # stays inside its folder
            assert entry.bundled or file.url.startswith("https://")


@pytest.mark.parametrize("name", ["silero_vad", "dnsmos"])
def test_bundled_weights_are_there_and_as_published(name):
    weights = Weights()
    folder = weights.path(name)
    assert folder is not None
    files = catalogue()[name].files
    assert [(folder / f.name).stat().st_size for f in files] == [f.bytes for f in files]
    assert weights.state(name) == (WeightsState.BUNDLED, str(folder))
    assert weights.entry(name).bundled


def test_importing_and_looking_up_loads_no_heavy_package_and_opens_no_connection():
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from reelmill.curation.models.weights import Weights\n"
        "w = Weights()\n"
        "assert w.path('silero_vad') and w.path('dnsmos') and w.path('nisqa') is None\n"
        "heavy = {'torch', 'onnxruntime', 'huggingface_hub', 'numpy', 'silero_vad', 'speechmos'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_named_folder_comes_before_the_environment_and_the_cache_is_last(monkeypatch, tmp_path):
    said, told, cached = (whisper(tmp_path / name) for name in ("said", "told", "elsewhere"))
    monkeypatch.setenv("REELMILL_WEIGHTS", str(told.parent))
    assert Weights(said.parent).path("whisper") == said
    assert Weights().path("whisper") == told
    monkeypatch.delenv("REELMILL_WEIGHTS")
    assert Weights().path("whisper") is None
    own = whisper(user_cache())
    assert Weights().path("whisper") == own
    assert Weights(tmp_path).path("whisper") == own  # tmp_path has none
    assert cached.is_dir()


def test_cache_follows_xdg_and_falls_back_to_home(monkeypatch, tmp_path):
    assert user_cache() == tmp_path / "cache/reelmill/weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache/reelmill/weights"


def test_a_named_folder_must_exist(monkeypatch, tmp_path):
    with pytest.raises(WeightsError, match=r"--weights names .*nowhere"):
        Weights(tmp_path / "nowhere")
    monkeypatch.setenv("REELMILL_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="REELMILL_WEIGHTS names"):
        Weights()


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(WeightsError, match="Did you mean 'whisper'"):
        Weights().path("wisper")


def test_digest_of_a_free_entry_follows_its_contents(tmp_path):
    folder = whisper(tmp_path)
    weights = Weights(tmp_path)
    first = weights.digest("whisper")
    assert first == Weights(tmp_path).digest("whisper")
    (folder / ".download.lock").write_text("not part of it")
    assert weights.digest("whisper") == first
    (folder / "vocabulary.json").write_text("[]")
    second = weights.digest("whisper")
    assert second != first
    (folder / "model.bin").write_text("WEIGHTS")
    os.utime(folder / "model.bin", ns=(1, 1))
    assert weights.digest("whisper") not in (first, second)


def test_digest_of_absent_weights_is_an_error():
    with pytest.raises(WeightsError, match=r"'nisqa' are absent\. Put nisqa\.tar"):
        Weights().digest("nisqa")


def test_an_incomplete_folder_is_an_error_not_an_absence(tmp_path):
    (whisper(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"lack tokenizer\.json"):
        Weights(tmp_path).path("whisper")


@pytest.mark.parametrize("same_size", [False, True])
def test_an_altered_file_is_refused(tmp_path, same_size):
    folder = tmp_path / "brisque"
    folder.mkdir()
    for file in catalogue()["brisque"].files:
        (folder / file.name).write_bytes(bytes(file.bytes if same_size else 7))
    weights = Weights(tmp_path)
    with pytest.raises(WeightsError, match="is not the published file of weights 'brisque'"):
        weights.path("brisque")
    state, why = weights.state("brisque")
    assert state == WeightsState.ALTERED
    assert ("sha256" in why) == same_size


def test_state_of_absent_weights_says_what_to_put_where(tmp_path):
    state, advice = Weights(tmp_path).state("whisper")
    assert state == WeightsState.ABSENT
    assert str(tmp_path / "whisper") in advice
    assert "model.bin" in advice
    with pytest.raises(WeightsError, match=r"cannot be fetched by name.*Put model\.bin"):
        Weights(tmp_path).fetch("whisper")


def published(folder: Path, data: bytes) -> WeightsEntry:
    """An entry whose one file lies where `file:` URLs can reach it."""
    source = folder / "upstream.bin"
    source.write_bytes(data)
    file = WeightsFile("net.bin", len(data), hashlib.sha256(data).hexdigest(), source.as_uri())
    return WeightsEntry("net", "a net", "MIT", "https://example.org", (file,))


def test_fetched_files_are_verified_before_they_get_their_name(tmp_path):
    entry = published(tmp_path, b"weights" * 1000)
    folder = fetch(entry, tmp_path / "root")
    assert folder == tmp_path / "root/net"
    assert (folder / "net.bin").read_bytes() == b"weights" * 1000
    assert fetch(entry, tmp_path / "root") == folder


@pytest.mark.parametrize("other", [b"weightz" * 1000, b"w" * 9_000_000, b""])
def test_another_file_under_the_published_name_is_not_kept(tmp_path, other):
    entry = published(tmp_path, b"weights" * 1000)
    (tmp_path / "upstream.bin").write_bytes(other)
    with pytest.raises(WeightsError, match="is not the published"):
        fetch(entry, tmp_path / "root")
    assert list((tmp_path / "root/net").iterdir()) == []


def test_without_a_network_fetching_says_what_to_do(tmp_path, monkeypatch):
    unreachable = tuple(
        replace(f, url=f"http://127.0.0.1:9/{f.name}") for f in catalogue()["nisqa"].files
    )
    offline = dict(catalogue()) | {"nisqa": replace(catalogue()["nisqa"], files=unreachable)}
    monkeypatch.setattr("reelmill.curation.models.weights.CATALOGUE", offline)
    with pytest.raises(WeightsError, match=r"could not be fetched.*Put nisqa\.tar"):
        Weights(tmp_path).fetch("nisqa")


@pytest.mark.media
def test_given_folder_of_weights_is_as_the_catalogue_says(weights):
    store = Weights(weights)
    for name in catalogue():
        state, where = store.state(name)
        assert state != WeightsState.ALTERED, where
        if state == WeightsState.PRESENT:
            assert len(store.digest(name)) == 64
    assert store.state("nisqa")[0] == WeightsState.PRESENT
