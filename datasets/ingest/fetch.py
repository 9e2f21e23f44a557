"""Fetching: every remote source ends as a file in the cache, or failed by name.

A file that is there is fetched again only when its server says that it changed, or cannot say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from reelmill.datasets.ingest.cache import Cache
from reelmill.datasets.ingest.http import get, new_client
from reelmill.datasets.ingest.outcome import Passing, Refused, persist
from reelmill.datasets.ingest.remote import HTTP, Remote, Rules, scheme_of
from reelmill.datasets.ingest.store import open_store, read_object
from reelmill.datasets.workspace import Workspace


@dataclass
class Fetched:
    """What became of remote files. lost: message by name. fresh: files that came now."""

    fresh: int = 0
    lost: dict[str, str] = field(default_factory=dict)


def fetch(
    remotes: Sequence[Remote],
    workspace: Workspace,
    rules: Rules,
    advance: Callable[[int], None] = lambda n: None,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Brings every remote file, with its caption, into the cache of the workspace.

    A file that cannot be had is in `lost`, whatever the reason; the others come nevertheless.
    Raises WorkspaceError when the disk refuses, SourceError for a store whose package is missing.
    """
    cache = Cache(workspace, rules.cache_bytes)
    wanted = [r for remote in remotes for r in (remote, remote.caption) if r is not None]
    cache.open([remote.key for remote in wanted])
    schemes = {scheme_of(remote.url) for remote in wanted}
    stores = {scheme: open_store(scheme, rules) for scheme in schemes - HTTP}
    found, named = Fetched(), {remote.key for remote in remotes}
    with new_client(rules) as client:
        fetcher = _Fetcher(cache, client, stores, rules, pause)
        pool = ThreadPoolExecutor(rules.at_once, thread_name_prefix="fetch")
        try:
            for remote, said in zip(wanted, pool.map(fetcher.bring, wanted), strict=True):
                if said:
                    found.lost[remote.name] = said
                advance(int(remote.key in named))
        finally:
            fetcher.stopped.set()
            pool.shutdown(cancel_futures=True)
            cache.save()
    found.fresh = fetcher.fresh
    return found


class _Fetcher:
    def __init__(
        self,
        cache: Cache,
        client: httpx.Client,
        stores: Mapping[str, Any],
        rules: Rules,
        pause: Callable[[float], None],
    ):
        self.cache, self.client, self.stores = cache, client, stores
        self.rules, self.pause = rules, pause
        self.stopped = threading.Event()
        self.fresh = 0
        self._count = 0
        self._lock = threading.Lock()

    def bring(self, remote: Remote) -> str:
        """Fetches one file, with patience; returns what was wrong in the end, or nothing."""
        try:
            persist(
                lambda: self._once(remote),
                attempts=self.rules.attempts,
                backoff=self.rules.backoff,
                pause=self.pause,
            )
        except Refused as error:
            return str(error)
        return ""

    def _once(self, remote: Remote) -> None:
        if self.stopped.is_set():
            raise Refused("the run was stopped")
        have = self.cache.file(remote.key) is not None
        tag = self.cache.records[remote.key].tag if have else ""
        if have and remote.known is not None and tag and tag == remote.known[1]:
            return
        with self._lock:
            self._count += 1
            number = self._count
        with self.cache.writing(number) as incoming:
            begin = time.monotonic()

            def write(data: bytes) -> None:
                incoming.write(data)
                spent = time.monotonic() - begin
                slow = spent > self.rules.patience and incoming.count < self.rules.min_rate * spent
                if slow:
                    raise Passing(f"too slow: {incoming.count} bytes in {spent:.0f} s")
                if self.stopped.is_set():
                    raise Refused("the run was stopped")

            scheme = scheme_of(remote.url)
            if scheme in HTTP:
                got = get(self.client, remote.url, self.rules, tag, write)
                fresh, tag = got.fresh, got.tag
            else:
                store = self.stores[scheme]
                found = read_object(store, remote, self.rules, write, self.pause, tag)
                fresh, tag = not tag or found != tag, found
            if fresh:
                incoming.keep(remote.key, remote.suffix, tag)
                with self._lock:
                    self.fresh += 1
