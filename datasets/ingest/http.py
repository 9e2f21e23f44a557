"""One file over HTTP: bounded in size, time and redirects; whole, or an error."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

from reelmill.datasets.ingest.outcome import Passing, Refused
from reelmill.datasets.ingest.remote import HTTP, Rules, shown, unsecret

for _name in ("httpx", "httpcore"):  # they would log locations with their secrets
    logging.getLogger(_name).setLevel(logging.WARNING)
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_WAIT = 60.0


@dataclass(frozen=True)
class Got:
    """What came. fresh: False when the server says that what is known of it still holds.

    tag: what tells the next version from this one; empty where the server gives no such thing.
    """

    fresh: bool
    tag: str


def new_client(rules: Rules) -> httpx.Client:
    limits = httpx.Limits(max_connections=rules.at_once)
    timeout = httpx.Timeout(rules.patience, connect=min(10.0, rules.patience))
    return httpx.Client(follow_redirects=False, timeout=timeout, limits=limits)


def get(
    client: httpx.Client, url: str, rules: Rules, tag: str, write: Callable[[bytes], None]
) -> Got:
    """Fetches a file. tag: of the version that is there, or empty. Raises Refused, Passing."""
    headers = {"accept-encoding": "identity", "user-agent": "reelmill"}
    if tag:
        name, _, value = tag.partition(" ")
        headers[name] = value
    try:
        for _ in range(rules.redirects + 1):
            with client.stream("GET", url, headers=headers) as response:
                if response.has_redirect_location:
                    url = _follow(url, response)
                    continue
                return _receive(response, rules, write, known=bool(tag))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise Refused(f"no such location: {type(error).__name__}") from None
    except httpx.TimeoutException as error:
        raise Passing(f"no answer in time ({type(error).__name__})") from None
    except httpx.RemoteProtocolError as error:
        raise Passing(f"the connection broke off: {unsecret(str(error))}") from None
    except httpx.HTTPError as error:
        raise Passing(f"{type(error).__name__}: {unsecret(str(error))}") from None
    raise Refused(f"more than {rules.redirects} redirects")


def _follow(url: str, response: httpx.Response) -> str:
    target = urljoin(url, response.headers.get("location", ""))
    before, after = urlsplit(url), urlsplit(target)
    if after.scheme not in HTTP or not after.hostname:
        raise Refused(f"redirected to {shown(target)[:200]}, which is not http or https")
    if before.scheme == "https" and after.scheme == "http":
        raise Refused(f"redirected from https to {shown(target)[:200]}")
    if before.hostname != after.hostname and _inner(after.hostname) and not _inner(before.hostname):
        raise Refused(f"redirected to {shown(target)[:200]}, a host of this machine or network")
    return target


def _inner(host: str | None) -> bool:
    """Whether a host's address is of this machine or its own network."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False  # it cannot be reached either
    return any(not ipaddress.ip_address(str(i[4][0]).partition("%")[0]).is_global for i in found)


def _receive(
    response: httpx.Response, rules: Rules, write: Callable[[bytes], None], *, known: bool
) -> Got:
    status, headers = response.status_code, response.headers
    if status == 304 and known:
        return Got(False, "")
    if status in PASSING:
        raise Passing(f"the server answered {status} {response.reason_phrase}", _wait(headers))
    if status != 200:
        raise Refused(f"the server answered {status} {response.reason_phrase}")
    if headers.get("content-encoding", "identity") != "identity":
        raise Refused(f"it is sent with content-encoding {headers['content-encoding'][:40]!r}")
    stated = headers.get("content-length", "")
    length = int(stated) if stated.isdecimal() and len(stated) < 20 else None
    if length is not None and length > rules.max_bytes:
        raise Refused(f"it has {length} bytes, more than the {rules.max_bytes} allowed")
    count = 0
    for chunk in response.iter_raw():
        count += len(chunk)
        if count > rules.max_bytes:
            raise Refused(f"it has more than the {rules.max_bytes} bytes allowed, and no end yet")
        write(chunk)
    if length is not None and count != length:
        raise Passing(f"{count} bytes came of {length}")
    for name, header in (("if-none-match", "etag"), ("if-modified-since", "last-modified")):
        if headers.get(header):
            return Got(True, f"{name} {headers[header]}")
    return Got(True, "")


def _wait(headers: Mapping[str, str]) -> float:
    asked = headers.get("retry-after", "")
    return min(float(asked), MAX_WAIT) if asked.isdecimal() and len(asked) < 8 else 0.0
