"""Files over HTTP from a real server on loopback that fails in every way it can."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tests.loopback import Site, serving

from reelmill.datasets.ingest.cache import Cache
from reelmill.datasets.ingest.fetch import fetch
from reelmill.datasets.ingest.find import find_sources
from reelmill.datasets.ingest.remote import Remote, Rules, shown
from reelmill.datasets.manifest import Manifest
from reelmill.datasets.workspace import Workspace, open_workspace
from reelmill.errors import SourceError

RULES = Rules(attempts=3, backoff=0.001, patience=0.4, max_bytes=1 << 20, cache_bytes=64 << 20)


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(12):
        (folder / f"f{number}.bin").write_bytes(hashlib.sha256(b"%d" % number).digest() * 3000)
    with serving(folder) as site:
        yield site


@pytest.fixture
def place(tmp_path) -> Workspace:
    return open_workspace(tmp_path / "w")


def digests(site: Site) -> list[str]:
    return sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in site.folder.iterdir())


def manifest(place: Workspace, *urls: str, rules: Rules = RULES) -> Manifest:
    found = find_sources(urls, skip=place.root, rules=rules)
    found.fetch(place, lambda n: None)
    return found.manifest(place)


def lost(place: Workspace, url: str, rules: Rules = RULES) -> str:
    made = manifest(place, url, rules=rules)
    assert not made.assets
    (one,) = made.unreadable
    assert one.path == shown(url)
    return one.error


def test_all_files_come_from_a_server_that_fails_every_third_time(site, place):
    site.fail_every = 3
    urls = [site.url(f"/f{n}.bin") for n in range(12)]
    made = manifest(place, *urls, rules=replace(RULES, attempts=12))
    assert not made.unreadable
    assert sorted(asset.sha256 for asset in made.assets) == digests(site)
    assert sorted(asset.name for asset in made.assets) == sorted(urls)
    assert sum(site.asked.values()) > 12


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("/short/f1.bin", "broke off"),
        ("/broken/f1.bin", "broke off"),
        ("/endless/f1.bin", "more than the 1048576 bytes allowed"),
        ("/slow/f1.bin", "too slow"),
        ("/silent/f1.bin", "no answer in time"),
        ("/huge/f1.bin", "more than the 1048576 allowed"),
        ("/zipped/f1.bin", "content-encoding 'gzip'"),
        ("/forbidden/f1.bin", "403"),
        ("/f99.bin", "404"),
        ("/redirect/f1.bin", "more than 5 redirects"),
    ],
)
def test_what_cannot_be_fetched_is_failed_by_name_and_its_neighbour_comes(site, place, mode, told):
    site.redirect = "/redirect/f1.bin"
    made = manifest(place, site.url("/f2.bin"), site.url(mode))
    assert [asset.name for asset in made.assets] == [site.url("/f2.bin")]
    (one,) = made.unreadable
    assert one.path == site.url(mode)
    assert told in one.error
    passing = told in ("broke off", "too slow", "no answer in time")
    assert site.asked[mode] == (3 if passing else 6 if "redirects" in told else 1)
    assert not list((place.root / "fetched").glob("part/*"))


def test_a_host_that_is_not_there_is_failed_by_name(place):
    assert "ConnectError" in lost(place, "http://127.0.0.1:1/a.mp4")


def test_what_breaks_off_once_comes_at_the_second_try(site, place):
    (asset,) = manifest(place, site.url("/once/f3.bin")).assets
    assert asset.sha256 == hashlib.sha256((site.folder / "f3.bin").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/", "s3://bucket/key"]
)
def test_redirects_lead_to_the_web_and_nowhere_else(site, place, target):
    site.redirect = target
    assert "which is not http or https" in lost(place, site.url("/redirect/f1.bin"))


def test_the_same_files_are_not_fetched_twice(site, place):
    urls = [site.url("/f1.bin"), site.url("/f2.bin")]
    found = find_sources(urls, skip=None, rules=RULES)
    assert found.fetch(place, lambda n: None) == 2
    assert found.fetch(place, lambda n: None) == 0
    assert site.asked["/f1.bin"] == 2  # asked, and told that it is the same


def test_a_changed_file_is_fetched_again(site, place):
    url = site.url("/f1.bin")
    (before,) = manifest(place, url).assets
    (site.folder / "f1.bin").write_bytes(b"other")
    (after,) = manifest(place, url).assets
    assert (before.name, after.sha256) == (after.name, hashlib.sha256(b"other").hexdigest())


def test_a_server_that_cannot_tell_versions_is_asked_for_the_file_itself(site, place):
    url = site.url("/untagged/f1.bin")
    manifest(place, url)
    (site.folder / "f1.bin").write_bytes(b"other")
    (after,) = manifest(place, url).assets
    assert after.sha256 == hashlib.sha256(b"other").hexdigest()


def test_a_fetched_file_that_was_altered_is_not_believed(site, place):
    url = site.url("/f1.bin")
    (asset,) = manifest(place, url).assets
    with Path(asset.path).open("ab") as file:
        file.write(b"x")
    made = find_sources([url], skip=None, rules=RULES).manifest(place)
    assert not made.assets
    assert "altered" in made.unreadable[0].error
    (again,) = manifest(place, url).assets
    assert again.sha256 == asset.sha256


def test_the_cache_is_bounded_and_lets_go_of_what_no_run_names(site, place):
    rules = replace(RULES, cache_bytes=9 << 20, at_once=1)
    for number in range(12):
        (site.folder / f"f{number}.bin").write_bytes(bytes([number]) * 900_000)
        manifest(place, site.url(f"/f{number}.bin"), rules=rules)
    held = sum(p.stat().st_size for p in (place.root / "fetched").glob("*/*"))
    assert held <= 9 << 20
    urls = [site.url(f"/f{n}.bin") for n in range(12)]
    made = manifest(place, *urls, rules=rules)
    assert made.assets
    assert all("--cache-gb" in u.error for u in made.unreadable)
    assert len(made.assets) + len(made.unreadable) == 12


def test_secrets_of_a_location_are_in_no_name_message_log_or_file(site, place, caplog):
    caplog.set_level(logging.DEBUG)
    port = site.url("").rpartition(":")[2]
    secrets = ("hunter2", "SIGNATURE")
    urls = [
        f"http://user:hunter2@127.0.0.1:{port}{path}?sig=SIGNATURE"
        for path in ("/f1.bin", "/forbidden/f1.bin", "/short/f1.bin", "/redirect/f2.bin")
    ]
    site.redirect = "ftp://user:hunter2@127.0.0.1/?sig=SIGNATURE"
    made = manifest(place, *urls)
    assert len(made.assets) == 1
    assert any("Authorization" in headers for headers in site.headers)  # they were used
    told = [repr(made), repr(find_sources(urls, skip=None, rules=RULES))]
    files = b"".join(p.read_bytes() for p in place.root.rglob("*") if p.is_file())
    logged = [record.getMessage() for record in caplog.records]
    for secret in secrets:
        assert [text for text in [*told, *logged] if secret in text] == []
        assert secret.encode() not in files


@pytest.mark.parametrize(
    "source",
    ["file:///etc/passwd", "gopher://h/x", "http:///x", "https://h/a::file://etc/passwd",
     "http://[::1", "http://h:99999/x", "data://x", "http://h/\x01"],
)  # fmt: skip
def test_a_location_that_must_not_be_read_is_refused_before_anything_runs(source):
    with pytest.raises(SourceError):
        find_sources([source], skip=None, rules=RULES)


def test_records_that_lead_out_of_the_cache_are_not_followed(site, place):
    import pyarrow as pa

    from reelmill.datasets.ingest.cache import _SCHEMA
    from reelmill.datasets.workspace import commit_bytes, table_bytes

    remote = Remote("n", site.url("/f1.bin"))
    digest = "0" * 64
    for file in ("../../secret", f"{digest[:2]}/../{digest}", "/etc/passwd", f"00/{digest}./x"):
        table = pa.table([[remote.key], [digest], [file], [""]], schema=_SCHEMA)
        commit_bytes(place.manifest / "fetched.parquet", table_bytes(table))
        assert Cache(place, 1).file(remote.key) is None
    assert not fetch([remote], place, RULES).lost
