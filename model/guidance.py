"""Classifier-free guidance for two modalities, as small frozen settings.

    v = c + (s_text - 1) (c - n) + (s_mod - 1) (c - i) + (s_ref - 1) (n - o)

c: with everything; n: without the prompt; i: with the towers kept apart (LTX-2); o: with neither
prompt nor references (SkyReels-V3: o + s_ref (n - o) + s_text (c - n), which is the same). A scale
of 1 is off and costs no forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Branch(NamedTuple):
    """One forward pass of a step: with or without the prompt, the other tower, references."""

    text: bool
    av: bool
    refs: bool = True


FULL, NO_TEXT, APART = Branch(True, True), Branch(False, True), Branch(True, False)
NOTHING = Branch(False, True, False)


@dataclass(frozen=True)
class TextCFG:
    """Scales against the pass without the prompt. Ovi uses 4 and 3, LTX-2 3 and 7."""

    video: float = 1.0
    audio: float = 1.0


@dataclass(frozen=True)
class ModalityCFG:
    """Scales against the pass whose towers do not see each other. LTX-2 uses 3 and 3."""

    video: float = 1.0
    audio: float = 1.0


@dataclass(frozen=True)
class ReferenceCFG:
    """Scales of references, against the pass that has neither them nor the prompt. SkyReels-V3
    uses 5 beside a text scale of 7.5."""

    video: float = 1.0
    audio: float = 1.0


@dataclass(frozen=True)
class Rescale:
    """Share (0 to 1) of the way back to the unguided standard deviation; LTX-2 uses .7."""

    video: float = 0.0
    audio: float = 0.0


@dataclass(frozen=True)
class Guider:
    """How a step's forward passes are combined. The default is no guidance."""

    text: TextCFG = TextCFG()
    modality: ModalityCFG = ModalityCFG()
    rescale: Rescale = Rescale()
    reference: ReferenceCFG = ReferenceCFG()

    def plan(
        self, names: tuple[str, ...] = ("video", "audio"), references: bool = False
    ) -> tuple[Branch, ...]:
        """The distinct forward passes of a step. names: the modalities that are generated.
        references: whether there are any."""
        branches = [FULL]
        apart = references and any(getattr(self.reference, name) != 1 for name in names)
        if apart or any(getattr(self.text, name) != 1 for name in names):
            branches.append(NO_TEXT)
        if apart:
            branches.append(NOTHING)
        if any(getattr(self.modality, name) != 1 for name in names):
            branches.append(APART)
        return tuple(branches)

    def combine(self, name: str, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """The guided velocity of one modality, `video` or `audio`, from those of `plan`."""
        full = guided = velocities[FULL]
        for branch, setting in ((NO_TEXT, self.text), (APART, self.modality)):
            if branch in velocities and getattr(setting, name) != 1:
                guided = guided + (getattr(setting, name) - 1) * (full - velocities[branch])
        scale = getattr(self.reference, name)
        if NOTHING in velocities and scale != 1:
            guided = guided + (scale - 1) * (velocities[NO_TEXT] - velocities[NOTHING])
        share = getattr(self.rescale, name)
        if share and guided is not full:
            axes = tuple(range(1, full.ndim))
            spread = guided.std(axes, keepdim=True).clamp_min(torch.finfo(full.dtype).tiny)
            ratio = full.std(axes, keepdim=True) / spread
            guided = guided * (share * ratio + 1 - share)
        return guided

    def to_json(self) -> dict[str, dict[str, float]]:
        return asdict(self)


NO_GUIDANCE = Guider()
