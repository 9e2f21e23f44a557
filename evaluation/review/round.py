"""A round on disk: what raters are asked, and, sealed apart, what they are not told.

round.json     seats, items, links, the digest of the key          for the organiser
key.json       which system made which clip, what is gold           opened by `close` alone
pages/         one page per rater, and the clips                    for raters; names nothing
votes.jsonl    what raters said, append-only
closed.json    the votes with names, written once
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import DatasetError, UsageError
from reelmill.evaluation.taxonomy import dimensions
from reelmill.evaluation.vote import OVERALL, Choice, PairVote, ScaleVote

SCHEMA = 1
MAX_BYTES = 256 << 20
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
RATER = r"[^\W_][\w.-]{0,39}"
RaterName = Annotated[str, Field(pattern=f"^{RATER}$")]
MediaName = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}\.mp4$")]
Row = Annotated[str, Field(min_length=1, max_length=60)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Frozen):
    """One question. media: left and right, or the one to be scored. rows: what is asked of it.

    gains: by which each clip's sound is turned down so that both are equally loud, 0 to 1.
    """

    id: Token
    media: Annotated[tuple[MediaName, ...], Field(min_length=1, max_length=2)]
    gains: tuple[float, ...]
    prompt: str
    language: str
    rows: tuple[Row, ...]

    @property
    def paired(self) -> bool:
        return len(self.media) == 2


class Seat(_Frozen):
    """One rater's place. token: the secret part of the link to the page."""

    rater: RaterName
    token: Token
    items: tuple[Item, ...]

    @cached_property
    def by_id(self) -> dict[str, Item]:
        return {item.id: item for item in self.items}


class Round(_Frozen):
    """sealed: sha256 of key.json. id: names the round in pages and votes."""

    schema_version: int = SCHEMA
    id: Token
    title: str
    made: float
    sealed: str
    seats: tuple[Seat, ...]

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.schema_version != SCHEMA:
            raise ValueError(f"schema {self.schema_version}: this version reads {SCHEMA}")
        return self

    def seat(self, rater: str) -> Seat | None:
        return next((seat for seat in self.seats if seat.rater == rater), None)


class Origin(_Frozen):
    """Where a blind copy comes from."""

    system: str
    prompt: str
    seed: int
    damage: str = ""
    level: int = 0


class Secret(_Frozen):
    """What is known of an item: the side of the undamaged clip, and that it comes again."""

    gold: Choice | None = None
    repeat: bool = False


class Key(_Frozen):
    """seed: of plan and names. clips: by file name. items: by id. files: sha256 of each source."""

    schema_version: int = SCHEMA
    round: Token
    seed: str
    systems: tuple[str, ...]
    clips: dict[str, Origin]
    items: dict[str, Secret]
    sources: dict[str, str]
    failed: dict[str, str]
    told_apart_by: tuple[str, ...]


class Closed(_Frozen):
    """A closed round: votes with names. digests: sha256 of round, key and votes as they were."""

    schema_version: int = SCHEMA
    round: Token
    title: str
    at: float
    digests: dict[str, str]
    asked: int
    systems: tuple[str, ...]
    told_apart_by: tuple[str, ...]
    pairs: tuple[PairVote, ...]
    scales: tuple[ScaleVote, ...]
    gold_scales: tuple[ScaleVote, ...]
    again_scales: tuple[ScaleVote, ...]
    unseen: dict[str, int]
    flags: dict[str, dict[str, int]]
    notes: tuple[tuple[str, str, str], ...]


Model = TypeVar("Model", bound=BaseModel)


def rows_of(sound: bool) -> tuple[str, ...]:
    """The dimensions that can be asked about; those of sound only where there is some."""
    deaf = {"audio_visual_sync", "audio_quality"}
    return tuple(d.name for d in dimensions() if sound or d.name not in deaf)


def pair_rows(sound: bool) -> tuple[str, ...]:
    return (OVERALL, *rows_of(sound))


def parts() -> frozenset[str]:
    """Names of the sub-dimensions that a rater may mark."""
    return frozenset(part.name for d in dimensions() for part in d.parts)


class RoundFolder:
    """Paths and files of one round."""

    def __init__(self, root: Path):
        self.root = root
        self.pages = root / "pages"
        self.media = self.pages / "media"
        self.votes = root / "votes.jsonl"
        self.results = root / "results.html"

    @property
    def closed(self) -> bool:
        return (self.root / "closed.json").exists()

    def seal(self, key: Key) -> str:
        """Writes the key, readable by its owner alone; returns its sha256."""
        data = key.model_dump_json(indent=1).encode()
        commit_bytes(self.root / "key.json", data)
        (self.root / "key.json").chmod(0o600)
        return hashlib.sha256(data).hexdigest()

    def write(self, name: str, value: BaseModel) -> None:
        commit_bytes(self.root / name, value.model_dump_json(indent=1).encode() + b"\n")

    def round(self) -> Round:
        """Raises UsageError when the folder is no round, DatasetError when it is damaged."""
        if not (self.root / "round.json").is_file():
            raise UsageError(
                f"{self.root} holds no round. Make one: reelmill arena build CLIPS --out "
                f"{self.root} --rater NAME."
            )
        return self._read("round.json", Round)

    def key(self, round_: Round) -> Key:
        """Breaks the seal. Raises DatasetError when the key is not the one the round began with."""
        found = self.digest("key.json")
        if found != round_.sealed:
            raise DatasetError(
                f"{self.root / 'key.json'} was changed after the round began (sha256 {found[:12]}, "
                f"sealed as {round_.sealed[:12]}): its names cannot be trusted. Restore it."
            )
        return self._read("key.json", Key)

    def closing(self) -> Closed:
        """Raises UsageError while the round is open."""
        if not self.closed:
            raise UsageError(
                f"{self.root} is still open: names are joined when it is closed. Close it: "
                f"reelmill arena close {self.root}."
            )
        return self._read("closed.json", Closed)

    def digest(self, name: str) -> str:
        """sha256 of one of the round's files, of nothing where there is none."""
        path = self.root / name
        if not path.is_file():
            return hashlib.sha256(b"").hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, name: str, model: type[Model]) -> Model:
        path = self.root / name
        try:
            if path.stat().st_size > MAX_BYTES:
                raise DatasetError(f"{path} has {path.stat().st_size} bytes: no round has so many.")
            return model.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise DatasetError(f"{path} is damaged: {where}: {first['msg']}.") from error
