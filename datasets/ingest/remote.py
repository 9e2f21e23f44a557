"""What a source that is not a local path is called, and which of them may be read at all.

A location can hold secrets: a password before the host, a signature in its query. What is shown,
logged and stored is its `name`, which holds neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from reelmill.errors import SourceError

HTTP = frozenset({"http", "https"})
NEVER = frozenset({"file", "local", "data", "memory"})  # other ways to a path of this machine
MAX_LOCATION = 8192
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET = re.compile(r"://[^/@\s]*@|\?[^\s\"')>]*")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


@dataclass(frozen=True)
class Rules:
    """What may be fetched, how much and how patiently.

    schemes: that may be named beside http and https; s3 unless changed. roots: folders that the
    local paths of a manifest may lie in, beside its own. max_bytes: of one file. cache_bytes: of
    all fetched files together. attempts: at one file, the waits between them doubling from
    `backoff` seconds. patience: seconds without a byte. min_rate: bytes a second, on average,
    after `patience`. redirects: that are followed. at_once: files that are fetched at a time.
    """

    schemes: tuple[str, ...] = ("s3",)
    roots: tuple[str, ...] = ()
    max_bytes: int = 32 << 30
    cache_bytes: int = 200 << 30
    attempts: int = 5
    backoff: float = 0.5
    patience: float = 30.0
    min_rate: float = 4096.0
    redirects: int = 5
    at_once: int = 8


@dataclass(frozen=True, order=True)
class Remote:
    """A file to fetch. name: for people. url: for machines; it may hold secrets.

    known: what its store said of it when it was listed (size, etag), None where nobody asked.
    caption: the text that lies beside it in its store. written: the day of its last change (UTC),
    as its store says.
    """

    name: str
    url: str = field(repr=False)
    known: tuple[int, str] | None = None
    caption: Remote | None = None
    written: date | None = None

    @property
    def key(self) -> str:
        """Names the location without telling it."""
        return hashlib.sha256(self.url.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def suffix(self) -> str:
        """Of its file name, `.mp4`, or empty."""
        suffix = PurePosixPath(unquote(urlsplit(self.url).path)).suffix.lower()
        return suffix if _SUFFIX.fullmatch(suffix) else ""


def scheme_of(text: str) -> str:
    """`https` of `https://host/file`; empty for a path."""
    found = _SCHEME.match(text)
    return found.group(1).lower() if found else ""


def check_location(text: str, rules: Rules, where: str) -> None:
    """Raises SourceError for a location that must not be read. where: what names it."""
    scheme, name = scheme_of(text), shown(text)
    if scheme in NEVER:
        raise SourceError(f"{where}: {name} is a local place; name a file by its path.")
    if scheme not in HTTP | set(rules.schemes):
        allowed = ", ".join(sorted(HTTP | set(rules.schemes)))
        raise SourceError(
            f"{where}: {name} has scheme {scheme!r}; allowed are {allowed}. Allow others by name "
            "with --allow-scheme."
        )
    if "::" in text or len(text) > MAX_LOCATION or any(c < " " or c == "\x7f" for c in text):
        raise SourceError(
            f"{where}: {name} is no plain location: chained, too long or unprintable."
        )
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise SourceError(f"{where}: {name} cannot be read as a location: {error}.") from None
    if not parts.netloc or (scheme in HTTP and not parts.hostname):
        raise SourceError(f"{where}: {name} names no host.")


def shown(text: str) -> str:
    """A location without its secrets: no user, and of a query only a digest. A path as it is."""
    if not scheme_of(text):
        return text
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return f"{scheme_of(text)}://..."
    if scheme_of(text) in HTTP:
        path, query = parts.path, parts.query
    else:  # of a store: ? and # are characters of names and patterns, unless they hold values
        rest = text.partition("://")[2]
        path, _, query = rest[rest.find("/") :].partition("?") if "/" in rest else ("", "", "")
        if query and "=" not in query:
            path, query = f"{path}?{query}", ""
    digest = hashlib.sha256(query.encode(errors="replace")).hexdigest()[:12]
    return f"{parts.scheme}://{host}{path}{'?' + digest if query else ''}"


def unsecret(text: str) -> str:
    """A message of a library without what could be a secret in a location that it quotes."""
    return _SECRET.sub(lambda found: "://" if found.group().startswith(":") else "?...", text)


def file_name(name: str) -> str:
    """The file's own name, of a path or a `Remote.name`, as it would be in a folder."""
    if not scheme_of(name):
        return PurePosixPath(name).name
    if scheme_of(name) in HTTP:
        return PurePosixPath(unquote(urlsplit(name).path)).name or "index"
    return PurePosixPath(name).name


def describe(columns: Mapping[str, object]) -> str:
    """Columns for a message: their names, a few at most."""
    names = list(columns)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "none"
