"""Closing a round: the seal is broken, votes get their names, and no more are taken."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping

from reelmill.errors import UsageError
from reelmill.evaluation.review.ballot import Ballot, VoteLog, answered
from reelmill.evaluation.review.round import Closed, Item, Key, Round, RoundFolder
from reelmill.evaluation.vote import Choice, PairVote, ScaleVote


def close_round(folder: RoundFolder, *, early: bool = False) -> Closed:
    """Joins votes and names, and writes closed.json. A closed round is read, not closed again.

    early: also where not everybody has answered everything; what is missing stays missing.
    Raises UsageError while votes are missing, DatasetError for a key or log that is damaged.
    """
    if folder.closed:
        return folder.closing()
    round_ = folder.round()
    log = VoteLog(folder.votes, round_)
    with log.held():
        ballots = log.last()
        _complete(round_, ballots, early)
        closed = join(round_, folder.key(round_), ballots, at=time.time())
        names = ("round.json", "key.json", "votes.jsonl")
        digests = {name: folder.digest(name) for name in names}
        closed = closed.model_copy(update={"digests": digests})
        folder.write("closed.json", closed)
    return closed


def _complete(round_: Round, ballots: Mapping[tuple[str, str], Ballot], early: bool) -> None:
    if not ballots:
        raise UsageError("nobody has voted: there is nothing to close.")
    missing = {s.rater: len(s.items) - answered(ballots, s) for s in round_.seats}
    told = ", ".join(f"{rater} {n}" for rater, n in missing.items() if n)
    if told and not early:
        raise UsageError(
            f"votes are missing ({told}). Wait for them, add exported files, or close --early."
        )


def join(
    round_: Round, key: Key, ballots: Mapping[tuple[str, str], Ballot], *, at: float
) -> Closed:
    """Votes with names, from ballots and key. Pure: what is simulated goes the same way."""
    pairs: list[PairVote] = []
    scales: dict[str, list[ScaleVote]] = {"plain": [], "gold": [], "again": []}
    unseen: Counter[str] = Counter()
    flags: dict[str, Counter[str]] = defaultdict(Counter)
    notes: list[tuple[str, str, str]] = []
    for seat in round_.seats:
        for item in seat.items:
            ballot = ballots.get((seat.rater, item.id))
            if ballot is None:
                continue
            unseen[seat.rater] += ballot.plays == 0
            if item.paired:
                pairs.append(_pair(item, ballot, key))
            else:
                name = "again" if key.items[item.id].repeat else "plain"
                damaged = key.clips[item.media[0]].damage
                scales["gold" if damaged else name].append(_scale(item, ballot, key))
                flags[key.clips[item.media[0]].system].update(() if damaged else ballot.marks)
            if ballot.note.strip():
                shown = " / ".join(_told(key, name) for name in item.media)
                notes.append((seat.rater, shown, ballot.note.strip()))
    return Closed(
        round=round_.id,
        title=round_.title,
        at=at,
        digests={},
        asked=sum(len(seat.items) for seat in round_.seats),
        systems=key.systems,
        told_apart_by=key.told_apart_by,
        pairs=tuple(pairs),
        scales=tuple(scales["plain"]),
        gold_scales=tuple(scales["gold"]),
        again_scales=tuple(scales["again"]),
        unseen=dict(unseen),
        flags={system: dict(found) for system, found in flags.items() if found},
        notes=tuple(notes),
    )


def _told(key: Key, media: str) -> str:
    clip = key.clips[media]
    return f"{clip.system} {clip.prompt}_{clip.seed}" + (f" ({clip.damage})" if clip.damage else "")


def _pair(item: Item, ballot: Ballot, key: Key) -> PairVote:
    left, right = (key.clips[name] for name in item.media)
    return PairVote(
        rater=ballot.rater,
        prompt=left.prompt,
        seed=left.seed,
        at=ballot.at,
        seconds=ballot.seconds,
        left=left.system,
        right=right.system,
        choices={row: Choice(str(answer)) for row, answer in ballot.answers.items()},
        gold=key.items[item.id].gold,
    )


def _scale(item: Item, ballot: Ballot, key: Key) -> ScaleVote:
    clip = key.clips[item.media[0]]
    return ScaleVote(
        rater=ballot.rater,
        prompt=clip.prompt,
        seed=clip.seed,
        at=ballot.at,
        seconds=ballot.seconds,
        system=clip.system,
        scores={row: int(answer) for row, answer in ballot.answers.items()},
    )
