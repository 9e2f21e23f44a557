"""Category: which concepts of a user's taxonomy a clip's caption names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from reelmill.curation.caption.taxonomy import Taxonomy
from reelmill.curation.stage import (
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    WeightsStore,
)


@dataclass(frozen=True, kw_only=True)
class Category(ClipStage):
    """The category of a taxonomy that a clip's caption names most, and all that it names.

    taxonomy: a YAML file (reelmill.curation.caption.taxonomy says how it is written); its contents,
    not its place, belong to the measurement. A word counts in any case and in the plural, and not
    after `no` or `without`. `Balance.by=category` then holds categories to their quotas, as the
    paper balances data for SFT.
    """

    needs: ClassVar = ("caption_short", "caption_long")
    adds: ClassVar = (
        Fact("category", "", "What the caption names most.", dtype=str),
        Fact("categories", "", "All that it names, with semicolons between.", dtype=str),
        Fact("category_words", "", "The words that told, of the first.", dtype=str),
    )
    paper: ClassVar = "section 3.4, SFT: entity and scene categories matched against captions"
    taxonomy: str = ""

    def measuring(self) -> dict[str, Any]:
        found = super().measuring()
        if self.taxonomy:
            found["taxonomy"] = Taxonomy.read(Path(self.taxonomy)).digest
        return found

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        known = Taxonomy.read(Path(self.taxonomy)) if self.taxonomy else None
        yield lambda clips: [self.judge(clip.facts, known) for clip in clips]

    def judge(self, facts: Facts, known: Taxonomy | None) -> Facts:
        """The facts, from a clip's captions."""
        told = [facts[name] for name in self.needs]
        texts = [text for text in told if isinstance(text, str)]
        why: NoValue | None = None
        if known is None:
            why = NotMeasured("no taxonomy is given")
        elif not texts:
            why = next(text for text in told if isinstance(text, NoValue))
        found = known.match("\n".join(texts)) if known is not None and why is None else {}
        if why is None and not found:
            why = NotApplicable("the caption names none")
        if why is not None:
            return {fact.name: why for fact in self.adds}
        first = next(iter(found))
        return {
            "category": first,
            "categories": ";".join(found),
            "category_words": ";".join(found[first]),
        }
