"""The whole way in one flow: corpus, curation, report, latents, training, a generated clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from reelmill.curation.planted import Score, score
from reelmill.curation.result import CurateResult
from reelmill.datasets.corpus.corpus import make_corpus
from reelmill.datasets.corpus.truth import CorpusTruth
from reelmill.datasets.latents import LatentDataset
from reelmill.datasets.sample import MICRO
from reelmill.errors import UsageError
from reelmill.flows.curate import curate
from reelmill.flows.encode import encode
from reelmill.flows.form import form
from reelmill.flows.generate import generate
from reelmill.flows.limit import Limit, Timeout
from reelmill.flows.tasks import run_task
from reelmill.flows.train import train
from reelmill.model.pipeline import Pipeline
from reelmill.training.config import TrainResult
from reelmill.training.curricula import curriculum as built_in
from reelmill.training.encode import EncodeResult
from reelmill.training.generate import GenerateResult
from reelmill.training.validate import SyncReport, onset_correlation


@dataclass(frozen=True)
class Size:
    """How long a demo is: what to train on, and the curriculum.

    also, low: further sizes of latents, and the Refiner's, as `reelmill encode` takes them.
    """

    curriculum: str
    clips: int
    stills: int = 0
    sounds: int = 0
    also: tuple[str, ...] = ()
    low: int = 0

    @property
    def shards(self) -> tuple[str, ...]:
        """Folders of shards that are encoded."""
        added = {"image": self.stills, "audio": self.sounds}
        return ("video", *(name for name, count in added.items() if count))


SHORT, FULL = Size("demo", 120), Size("demo_full", 400)
MINI = Size("mini", 240, 240, 48, ("96x96",), 2)


@dataclass(frozen=True)
class DemoResult:
    """What each part of the way came to. sync: whether picture and sound agree, of a full demo."""

    corpus: Path
    truth: CorpusTruth
    score: Score
    curated: CurateResult
    encoded: EncodeResult
    trained: TrainResult
    clip: GenerateResult
    sync: SyncReport | None


def synchrony(truth: CorpusTruth, latents: Path, trained: TrainResult, name: str) -> SyncReport:
    """Onset correlation of held-out video-to-audio samples of a trained model."""
    onsets = {
        f"{file.sha256[:16]}_0_{round((file.seconds or 0) * MICRO)}": [b.t for b in file.bounces]
        for file in truth.files
        if file.training
    }
    stage = built_in(name).stages[-1]
    with LatentDataset(latents) as data:
        return onset_correlation(
            Pipeline.load(trained.export), data, held_out=stage.held_out, onsets=onsets
        )


@flow(name="demo", flow_run_name="demo in {folder}", retries=0)
@form
def demo(
    folder: Annotated[Path, Field(description="Where everything is written.")],
    full: Annotated[bool, Field(description="Train until sound and picture agree.")] = False,
    mini: Annotated[
        bool, Field(description="Train all rows of the paper's curriculum, at CPU size.")
    ] = False,
    seed: Annotated[int, Field(description="Seed of all that is random.")] = 0,
    timeout: Timeout = None,
) -> DemoResult:
    """Makes a corpus with planted defects, curates it, trains on what is kept, generates a clip.

    What is there already is taken as it is. Training is on shards that nobody reviewed, and the
    checkpoint says so.
    """
    limit = Limit(timeout)
    if full and mini:
        raise UsageError("a demo is --full or --mini, not both.")
    size = FULL if full else MINI if mini else SHORT
    corpus, workspace = folder / "corpus", folder / "work"
    made: list[str] = []
    truth = run_task(
        "make corpus",
        lambda: make_corpus(
            corpus,
            seed=seed,
            training_clips=size.clips,
            training_stills=size.stills,
            training_sounds=size.sounds,
            done=made.append,
        ),
        lambda t: f"{len(t.files)} files, {sum(bool(f.defects) for f in t.files)} with a defect",
        reused=lambda t: not made,
        limit=limit,
    )
    curated = curate(
        sources=[str(corpus)],
        workspace=workspace,
        allow_missing=True,
        max_failed=1.0,  # files are broken on purpose
        timeout=limit.left,
    )
    verdicts = workspace / "ledger" / "verdicts" / f"{curated.run}.parquet"
    compared = run_task(
        "compare with truth",
        lambda: score(truth, corpus, verdicts),
        lambda s: f"{s.found} of {len(s.planted)} planted defects found",
        limit=limit,
    )
    encoded = encode(
        shards=[workspace / "shards" / name for name in size.shards],
        output=workspace / "latents",
        frames=[33, 17],
        also=list(size.also),
        low=size.low,
        timeout=limit.left,
    )
    trained = train(
        latents=workspace / "latents",
        output=workspace / "checkpoints" / size.curriculum,
        curriculum=size.curriculum,
        seed=seed,
        unreviewed=True,
        threads=1,  # a model this small gains nothing from more, and loses much on a busy machine
        timeout=limit.left,
    )
    prompt = next(file.caption or "" for file in truth.files if file.training)
    clip = generate(
        prompt=prompt,
        model=trained.export,
        output=folder / "clip.mp4",
        frames=33,
        seed=seed,
        timeout=limit.left,
    )
    sync = None
    if full:
        sync = run_task(
            "measure synchrony",
            lambda: synchrony(truth, workspace / "latents", trained, size.curriculum),
            str,
            limit=limit,
        )
    return DemoResult(corpus, truth, compared, curated, encoded, trained, clip, sync)
