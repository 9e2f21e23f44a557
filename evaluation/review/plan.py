"""Who sees what, in which order, on which side: the plan of a round, pure and seeded.

Every pair of systems on every prompt and seed is seen by several raters. Some pairs come a second
time with their sides changed (does a rater agree with himself?), and some are gold: a clip against
its damaged self, where the right answer is known.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from random import Random

from reelmill.errors import UsageError
from reelmill.evaluation.damage import Damage
from reelmill.evaluation.vote import Choice

EACH = 3
REPEATS = 0.05
GOLD = 0.05
LEAST_GOLD = 12  # per rater, in rounds with that many pairs: fewer could flag nobody
LEAST_REPEATS = 5
APART = 5  # items between a pair and its repeat, where the round is long enough
MAX_ITEMS = 5_000  # per rater
# What an attentive rater cannot miss; seen damage goes for every clip, heard only where sound is.
SEEN = (
    (Damage.BLUR, 5),
    (Damage.PICTURE_NOISE, 5),
    (Damage.FLICKER, 5),
    (Damage.WRONG_CUT, 4),
    (Damage.OVEREXPOSURE, 5),
)
HEARD = ((Damage.DROPOUTS, 5), (Damage.SOUND_NOISE, 5), (Damage.CLIPPING, 5))


class Mode(StrEnum):
    PAIRS = "pairs"
    SCALES = "scales"
    BOTH = "both"


@dataclass(frozen=True, order=True)
class Shown:
    """A clip as a rater sees it: whole, or damaged for a gold question."""

    system: str
    prompt: str
    seed: int
    damage: str = ""
    level: int = 0

    @property
    def whole(self) -> Shown:
        return Shown(self.system, self.prompt, self.seed)


@dataclass(frozen=True)
class Slot:
    """One question. clips: left and right, or the one clip to be scored.

    gold: the side of the undamaged clip. repeat: asked before, with the sides as they are not now.
    """

    clips: tuple[Shown, ...]
    gold: Choice | None = None
    repeat: bool = False

    @property
    def paired(self) -> bool:
        return len(self.clips) == 2


@dataclass(frozen=True)
class Plan:
    """slots: by rater, in the order of asking."""

    slots: Mapping[str, tuple[Slot, ...]]

    @property
    def clips(self) -> tuple[Shown, ...]:
        """All clips that somebody sees, each once, sorted."""
        return tuple(sorted({c for row in self.slots.values() for slot in row for c in slot.clips}))


@dataclass(frozen=True)
class Shares:
    """each: raters per question. repeats, gold: share of a rater's questions that come again, or
    whose answer is known; 0 for none."""

    each: int = EACH
    repeats: float = REPEATS
    gold: float = GOLD


def plan(
    clips: Iterable[Shown],
    raters: Sequence[str],
    seed: int,
    *,
    mode: Mode = Mode.PAIRS,
    shares: Shares | None = None,
    with_sound: Collection[Shown] = (),
    damageable: Collection[Shown] | None = None,
) -> Plan:
    """The round's plan; the same arguments give the same plan.

    clips: one per system, prompt and seed. with_sound: those whose sound can be damaged.
    damageable: those that may serve as gold, all by default.
    Raises UsageError when nothing can be compared, or more raters are asked for than there are.
    """
    shares = shares or Shares()
    clips = sorted(set(clips))
    _check(raters, shares)
    dice = Random(f"reelmill review plan {seed}")
    golds = _golds(clips, damageable, frozenset(with_sound), dice)
    slots: dict[str, list[Slot]] = {rater: [] for rater in raters}
    if mode in (Mode.PAIRS, Mode.BOTH):
        units = _pairs(clips)
        for rater, dealt in _deal(units, raters, shares.each, dice).items():
            main = [Slot(_turned(pair, dice)) for pair in dealt]
            wanted = golds[: _many(shares.gold, main, LEAST_GOLD)]
            known = _gold_pairs(wanted, dice)
            slots[rater] += _mixed(main, known, shares, dice)
    if mode in (Mode.SCALES, Mode.BOTH):
        single = [(clip,) for clip in clips]
        for rater, dealt in _deal(single, raters, shares.each, dice).items():
            main = [Slot(unit) for unit in dealt]
            # A damaged clip tells something only beside its whole self, which the rater must see.
            own = {slot.clips[0] for slot in main}
            able = [g for g in golds if g.whole in own]
            known = [Slot((g,)) for g in able[: _many(shares.gold, main, LEAST_GOLD)]]
            slots[rater] += _mixed(main, known, shares, dice)
    most = max(map(len, slots.values()))
    if most > MAX_ITEMS:
        raise UsageError(
            f"a rater would be asked {most} times, at most {MAX_ITEMS} are possible. Name more "
            "raters, fewer votes for each pair, or fewer prompts."
        )
    return Plan({rater: tuple(row) for rater, row in slots.items()})


def _check(raters: Sequence[str], shares: Shares) -> None:
    if not raters:
        raise UsageError("a round needs at least one rater.")
    twice = [name for name, n in Counter(name.casefold() for name in raters).items() if n > 1]
    if twice:
        raise UsageError(f"rater {twice[0]!r} is named twice.")
    if not 1 <= shares.each <= len(raters):
        raise UsageError(
            f"{shares.each} votes for each question need as many raters, and there are "
            f"{len(raters)}."
        )
    for name, share in (("repeats", shares.repeats), ("gold", shares.gold)):
        if not 0 <= share <= 1:
            raise UsageError(f"{name}: a share from 0 to 1, not {share}.")


def _pairs(clips: Sequence[Shown]) -> list[tuple[Shown, ...]]:
    by_prompt: dict[tuple[str, int], list[Shown]] = defaultdict(list)
    for clip in clips:
        by_prompt[clip.prompt, clip.seed].append(clip)
    pairs: list[tuple[Shown, ...]] = [
        pair for group in by_prompt.values() for pair in combinations(group, 2)
    ]
    if not pairs:
        raise UsageError(
            "no two systems have a clip of the same prompt and seed, so there is no pair to show. "
            "Name files <prompt>_<seed>.mp4, alike for all systems."
        )
    return pairs


def _deal(
    units: Sequence[tuple[Shown, ...]], raters: Sequence[str], each: int, dice: Random
) -> dict[str, list[tuple[Shown, ...]]]:
    """Units to raters, so that each has as many of every pair of systems as the others have."""
    dealt: dict[str, list[tuple[Shown, ...]]] = {rater: [] for rater in raters}
    load: Counter[str] = Counter()
    held: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for unit in dice.sample(units, len(units)):
        systems = tuple(clip.system for clip in unit)
        order = {rater: dice.random() for rater in raters}
        keen = sorted(raters, key=lambda r: (load[r], held[r, systems], order[r]))
        for rater in keen[:each]:
            dealt[rater].append(unit)
            load[rater] += 1
            held[rater, systems] += 1
    return {rater: dice.sample(row, len(row)) for rater, row in dealt.items()}


def _turned(pair: tuple[Shown, ...], dice: Random) -> tuple[Shown, ...]:
    return pair if dice.random() < 0.5 else pair[::-1]


def _many(share: float, main: Sequence[Slot], least: int) -> int:
    return math.ceil(max(share * len(main), min(least, len(main)))) if share and main else 0


def _golds(
    clips: Sequence[Shown],
    damageable: Collection[Shown] | None,
    with_sound: Collection[Shown],
    dice: Random,
) -> list[Shown]:
    """Every clip once, damaged in turn in all ways that can be seen or heard, systems mixed."""
    able = [c for c in clips if damageable is None or c in damageable]
    made = []
    for i, clip in enumerate(dice.sample(able, len(able))):
        ways = SEEN + HEARD if clip in with_sound else SEEN
        damage, level = ways[i % len(ways)]
        made.append(Shown(clip.system, clip.prompt, clip.seed, damage.value, level))
    return made


def _gold_pairs(golds: Sequence[Shown], dice: Random) -> list[Slot]:
    """The whole clip is on the left in half of them, so that who always says left misses half."""
    first = dice.randint(0, 1)
    sides = dice.sample([(first + i) % 2 for i in range(len(golds))], len(golds))
    return [
        Slot((gold.whole, gold), gold=Choice.LEFT)
        if left
        else Slot((gold, gold.whole), gold=Choice.RIGHT)
        for gold, left in zip(golds, sides, strict=True)
    ]


def _mixed(main: Sequence[Slot], known: Sequence[Slot], shares: Shares, dice: Random) -> list[Slot]:
    """Gold anywhere among the others; repeats of early questions among the late ones."""
    row = list(main)
    for slot in known:
        row.insert(dice.randint(0, len(row)), slot)
    wanted = _many(shares.repeats, main, LEAST_REPEATS)
    plain = [i for i, slot in enumerate(row) if slot.gold is None and not slot.clips[0].damage]
    again = sorted(dice.sample(plain, min(wanted, len(plain))), reverse=True)
    for i in again:
        first = min(i + 1 + APART, len(row))
        row.insert(dice.randint(first, len(row)), Slot(row[i].clips[::-1], repeat=True))
    return row
