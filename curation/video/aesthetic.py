"""How pleasing a picture is, as people rated others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from reelmill.curation.stage import (
    VISUAL,
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NotMeasured,
    NoValue,
    Resources,
    WeightsStore,
    at_least,
)
from reelmill.curation.video.embedding import unpacked

if TYPE_CHECKING:
    from reelmill.curation.models.aesthetic import AestheticHead

NAME = "aesthetic"


@dataclass(frozen=True, kw_only=True)
class Aesthetic(ClipStage):
    """LAION's aesthetic score, 1 to 10, of CLIP's embedding of a clip: no media are read.

    head: `mlp` (sac+logos+ava1, CLIP ViT-L/14) or `linear` (ViT-B/32 and ViT-L/14). What SigLIP and
    DINOv2 say cannot be scored, nor can a clip without an embedding. Off by default: Open-Sora
    keeps 5 and above, cosmos-curate 3.5.
    """

    kinds: ClassVar = VISUAL
    needs: ClassVar = ("embedding", "embedding_model")
    adds: ClassVar = (Fact(NAME, "", "LAION's aesthetic score.", 1, 10),)
    paper: ClassVar = "section 3.4, basic quality: aesthetics"
    resources: ClassVar = Resources(memory_gb=1.0, weights=("aesthetic",))
    head: str = "mlp"
    min_aesthetic: Bound = at_least(None, NAME, "unaesthetic")

    def __post_init__(self) -> None:
        if self.head not in ("mlp", "linear"):
            raise ValueError("head is mlp or linear")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("aesthetic")
        heads: dict[int, AestheticHead] = {}
        yield lambda clips: [self._judge(clip.facts, folder, heads) for clip in clips]

    def _judge(self, facts: Facts, folder: Path | None, heads: dict[int, AestheticHead]) -> Facts:
        vector, model = (facts[name] for name in self.needs)
        if isinstance(vector, NoValue):
            return {NAME: vector}
        if folder is None:
            return {NAME: NotMeasured("weights 'aesthetic' absent")}
        from reelmill.curation.models.aesthetic import FILES, AestheticHead  # loads torch

        family, _, width = str(model).partition(" ")
        if family != "clip" or (self.head, int(width)) not in FILES:
            return {NAME: NotApplicable(f"no {self.head} head for vectors of {model}")}
        if int(width) not in heads:
            heads[int(width)] = AestheticHead(folder, self.head, int(width))
        return {NAME: heads[int(width)](unpacked(str(vector)))}
