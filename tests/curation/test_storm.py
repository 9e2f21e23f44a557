"""A storm of bad files: each in its bin, the good ones as if it had never been, nothing touched."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
from tests.media import noise, noise_video, still
from tests.small_run import recipe_file
from tests.storm import Canary, make_storm

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.result import CurateResult
from reelmill.curation.workers import Limits
from reelmill.datasets.index import ShardIndex
from reelmill.datasets.media.encode import write_audio

pytestmark = pytest.mark.long

SECRET = b"canary-3f9c1d-nobody-reads-me"


@pytest.fixture
def canary(tmp_path):
    """A file with an old access time, and a host that notes who calls."""
    file = tmp_path / "outside" / "secret.ts"
    file.parent.mkdir()
    file.write_bytes(SECRET * 100)
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        open_ = threading.Event()

        def listen() -> None:
            while not open_.is_set():
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    continue
                calls.append(address)
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield Canary(file, f"http://127.0.0.1:{server.getsockname()[1]}"), calls
        open_.set()
        thread.join()


def old_access(file: Path) -> float:
    """Makes the file's last access two days old, so that any reading shows (relatime)."""
    then = time.time() - 2 * 86400
    os.utime(file, (then, file.stat().st_mtime))
    return file.stat().st_atime


OFF = (
    "Blockiness.max_blockiness",
    "Interlace.max_combing",
    "NoiseInClass.min_snr",
    "EventSync.max_shift",
    "Stamps.max_logos",
)


def make_good(folder: Path, *, large: bool) -> Path:
    folder.mkdir(parents=True)
    for seed in range(4 if not large else 48):
        noise_video(folder / f"good-{seed}.mp4", seconds=2.0 + 0.25 * (seed % 4), seed=1000 + seed)
    still(folder / "good.jpg", seed=20)
    write_audio(folder / "good.flac", noise(3.0, seed=30), 48_000)
    return folder


def curate(source: Path, workspace: Path) -> CurateResult:
    curation = Curation(
        CurateOptions(
            sources=(str(source),),
            workspace=workspace,
            workers=2,
            limits=Limits(patience_s=60),
            overrides=tuple(f"{bound}=null" for bound in OFF),  # the good files are noise
        )
    )
    for step in curation.steps():
        step.run()
    return curation.result()


def samples(workspace: Path) -> dict[str, dict[str, bytes]]:
    found = {}
    for manifest in workspace.glob("shards/*/manifest.json"):
        with ShardIndex.read(manifest.parent) as index:
            found |= {key: index.sample(key) for key in index.keys}
    return found


def verdicts(result: CurateResult) -> dict[str, set[tuple[str, str]]]:
    """(outcome, reason) of each file, by the name in which it is shown."""
    path = Path(result.workspace) / "ledger" / "verdicts" / f"{result.run}.parquet"
    found: dict[str, set[tuple[str, str]]] = {}
    for row in pq.read_table(path).to_pylist():
        if row["level"] != "clip":
            found.setdefault(row["path"], set()).add((row["outcome"], row["reason"]))
    return found


def printed(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


@pytest.mark.parametrize(
    "large", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_good_files_come_through_a_storm_untouched(tmp_path, canary, large):
    bait, calls = canary
    good = make_good(tmp_path / "good", large=large)
    files = len(list(good.iterdir()))
    calm = samples(Path(curate(good, tmp_path / "calm").workspace))
    assert len(calm) >= files == (50 if large else 6)
    both = shutil.copytree(good, tmp_path / "both")
    bins = make_storm(both / "storm", tmp_path / "scratch", bait, large=large)
    before = old_access(bait.file)
    result = curate(both, tmp_path / "w")

    stormy = samples(Path(result.workspace))
    assert {key: stormy.get(key) for key in calm} == calm

    found = verdicts(result)
    wrong = {}
    for name, allowed in bins.items():
        ended = found[printed(both / "storm" / name)]
        assert len(ended) == 1
        if allowed is not None and not ended <= allowed:
            wrong[name] = ended
    assert wrong == {}
    assert result.files.into == len(bins) + files
    assert len(bins) >= (200 if large else 40)
    for count in (result.files, result.assets, result.clips):
        assert count.into == count.kept + count.rejected + count.failed

    assert bait.file.stat().st_atime == before
    assert calls == []
    leaked = [
        str(path)
        for path in Path(result.workspace).rglob("*")
        if path.is_file() and SECRET in path.read_bytes()
    ]
    assert leaked == []
    page = Path(result.report).read_text()
    assert "<img src=x onerror" not in page
    assert Counter(outcome for ended in found.values() for outcome, _ in ended)["failed"] > 5


def test_titles_captions_and_huge_metadata_are_text_and_bounded(tmp_path):
    """In the report they are text, in the ledger they take no room; the caption stays a caption."""
    title, caption = "<img src=x onerror=alert(1)>", "</td><script>alert(2)</script>"
    media = tmp_path / "media"
    media.mkdir()
    plain = noise_video(tmp_path / "plain.mp4", seconds=0.5, seed=1)
    with av.open(str(plain)) as source, av.open(str(media / "film.mp4"), "w") as film:
        film.metadata.update(title=title, comment=caption * 100_000)
        streams = {s: film.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                film.mux(packet)
    assert (media / "film.mp4").stat().st_size > 2_000_000
    (media / "film.txt").write_text(caption)
    recipe = recipe_file(tmp_path, "kind: video\nstages: [Probe, WholeFile, Cut]\n")
    curation = Curation(
        CurateOptions(sources=(str(media),), workspace=tmp_path / "w", recipe=recipe, workers=0)
    )
    for step in curation.steps():
        step.run()
    result = curation.result()
    assert result.clips.kept == 1
    (members,) = samples(tmp_path / "w").values()
    assert members["txt"].decode() == caption
    assert title.encode() not in members["mp4"]
    page = Path(result.report).read_text()
    assert title not in page
    assert "<script>alert(2)" not in page
    held = [f for f in (tmp_path / "w").rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in held) < 2_000_000


def test_the_canary_would_sing(tmp_path, canary):
    """The check above can fail: reading the file and calling the host both show."""
    bait, calls = canary
    before = old_access(bait.file)
    bait.file.read_bytes()
    host, _, port = bait.url.removeprefix("http://").partition(":")
    socket.create_connection((host, int(port))).close()
    for _ in range(50):
        if calls:
            break
        time.sleep(0.1)
    assert calls
    if bait.file.stat().st_atime == before:
        pytest.skip("this file system notes no reading")
