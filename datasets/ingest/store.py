"""Object stores through fsspec: what lies below a prefix, and the bytes of one object.

An object is read in ranges, each of the length that was asked for or an error, and its tag is
looked at again at the end, so that one that is replaced meanwhile is not a mixture of both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import PurePosixPath
from typing import Any

import fsspec

from reelmill.datasets.ingest.outcome import Passing, Refused, persist
from reelmill.datasets.ingest.remote import Remote, Rules, scheme_of, shown, unsecret
from reelmill.errors import SourceError

RANGE = 8 << 20
MAX_LISTED = 5_000_000
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FINAL_NAMES = ("NoCredentials", "PartialCredentials", "ParamValidation", "ProfileNotFound")


def open_store(scheme: str, rules: Rules) -> Any:
    """The file system of a scheme. Raises SourceError where its package is missing."""
    for name in ("s3fs", "aiobotocore", "botocore", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        patience = rules.patience
        options["config_kwargs"] = {
            "connect_timeout": min(10.0, patience),
            "read_timeout": patience,
            "retries": {"max_attempts": 0},  # ours are counted, and told
        }
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except (ImportError, ValueError, OSError) as error:
        raise SourceError(f"{scheme}:// cannot be read: {unsecret(str(error))}") from None


def list_store(url: str, rules: Rules, pause: Callable[[float], None] = time.sleep) -> list[Remote]:
    """Every object below a prefix, or that a pattern names, sorted; one object is itself.

    Names with a part that begins with a dot are left out. Raises SourceError when there is none
    or the store does not answer.
    """
    scheme = scheme_of(url)
    store = open_store(scheme, rules)
    place = url.partition("://")[2]
    find = store.glob if any(c in place for c in "*?[") else store.find
    try:
        found: Mapping[str, Mapping[str, Any]] = _call(rules, pause, find, place, detail=True)
    except Refused as error:
        raise SourceError(f"source {shown(url)} cannot be listed: {error}.") from None
    if len(found) > MAX_LISTED:
        raise SourceError(f"source {shown(url)} names {len(found)} objects; {MAX_LISTED} at most.")
    remotes = []
    for name, about in sorted(found.items()):
        parts = PurePosixPath(name).parts
        if about.get("type") != "file" or any(part.startswith(".") for part in parts[1:]):
            continue
        location = f"{scheme}://{name}"
        known = int(about.get("size") or 0), _tag(about)
        remotes.append(Remote(location, location, known, written=_written(about)))
    if not remotes:
        raise SourceError(f"source {shown(url)} names no object.")
    return remotes


def read_object(
    store: Any,
    remote: Remote,
    rules: Rules,
    write: Callable[[bytes], None],
    pause: Callable[[float], None] = time.sleep,
    have: str = "",
) -> str:
    """Reads an object whole, every call of the store with patience; returns its tag.

    have: tag of the version that is there already; the same is not read. Raises Refused, and
    Passing when the object changed meanwhile.
    """
    place = remote.url.partition("://")[2]
    about = _call(rules, pause, store.info, place)
    size, tag = int(about.get("size") or 0), _tag(about)
    if about.get("type") != "file":
        raise Refused("it is no file")
    if have and tag == have:
        return tag
    if size > rules.max_bytes:
        raise Refused(f"it has {size} bytes, more than the {rules.max_bytes} allowed")

    def read(start: int, end: int) -> bytes:
        data = store.cat_file(place, start=start, end=end)
        if len(data) != end - start:
            raise Passing(f"{start + len(data)} bytes came of {size}")
        return data

    for start in range(0, size, RANGE):
        write(_call(rules, pause, read, start, min(start + RANGE, size)))
    if size > RANGE and _tag(_call(rules, pause, store.info, place)) != tag:
        raise Passing("it was replaced while it was read")
    return tag


def _call(
    rules: Rules,
    pause: Callable[[float], None],
    function: Callable[..., Any],
    *args: Any,
    **more: Any,
) -> Any:
    """One call of a store, tried again while its failure may pass. Raises Refused."""

    def once() -> Any:
        with translating():
            return function(*args, **more)

    return persist(once, attempts=rules.attempts, backoff=rules.backoff, pause=pause)


def _tag(about: Mapping[str, Any]) -> str:
    """Tells the versions of an object apart, as far as its store can."""
    for name in ("ETag", "etag", "md5Hash", "content_hash", "LastModified", "last_modified"):
        if about.get(name):
            return f"{about[name]} {about.get('size')}"
    return ""


def _written(about: Mapping[str, Any]) -> date | None:
    """The day of an object's last change, UTC, as far as its store tells."""
    for name in ("LastModified", "last_modified", "mtime", "updated"):
        found = about.get(name)
        try:
            if isinstance(found, int | float):
                return datetime.fromtimestamp(found, UTC).date()
            if isinstance(found, str):
                found = datetime.fromisoformat(found)
        except (ValueError, OverflowError, OSError):
            continue
        if isinstance(found, datetime):
            return (found.astimezone(UTC) if found.tzinfo else found).date()
    return None


@contextmanager
def translating() -> Iterator[None]:
    """A store's errors as ours: most may pass, some will not."""
    try:
        yield
    except (Refused, Passing):
        raise
    except _FINAL as error:
        raise Refused(f"{type(error).__name__}: {unsecret(str(error))[:300]}") from None
    except Exception as error:  # of whatever store: its package's own classes
        message = f"{type(error).__name__}: {unsecret(str(error))[:300]}"
        if type(error).__name__.startswith(_FINAL_NAMES):
            raise Refused(message) from None
        raise Passing(message) from None
