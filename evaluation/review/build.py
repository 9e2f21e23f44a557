"""Makes a round: blind copies, plan, sealed key, one page per rater."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelmill.datasets.workspace import commit_bytes, writing
from reelmill.errors import MediaError, SourceError, UsageError
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.clips import ClipEntry, digest, find_clips
from reelmill.evaluation.review.blind import (
    Copy,
    Looks,
    Size,
    canvas,
    damageable,
    even_out,
    look,
    write_copy,
)
from reelmill.evaluation.review.page import render_page
from reelmill.evaluation.review.plan import Mode, Plan, Shares, Shown, Slot, plan
from reelmill.evaluation.review.round import (
    RATER,
    Item,
    Key,
    Origin,
    Round,
    RoundFolder,
    Seat,
    Secret,
    pair_rows,
    rows_of,
)

AT_ONCE = 2  # clips being damaged: each is in memory whole
OWN = {"pages", "key.json", "round.json"}
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Built:
    """clips: copies made. failed: clips that could not be used, and why."""

    folder: RoundFolder
    round: Round
    clips: int
    failed: Mapping[str, str]
    told_apart_by: tuple[str, ...]

    def link(self, rater: str) -> Path:
        """The page to open without a server."""
        return self.folder.pages / f"{rater}.html"


def build_round(
    sources: Sequence[Path],
    out: Path,
    raters: Sequence[str],
    *,
    bench: Bench,
    mode: Mode = Mode.PAIRS,
    shares: Shares | None = None,
    title: str = "Review",
    seed: int | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Built:
    """Builds a round from folders or manifests of clips (as `evaluate clips` reads them).

    seed: of order, sides and file names; drawn at random by default, so that nobody can work back
    from them. A clip that cannot be read is left out and told of; its neighbours stay.
    Raises SourceError and UsageError for clips and raters that make no round, WorkspaceError when
    the disk refuses.
    """
    entries, failed = _entries(sources)
    _words(title, raters, {entry.model for entry in entries})
    folder = _empty(out)
    secret = secrets.token_hex(16) if seed is None else f"seed {seed}"
    looks = _look(entries, mode, failed)
    studio = _Studio(folder, looks, secret, workers)
    studio.copy(list(looks), failed, progress)
    alive = [clip for clip in looks if clip in studio.copies]
    made = plan(
        alive,
        raters,
        int(hashlib.sha256(secret.encode()).hexdigest(), 16),
        mode=mode,
        shares=shares,
        with_sound=[c for c in alive if not studio.copies[c].silent],
        damageable=[c for c in alive if damageable(looks[c], studio.sizes[c.prompt, c.seed])],
    )
    studio.copy([c for c in made.clips if c.damage], failed, progress)
    made = _without(made, {c for c in made.clips if c not in studio.copies})
    studio.finish(made)
    round_id = studio.name("round")
    items, hidden = _items(made, studio, bench)
    apart = _told_apart(looks, made)
    key = Key(
        round=round_id,
        seed=secret,
        systems=tuple(sorted({clip.system for clip in made.clips})),
        clips={studio.file(clip).name: Origin(**_fields(clip)) for clip in made.clips},
        items=hidden,
        sources={studio.file(c).name: digest(looks[c].path) for c in made.clips if not c.damage},
        failed=failed,
        told_apart_by=apart,
    )
    round_ = Round(
        id=round_id,
        title=title,
        made=time.time(),
        sealed=folder.seal(key),
        seats=tuple(
            Seat(rater=rater, token=studio.name(f"link {rater}"), items=tuple(row))
            for rater, row in items.items()
        ),
    )
    for seat in round_.seats:
        commit_bytes(folder.pages / f"{seat.rater}.html", render_page(round_, seat).encode())
    folder.write("round.json", round_)
    return Built(folder, round_, len(made.clips), failed, apart)


def _entries(sources: Sequence[Path]) -> tuple[list[ClipEntry], dict[str, str]]:
    found: dict[tuple[str, str, int], ClipEntry] = {}
    failed: dict[str, str] = {}
    for source in sources:
        for entry in find_clips(source):
            place = (entry.model, entry.prompt, entry.seed)
            if not entry.prompt:
                failed[entry.path] = "its name is not <prompt>_<seed>"
            elif place in found and found[place].path != entry.path:
                raise SourceError(
                    f"{found[place].path} and {entry.path} are both model {entry.model!r}, prompt "
                    f"{entry.prompt!r}, seed {entry.seed}. Give the folders different names."
                )
            else:
                found[place] = entry
    if not found:
        raise SourceError(
            "no clip is named <prompt>_<seed>.mp4, so none can be shown with its prompt."
        )
    return [found[place] for place in sorted(found)], failed


def _words(title: str, raters: Sequence[str], systems: set[str]) -> None:
    strange = [name for name in raters if not re.fullmatch(RATER, name)]
    if strange:
        raise UsageError(
            f"rater {strange[0][:60]!r}: a name has 1 to 40 letters, digits, dots, lines, and "
            "begins with a letter or digit. It names a page and a file."
        )
    told = [name for name in sorted(systems) if len(name) > 2 and name.lower() in title.lower()]
    if told or not title.strip() or len(title) > 200:
        raise UsageError(
            f"--title {title[:80]!r} "
            + (f"names {told[0]!r}, and raters read it." if told else "has 1 to 200 characters.")
        )


def _empty(out: Path) -> RoundFolder:
    """The folder, with what an interrupted build left taken away."""
    folder = RoundFolder(out)
    if (out / "round.json").exists():
        raise UsageError(f"{out} holds a round already. Choose another --out, or take it away.")
    if out.exists():
        if not out.is_dir():
            raise UsageError(f"{out} is a file; --out names a folder.")
        strange = sorted(p.name for p in out.iterdir() if _own(p.name) not in OWN)
        if strange:
            raise UsageError(f"{out} holds {strange[0]!r}: --out names a new folder.")
        shutil.rmtree(folder.pages, ignore_errors=True)
    with writing(out):
        folder.media.mkdir(parents=True, exist_ok=True)
    return folder


def _own(name: str) -> str:
    """The name that a file left half written was to have."""
    return name[1:].split(".tmp-")[0] if name.startswith(".") else name


def _look(entries: Sequence[ClipEntry], mode: Mode, failed: dict[str, str]) -> dict[Shown, Looks]:
    looks: dict[Shown, Looks] = {}
    for entry in entries:
        try:
            looks[Shown(entry.model, entry.prompt, entry.seed)] = look(Path(entry.path))
        except MediaError as error:
            failed[entry.path] = str(error)
    if mode is Mode.PAIRS:
        seen: dict[tuple[str, int], int] = defaultdict(int)
        for clip in looks:
            seen[clip.prompt, clip.seed] += 1
        for clip in [c for c in looks if seen[c.prompt, c.seed] < 2]:
            failed[str(looks.pop(clip).path)] = "no other system has a clip of its prompt and seed"
    if not looks:
        raise SourceError(
            f"none of {len(entries)} clips can be shown: "
            + "; ".join(f"{path}: {why}" for path, why in list(failed.items())[:3])
        )
    return looks


class _Studio:
    """Makes the copies, under names that a keyed hash gives."""

    def __init__(
        self, folder: RoundFolder, looks: Mapping[Shown, Looks], secret: str, workers: int
    ):
        self.folder, self.looks, self.workers = folder, looks, workers
        self._secret = secret.encode()
        self.copies: dict[Shown, Copy] = {}
        sizes: dict[tuple[str, int], list[Size]] = defaultdict(list)
        for clip, seen in looks.items():
            sizes[clip.prompt, clip.seed].append(seen.size)
        self.sizes = {place: canvas(found) for place, found in sizes.items()}

    def name(self, what: str) -> str:
        return hmac.new(self._secret, what.encode(), hashlib.sha256).hexdigest()[:32]

    def file(self, clip: Shown) -> Path:
        what = "\0".join(map(str, ("clip", *_fields(clip).values())))
        return self.folder.media / f"{self.name(what)}.mp4"

    def copy(self, clips: Sequence[Shown], failed: dict[str, str], progress: Progress) -> None:
        """Makes copies in the order of their names: the order of the disk tells nothing."""

        def one(clip: Shown) -> Copy | MediaError:
            source = self.looks[clip.whole]
            size = self.sizes[clip.prompt, clip.seed]
            try:
                return write_copy(source, size, self.file(clip), clip.damage, clip.level)
            except MediaError as error:
                return error

        row = sorted(clips, key=self.file)
        threads = min(self.workers, AT_ONCE) if any(c.damage for c in row) else self.workers
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for done, (clip, made) in enumerate(zip(row, pool.map(one, row), strict=True), 1):
                if isinstance(made, MediaError):
                    failed[str(self.looks[clip.whole].path)] = str(made)
                else:
                    self.copies[clip] = made
                progress(done, len(row))

    def finish(self, made: Plan) -> None:
        """Takes away what nobody is shown, and makes the files one size."""
        wanted = {self.file(clip) for clip in made.clips}
        for file in self.folder.media.iterdir():
            if file not in wanted:
                file.unlink()
        even_out(sorted(wanted))


def _without(made: Plan, lost: set[Shown]) -> Plan:
    if not lost:
        return made
    return Plan(
        {r: tuple(s for s in row if not lost & set(s.clips)) for r, row in made.slots.items()}
    )


def _fields(clip: Shown) -> dict[str, Any]:
    return {
        "system": clip.system,
        "prompt": clip.prompt,
        "seed": clip.seed,
        "damage": clip.damage,
        "level": clip.level,
    }


def _items(
    made: Plan, studio: _Studio, bench: Bench
) -> tuple[dict[str, list[Item]], dict[str, Secret]]:
    items: dict[str, list[Item]] = {}
    hidden: dict[str, Secret] = {}
    for rater, row in made.slots.items():
        items[rater] = []
        for number, slot in enumerate(row):
            item = _item(studio.name(f"item {rater} {number}"), slot, studio, bench)
            items[rater].append(item)
            hidden[item.id] = Secret(gold=slot.gold, repeat=slot.repeat)
    return items, hidden


def _item(name: str, slot: Slot, studio: _Studio, bench: Bench) -> Item:
    copies = [studio.copies[clip] for clip in slot.clips]
    sound = not all(copy.silent for copy in copies)
    asked = bench.get(slot.clips[0].prompt)
    loud = [copy.loudness for copy in copies if copy.loudness is not None]
    gains = [1.0] * len(copies)
    if len(loud) == len(copies):
        gains = [round(10 ** ((min(loud) - level) / 20), 4) for level in loud]
    return Item(
        id=name,
        media=tuple(studio.file(clip).name for clip in slot.clips),
        gains=tuple(gains),
        prompt=asked.text if asked else slot.clips[0].prompt,
        language=asked.language if asked else "",
        rows=pair_rows(sound) if slot.paired else rows_of(sound),
    )


def _told_apart(looks: Mapping[Shown, Looks], made: Plan) -> tuple[str, ...]:
    """What of the clips cannot be hidden and differs between systems, in words."""
    whole = [clip for clip in made.clips if not clip.damage]
    traits: dict[str, Callable[[Looks], str]] = {
        "frame rate": lambda seen: f"{float(seen.rate):.4g} fps",
        "length": lambda seen: f"{seen.info.seconds or 0:.1f} s",
        "sound": lambda seen: "with sound" if seen.info.audio else "without sound",
        "shape": lambda seen: f"{seen.size[0] / seen.size[1]:.2f}:1",
    }
    told = []
    for name, trait in traits.items():
        by_system: dict[str, set[str]] = defaultdict(set)
        for clip in whole:
            by_system[clip.system].add(trait(looks[clip]))
        if len({frozenset(values) for values in by_system.values()}) > 1:
            shown = "; ".join(
                f"{system}: {', '.join(sorted(values)[:4])}"
                for system, values in sorted(by_system.items())
            )
            told.append(f"{name} ({shown})")
    return tuple(told)
