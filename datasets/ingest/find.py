"""From what a user names to files: local ones, remote ones, and the columns that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from reelmill.datasets.ingest.cache import Cache
from reelmill.datasets.ingest.fetch import fetch
from reelmill.datasets.ingest.remote import HTTP, Remote, Rules, check_location, scheme_of, shown
from reelmill.datasets.ingest.store import list_store
from reelmill.datasets.ingest.table import Row, Value, is_manifest, read_rows, rows_text
from reelmill.datasets.manifest import Manifest, Unreadable, build_manifest, find_files
from reelmill.datasets.sample import Asset
from reelmill.datasets.workspace import Workspace

UNFETCHED = "it was not fetched yet"
ALTERED = "its fetched copy was altered on this machine; the next run fetches it again"


@dataclass
class Found:
    """What sources name. files: local, sorted. columns: rows of manifests by path or name.

    lost: what could not be fetched by this run, by name.
    """

    files: list[Path]
    remotes: list[Remote]
    rules: Rules
    columns: dict[str, list[Mapping[str, Value]]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def fetch(self, workspace: Workspace, advance: Callable[[int], None]) -> int:
        """Fetches what is remote into the workspace. Returns how many files came anew."""
        made = fetch(self.remotes, workspace, self.rules, advance)
        self.lost = made.lost
        return made.fresh

    def manifest(
        self,
        workspace: Workspace,
        advance: Callable[[int], None] = lambda n: None,
        *,
        save: bool = True,
    ) -> Manifest:
        """Hashes all files, local and fetched, and groups them into assets with their columns.

        A remote file that is not there is unreadable, under its name.
        """
        if not self.remotes and not self.columns:
            return build_manifest(self.files, workspace, advance, save=save)
        cache = Cache(workspace, self.rules.cache_bytes)
        there: dict[str, list[Remote]] = {}
        unreadable: list[Unreadable] = []
        for remote in self.remotes:
            file = None if remote.name in self.lost else cache.file(remote.key)
            caption = remote.caption
            if file is not None and caption is not None and caption.name in self.lost:
                said = f"its caption {caption.name}: {self.lost[caption.name]}"
            else:
                said = self.lost.get(remote.name, UNFETCHED)
            if file is None or (caption is not None and caption.name in self.lost):
                size = remote.known[0] if remote.known else 0
                unreadable.append(Unreadable(remote.name, size, said))
            else:
                there.setdefault(str(file), []).append(remote)
        plain = build_manifest(
            [*self.files, *(Path(p) for p in sorted(there))], workspace, advance, save=save
        )
        assets = []
        for asset in plain.assets:
            altered = [p for p in asset.paths if p in there and asset.sha256 not in Path(p).name]
            for path in altered:
                unreadable += [Unreadable(r.name, asset.bytes, ALTERED) for r in there[path]]
                if save:
                    Path(path).unlink(missing_ok=True)
            paths = tuple(path for path in asset.paths if path not in altered)
            if paths:
                assets.append(self._named(replace(asset, paths=paths), there, cache))
        unreadable += [
            Unreadable(remote.name, u.bytes, u.error)
            for u in plain.unreadable
            for remote in there.get(u.path, [Remote(u.path, u.path)])
        ]
        return Manifest(tuple(assets), tuple(sorted(unreadable, key=lambda u: u.path)))

    def _named(self, asset: Asset, there: Mapping[str, list[Remote]], cache: Cache) -> Asset:
        """An asset under the names that its files have for people."""
        local = [path for path in asset.paths if path not in there]
        remotes = sorted(r for path in asset.paths for r in there.get(path, ()))
        names = tuple(sorted([*local, *(remote.name for remote in remotes)]))
        rows = [row for name in names for row in self.columns.get(name, ())]
        captions = (remote.caption for remote in remotes if remote.caption is not None)
        caption = None if local else next((cache.file(c.key) for c in captions), None)
        return replace(
            asset,
            paths=names,
            local=asset.path if names != asset.paths else "",
            caption=str(caption) if caption is not None else "",
            columns=rows_text(rows),
        )


def find_sources(sources: Sequence[str], *, skip: Path | None, rules: Rules) -> Found:
    """Everything that the sources name: folders, files, patterns, manifests, locations.

    Locations of stores are listed now; nothing is fetched. Raises SourceError.
    """
    local: list[str] = []
    files: set[Path] = set()
    remotes: dict[str, Remote] = {}
    columns: dict[str, list[Mapping[str, Value]]] = {}

    def add(location: str) -> list[str]:
        listed = [Remote(shown(location), location)]
        if scheme_of(location) not in HTTP:
            listed = list_store(location, rules)
        for remote in with_captions(listed):
            remotes.setdefault(remote.url, remote)
        return [remote.name for remote in listed]

    def take(row: Row) -> None:
        if scheme_of(row.place):
            # A row names one file, and does not list: a store is asked when it is fetched.
            names = [shown(row.place)]
            remotes.setdefault(row.place, Remote(names[0], row.place))
        else:
            names = [row.place]
            files.add(Path(row.place))
        for name in names:
            columns.setdefault(name, []).append(row.columns)

    for source in sources:
        if scheme_of(source):
            check_location(source, rules, "source")
            add(source)
        elif is_manifest(Path(source)) and Path(source).is_file():
            for row in read_rows(Path(source), rules):
                take(row)
        else:
            local.append(source)
    if local:
        files.update(find_files(local, skip=skip))
    in_order = sorted(files, key=lambda file: file.parts)  # as paths compare, but quicker
    return Found(in_order, sorted(remotes.values()), rules, columns)


def with_captions(listed: Sequence[Remote]) -> list[Remote]:
    """Remote files with their captions: `clip.txt` beside `clip.mp4`, which is no source itself."""
    by_url = {remote.url: remote for remote in listed}
    found, used = [], set()
    for remote in listed:
        beside = str(PurePosixPath(remote.url).with_suffix(".txt")).replace(":/", "://", 1)
        if remote.suffix != ".txt" and remote.suffix and beside in by_url:
            used.add(beside)
            remote = replace(remote, caption=by_url[beside])
        found.append(remote)
    return [remote for remote in found if remote.url not in used]
