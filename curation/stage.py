"""What a curation stage is: the five shapes, their bounds, their facts.

A stage is one frozen dataclass in one file. Its fields of type `Bound` are decisions; every other
field belongs to the identity of the measurement. Moving a bound therefore re-decides from stored
facts; changing anything else measures again, that stage alone (docs/adr/0002).

Facts are measured per unit: the whole asset for stages before the recipe's `Segmenter`, a clip
for those after it. FrameStages and AudioStages store tracks (arrays over frames or windows) and
derive a unit's facts from them, so new clip borders need no new decode.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from reelmill.datasets.media.decode import AudioBlock, DecodeSummary, Frame, MediaInfo
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.sample import NotApplicable as NotApplicable
from reelmill.datasets.sample import NotMeasured as NotMeasured
from reelmill.datasets.sample import NoValue as NoValue

OPS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FactValue = float | int | bool | str
ALL_KINDS = frozenset(Kind)
VISUAL = frozenset({Kind.VIDEO, Kind.IMAGE})
AUDIBLE = frozenset({Kind.VIDEO, Kind.AUDIO})


@dataclass(frozen=True, slots=True)
class Bound:
    """A decision: a unit is kept while `fact op value` holds. `value` None switches it off.

    A bound without a fact is read by the stage's own `segment` or `select` (a cut threshold, a
    quota); it is still a decision and never part of a measurement's identity.
    """

    value: float | None
    fact: str = ""
    op: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.value is not None:
            object.__setattr__(self, "value", float(self.value))

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Elementwise; NaN (no value) holds, since what was not measured cannot be rejected."""
        if self.value is None or not self.fact:
            return np.ones(len(values), dtype=bool)
        return np.isnan(values) | OPS[self.op](values, self.value)

    def __str__(self) -> str:
        return f"{self.fact} {self.op} {self.value:g}" if self.value is not None else "off"


def at_least(value: float | None, fact: str, reason: str) -> Bound:
    return Bound(value, fact, ">=", reason)


def at_most(value: float | None, fact: str, reason: str) -> Bound:
    return Bound(value, fact, "<=", reason)


def above(value: float | None, fact: str, reason: str) -> Bound:
    return Bound(value, fact, ">", reason)


def below(value: float | None, fact: str, reason: str) -> Bound:
    return Bound(value, fact, "<", reason)


def knob(value: float | None) -> Bound:
    """A decision that the stage's own `segment` or `select` reads."""
    return Bound(value)


@dataclass(frozen=True, slots=True)
class Fact:
    """One measured quantity: its name, unit, what it means, and the range its histogram shows.

    dtype is `float`, `int`, `bool` or `str`. Values outside [low, high] go to the overflow bins.
    """

    name: str
    unit: str
    what: str
    low: float = 0.0
    high: float = 1.0
    dtype: type = float
    log: bool = False


Facts = Mapping[str, FactValue | NoValue]
Tracks = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker of a stage takes. weights: names in the weights catalogue.

    optional: a run may start without the weights although the stage has bounds on what they
    measure. Its facts then read `not measured`, which the start of the run and the top of its
    report say. For weights that nobody may give away alone.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float = 0.5
    weights: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):  # noqa: B024 - the shapes below carry the abstract methods
    """Base of the five shapes. Subclasses are frozen dataclasses; their fields are their config.

    version: raise it when the same input and fields would give other facts.
    kinds:   kinds of asset it applies to; others get `not applicable`.
    needs:   names of facts that an earlier stage must add.
    reads:   names of facts that it uses where an earlier stage adds them.
    adds:    facts that it adds. All of them are in what it returns, each a value or a NoValue.
    paper:   where the paper asks for it.
    """

    version: ClassVar[int] = 1
    kinds: ClassVar[frozenset[Kind]] = ALL_KINDS
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    adds: ClassVar[tuple[Fact, ...]] = ()
    paper: ClassVar[str] = ""
    resources: ClassVar[Resources] = Resources()

    @property
    def name(self) -> str:
        return type(self).__name__

    def bounds(self) -> dict[str, Bound]:
        """Decision fields by name, in order."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Bound)}

    def ready(self, workspace: Path) -> None:  # noqa: B027 - most stages need nothing
        """Raises ReelmillError for what a run in this workspace would lack, before it starts."""

    def measuring(self) -> dict[str, Any]:
        """Fields that the measurement depends on, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if not isinstance(value, Bound)}

    def with_field(self, name: str, value: Any) -> Stage:
        """A copy with one field set; a Bound keeps its fact, operator and reason."""
        old = getattr(self, name)
        return replace(
            self, **{name: replace(old, value=value) if isinstance(old, Bound) else value}
        )


class AssetStage(Stage):
    """Reads the file itself."""

    @abstractmethod
    def measure(self, path: Path, info: MediaInfo) -> Facts:
        """Facts of one asset. Raises MediaError when the file cannot be read."""


class FrameAnalyser(Protocol):
    """State of one FrameStage over one asset's shared decode."""

    def frame(self, frame: Frame) -> None:
        """Takes the next frame, in presentation order; never changes its pixels."""

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]:
        """Tracks by name. Arrays over frames have the decoded frame index as first axis."""


class FrameStage(Stage):
    """Reads every frame, small, of the one shared decode; images are videos of one frame.

    coded: whether it looks at the picture as coded too, `Frame.full_luma`. vectors: whether it
    reads the codec's motion vectors, `Frame.vectors`; such a stage is `coded` too.
    """

    kinds: ClassVar[frozenset[Kind]] = VISUAL
    coded: ClassVar[bool] = False
    vectors: ClassVar[bool] = False

    @abstractmethod
    def open(self, info: MediaInfo) -> FrameAnalyser: ...

    def open_with(self, info: MediaInfo, weights: WeightsStore) -> FrameAnalyser:
        """As `open`, for a stage that has weights of its own to find."""
        return self.open(info)

    @abstractmethod
    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        """Facts of a unit, from the asset's tracks. Cheap and pure."""


class AudioAnalyser(Protocol):
    """State of one AudioStage over one asset's shared audio decode."""

    def block(self, block: AudioBlock) -> None: ...

    def finish(self, summary: DecodeSummary) -> dict[str, np.ndarray]: ...


class AudioStage(Stage):
    """Reads the one shared audio decode, block by block."""

    kinds: ClassVar[frozenset[Kind]] = AUDIBLE

    @abstractmethod
    def open(self, info: MediaInfo) -> AudioAnalyser: ...

    @abstractmethod
    def facts(self, tracks: Tracks, clip: Clip, info: MediaInfo) -> Facts:
        """Facts of a unit, from the asset's tracks. Cheap and pure. NotApplicable with no sound."""


class Segmenter(ABC):
    """Mixed into the one FrameStage or AudioStage of a recipe that turns assets into clips."""

    def listens(self) -> Mapping[str, bool]:
        """Names of other stages whose tracks `segment` reads; whether a recipe must have them.

        They are in `tracks` as `Stage:track`, those of a BoundaryJudge as `Stage:same`.
        """
        return {}

    def knobs(self) -> dict[str, Any]:
        """The decisions that `segment` reads: bounds on no fact. Facts of clips depend on them."""
        bounds = self.bounds().items() if isinstance(self, Stage) else ()
        return {name: bound.value for name, bound in bounds if not bound.fact}

    def boundaries(self, tracks: Tracks, info: MediaInfo) -> list[int]:
        """First frames of the shots of an asset but the first, for a BoundaryJudge to look at."""
        return []

    @abstractmethod
    def segment(self, tracks: Tracks, whole: Clip, info: MediaInfo) -> list[Clip]:
        """Clips of an asset in order. Cheap and pure: reads tracks and this stage's bounds."""


Judge = Callable[[Tracks, Clip, Sequence[int]], Mapping[int, bool]]


class BoundaryJudge(ABC):
    """Mixed into a FrameStage that can say whether what follows a boundary goes on with a scene."""

    @abstractmethod
    def judging(self) -> AbstractContextManager[Judge]:
        """A function from an asset's tracks, its whole span and some boundaries to a word on each.

        Answers are kept in the ledger, under this stage's key, and never asked for twice. The
        function raises a transient MediaError when it gets none.
        """


class ClipMedia(Protocol):
    """A clip as a ClipStage sees it; media are decoded when asked for."""

    clip: Clip
    info: MediaInfo
    facts: Facts  # of all earlier stages

    def audio(self, rate: int) -> np.ndarray:
        """Mono float32 [samples] at `rate` Hz."""

    def frames(self, fps: float, height: int) -> np.ndarray:
        """uint8 RGB [frames, height, width, 3], the width following the display aspect."""


class WeightsStore(Protocol):
    """Finds pretrained weights (curation/models/weights.py)."""

    def path(self, name: str) -> Path | None:
        """A verified local folder or file, or None when it is absent."""


class ClipStage(Stage):
    """Reads a clip's media, on demand and in batches, for clips that are still alive."""

    batch_size: ClassVar[int] = 8

    @abstractmethod
    def session(
        self, weights: WeightsStore
    ) -> AbstractContextManager[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        """A context that holds the loaded model and gives a function from clips to facts.

        The function raises MediaError for a clip it cannot read; the engine then tries the
        batch's clips one by one, so that one bad clip never fails its neighbours.
        """


@dataclass(frozen=True, slots=True)
class Rejection:
    """A TableStage's word on one clip."""

    reason: str
    value: float | str | None = None
    bound: str = ""
    detail: str = ""


@dataclass(frozen=True)
class FactTable:
    """Facts of all clips still alive, sorted by clip id. Numeric columns hold NaN for no value.

    findings: what the stage's `compare` found over all clips, alive or not. rows: where the clips
    of this table stand among those.
    """

    clips: Sequence[Clip]
    columns: Mapping[str, np.ndarray]
    findings: Mapping[str, np.ndarray] | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]


class TableStage(Stage):
    """Sees the facts of all clips still alive at once: near duplicates, balance.

    It measures nothing of its own, so all its fields are decisions.
    """

    def compare(self, table: FactTable) -> Mapping[str, np.ndarray]:
        """What can be found over all clips, alive or not, whatever other stages decide.

        Kept in the ledger as long as the clips, their facts (`needs`) and this stage stay the same,
        so that a bound that moves elsewhere costs no search. Empty: there is no such thing.
        """
        return {}

    def beside(self) -> str:
        """Digest of what `compare` reads beside the clips; what it found is kept while it stays."""
        return ""

    @abstractmethod
    def select(self, table: FactTable) -> Mapping[int, Rejection]:
        """Rejected rows by index. The answer must not depend on the order of the input files."""
