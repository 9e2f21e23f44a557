"""Rounds on paper: real plans and the real join, answered by raters whose mind is known.

Import as `from tests.evaluation.review.paper_round import ...`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tests.evaluation.raters import SIDES, chances

from reelmill.evaluation.review.ballot import Ballot
from reelmill.evaluation.review.close import join
from reelmill.evaluation.review.plan import Mode, Plan, Shares, Shown, plan
from reelmill.evaluation.review.round import Closed, Item, Key, Origin, Round, Seat, Secret
from reelmill.evaluation.taxonomy import dimensions
from reelmill.evaluation.vote import OVERALL

SCALES = tuple(d.name for d in dimensions())


@dataclass(frozen=True)
class Mind:
    """skill: 1 sees the true strengths, 0 none. side: log-odds that the left gains. strict: is
    taken off every score."""

    skill: float = 1.0
    ties: float = -0.5
    side: float = 0.0
    strict: float = 0.0


def name(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]


def clips(systems, prompts: int) -> list[Shown]:
    return [Shown(s, f"p{i}", 0) for s in systems for i in range(prompts)]


def on_paper(made: Plan) -> tuple[Round, Key]:
    """The round that the plan makes, without its media."""
    origins = {
        f"{name(c)}.mp4": Origin(
            system=c.system, prompt=c.prompt, seed=c.seed, damage=c.damage, level=c.level
        )
        for c in made.clips
    }
    secrets, seats = {}, []
    for rater, row in made.slots.items():
        items = []
        for i, slot in enumerate(row):
            rows = (OVERALL,) if slot.paired else SCALES
            media = tuple(f"{name(c)}.mp4" for c in slot.clips)
            item = Item(
                id=name(rater, i), media=media, gains=(1.0,) * len(media), prompt="p",
                language="", rows=rows,
            )  # fmt: skip
            items.append(item)
            secrets[item.id] = Secret(gold=slot.gold, repeat=slot.repeat)
        seats.append(Seat(rater=rater, token=name("token", rater), items=tuple(items)))
    round_ = Round(id=name("round"), title="t", made=0.0, sealed="", seats=tuple(seats))
    key = Key(
        round=round_.id, seed="s", systems=tuple(sorted({c.system for c in made.clips})),
        clips=origins, items=secrets, sources={}, failed={}, told_apart_by=(),
    )  # fmt: skip
    return round_, key


def answers(
    round_: Round, key: Key, truth: Mapping[str, float], minds: Mapping[str, Mind], seed: int
) -> dict[tuple[str, str], Ballot]:
    """Ballots of raters who see the strengths in `truth` as their minds let them."""
    rng = np.random.default_rng(seed)
    ballots = {}
    for seat in round_.seats:
        mind = minds[seat.rater]
        for at, item in enumerate(seat.items):
            seen = [key.clips[media] for media in item.media]
            worth = [truth[clip.system] - 4.0 * bool(clip.damage) for clip in seen]
            said: dict[str, str | int]
            if item.paired:
                p = chances(mind.skill * (worth[0] - worth[1]), mind.ties, mind.side)
                said = {OVERALL: SIDES[rng.choice(3, p=p)].value}
            else:
                felt = 3 + mind.skill * worth[0] - mind.strict + rng.normal(0, 0.7, len(item.rows))
                said = {
                    row: int(np.clip(np.rint(f), 1, 5))
                    for row, f in zip(item.rows, felt, strict=True)
                }
            ballots[seat.rater, item.id] = Ballot(
                round=round_.id, rater=seat.rater, item=item.id, answers=said, at=float(at),
                seconds=5.0, plays=1,
            )  # fmt: skip
    return ballots


def voted(
    truth: Mapping[str, float],
    minds: Mapping[str, Mind],
    seed: int,
    *,
    prompts: int = 30,
    mode: Mode = Mode.PAIRS,
    shares: Shares | None = None,
) -> Closed:
    """A closed round, planned, answered and joined."""
    made = plan(clips(truth, prompts), list(minds), seed, mode=mode, shares=shares)
    round_, key = on_paper(made)
    return join(round_, key, answers(round_, key, truth, minds, seed), at=0.0)
