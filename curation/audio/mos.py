"""MOS: how good speech would sound to listeners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.models.dnsmos import DNSMOS, RATE
from reelmill.curation.stage import (
    AUDIBLE,
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

_NAMES = ("mos_signal", "mos_background", "mos_overall")


@dataclass(frozen=True, kw_only=True)
class MOS(ClipStage):
    """DNSMOS P.835 of a clip whose sound is mostly speech: signal, background, overall, 1 to 5.

    The network takes all that is not speech for noise and gives digital silence a middling score,
    so it is asked only where speech makes up at least `min_speech_share` of the time that is not
    silent. The paper filters by MOS (section 3.4) without a number. The default drops what is
    below 2, "poor" on the scale of ITU-T P.835; Emilia, for speech synthesis, keeps above 3
    (arXiv 2407.05361), which also drops clean speech of two seconds and old recordings.
    """

    kinds: ClassVar = AUDIBLE
    needs: ClassVar = ("speech_ratio", "silence_ratio")
    adds: ClassVar = (
        Fact("mos_signal", "", "DNSMOS P.835 of the speech itself.", 1.0, 5.0),
        Fact("mos_background", "", "DNSMOS P.835 of what is behind it.", 1.0, 5.0),
        Fact("mos_overall", "", "DNSMOS P.835 overall.", 1.0, 5.0),
    )
    paper: ClassVar = "section 3.4"
    resources: ClassVar = Resources(weights=("dnsmos",))
    min_speech_share: float = 0.5
    min_overall: Bound = at_least(2.0, "mos_overall", "low_mos")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        folder = weights.path("dnsmos")
        rate = None if folder is None else DNSMOS(folder)

        def measure(clips: Sequence[ClipMedia]) -> list[Facts]:
            why = [unfit(clip, self.min_speech_share) for clip in clips]
            if rate is None:
                absent = NotMeasured("weights 'dnsmos' absent")
                return [dict.fromkeys(_NAMES, reason or absent) for reason in why]
            fit = [c.audio(RATE) for c, reason in zip(clips, why, strict=True) if reason is None]
            rated = iter(rate(fit)) if fit else iter(())
            return [
                dict(zip(_NAMES, map(float, next(rated)), strict=True))
                if reason is None
                else dict.fromkeys(_NAMES, reason)
                for reason in why
            ]

        yield measure


def unfit(media: ClipMedia, min_speech_share: float) -> NoValue | None:
    """Why a clip is no matter for a network that rates speech; None: it is one."""
    speech, silence = media.facts["speech_ratio"], media.facts["silence_ratio"]
    for fact in (speech, silence):
        if isinstance(fact, NoValue):
            return fact
    assert isinstance(speech, float)
    assert isinstance(silence, float)
    if speech == 0:
        return NotApplicable("no speech")
    if speech < min_speech_share * (1 - silence):
        return NotApplicable("mostly sounds other than speech")
    return None
