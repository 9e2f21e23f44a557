"""Training a SyncNet of one's own: lips and speech of one moment together, all others apart.

Within a batch each moment's lips must find their sound among all sounds of the batch: those of the
same clip at other moments (negatives by shift) and those of other clips (negatives by speaker),
and the sound its lips; cross entropy over cosines, as in contrastive learning (van den Oord et al.
2018). Clips are split by source file into three: trained on, calibrated on, held out.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from reelmill.curation.lips.av_sync import AVSync, moved
from reelmill.curation.lips.examples import Example, Examples, read_examples
from reelmill.curation.models.lip_sync import LipSync, device_of
from reelmill.curation.models.mfcc import mfcc
from reelmill.curation.models.mouth_sync import MouthConfig, MouthSync, save, sound_windows
from reelmill.curation.models.syncnet import FRAMES, compare
from reelmill.curation.models.weights import Weights
from reelmill.curation.models.yunet import YuNet
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import DatasetError, UsageError, WeightsError

SHIFTS = range(-6, 7)  # frames that held-out clips are shifted by
SHORTEST = 50  # frames
LEAST_TRAINED, LEAST_OTHERS = 4, 2  # clips
MOST_SWAPPED = 400  # pairs
FIGURES = "training.json"

Advance = Callable[[float, float, str], None]


@dataclass(frozen=True)
class SyncOptions:
    """sources: clips in sync: curated shards, videos, folders. held_out: of the same sort; none
    takes a fifth of the source files. output: folder of the network, to be the folder `syncnet`
    among the weights. frames: of a clip in a batch of `batch` clips. channels, width: of the
    network. weights: where the face detector lies. threads: of torch; 0 leaves them as they are.
    """

    sources: tuple[Path, ...]
    output: Path
    held_out: tuple[Path, ...] = ()
    steps: int = 600
    batch: int = 8
    frames: int = 32
    channels: int = 96
    width: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"
    weights: Path | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch - 1, self.frames - 1) < 1 or self.learning_rate <= 0:
            raise UsageError(
                f"{self.steps} steps of {self.batch} clips of {self.frames} frames at "
                f"{self.learning_rate}: at least 1 step of 2 clips of 2 frames is wanted."
            )
        if self.frames + FRAMES - 1 > SHORTEST:
            raise UsageError(f"frames {self.frames}: at most {SHORTEST - FRAMES + 1}.")


@dataclass(frozen=True)
class SyncFigures:
    """On held-out clips. accuracy: share of shifted clips whose shift is found within one frame;
    by_shift: the same for each shift, in frames by which the sound is late. in_sync: share of clips
    that AVSync passes as they are. swapped: pairs of lips and another clip's sound; swapped_passed:
    of those. confidence, swapped_confidence: median, largest.
    """

    clips: int
    accuracy: float
    by_shift: dict[int, float]
    in_sync: float
    swapped: int
    swapped_passed: int
    confidence: float
    swapped_confidence: float


@dataclass(frozen=True)
class SyncTrained:
    """What a training gave. skipped: clips that gave no example. separated: whether calibration
    found confidences of clips in sync above those of swapped ones.
    """

    output: Path
    trained_on: int
    calibrated_on: int
    skipped: dict[str, str]
    steps: int
    seconds: float
    loss_start: float
    loss_end: float
    scale: float
    separated: bool
    figures: SyncFigures


def train_sync(options: SyncOptions, advance: Advance = lambda a, b, c: None) -> SyncTrained:
    """Trains, calibrates, measures on held-out clips, and writes the network and its figures.

    The same options give the same network on one processor. Raises WeightsError without the face
    detector, DatasetError for too few clips.
    """
    start = time.monotonic()
    folder = Weights(options.weights).path("face_yunet")
    if folder is None:
        raise WeightsError(
            f"faces are found by weights 'face_yunet', which are absent. "
            f"{Weights(options.weights).advice('face_yunet')}"
        )
    if options.threads:
        torch.set_num_threads(options.threads)
    find = YuNet(folder)
    seen = 0

    def looked(name: str) -> None:
        nonlocal seen
        seen += 1
        advance(0, options.steps, f"looking at clip {seen}: {name}")

    given = read_examples(options.sources, find, looked)
    apart = read_examples(options.held_out, find, looked)
    trained, calibrated, held = split(given, apart)
    network, losses = fit(trained, options, advance)
    network, separated = calibrate(network, calibrated)
    figures = measure_sync(network, held)
    save(network, options.output)
    result = SyncTrained(
        output=options.output,
        trained_on=len(trained),
        calibrated_on=len(calibrated),
        skipped={**given.skipped, **apart.skipped},
        steps=options.steps,
        seconds=time.monotonic() - start,
        loss_start=losses[0],
        loss_end=losses[1],
        scale=network.config.scale,
        separated=separated,
        figures=figures,
    )
    told = json.dumps(asdict(result), default=str, indent=1) + "\n"
    commit_bytes(options.output / FIGURES, told.encode())
    return result


def split(given: Examples, apart: Examples) -> tuple[list[Example], list[Example], list[Example]]:
    """(trained on, calibrated on, held out), by source file. Raises DatasetError for too few."""
    files = sorted(
        {e.asset for e in given.found}, key=lambda a: hashlib.sha256(a.encode()).digest()
    )
    others = max(LEAST_OTHERS, len(files) // 5)
    held = list(apart.found)
    first = others
    if not held:
        held = [e for e in given.found if e.asset in set(files[:others])]
        first, files = others, files[others:]
    calibrated = [e for e in given.found if e.asset in set(files[:first])]
    trained = [e for e in given.found if e.asset in set(files[first:])]
    if len(trained) < LEAST_TRAINED or min(len(calibrated), len(held)) < LEAST_OTHERS:
        raise DatasetError(
            f"{len(given.found)} clips with a face and {len(apart.found)} held out, from "
            f"{len({e.asset for e in given.found})} files, are too few: {LEAST_TRAINED} to train "
            f"on, {LEAST_OTHERS} to calibrate on and {LEAST_OTHERS} to hold out, each of its own "
            f"files. Skipped: {len(given.skipped) + len(apart.skipped)}."
        )
    return trained, calibrated, held


def fit(
    examples: Sequence[Example], options: SyncOptions, advance: Advance
) -> tuple[MouthSync, tuple[float, float]]:
    """The trained network, and the mean loss of the first and the last tenth of the steps."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    device = device_of(options.device)
    network = MouthSync(MouthConfig(options.channels, options.width)).to(device).train()
    heat = torch.nn.Parameter(torch.tensor(2.5, device=device))
    optimiser = torch.optim.AdamW([*network.parameters(), heat], options.learning_rate)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.steps
    )
    heard = [sound_windows(mfcc(e.sound), e.frames - FRAMES + 1) for e in examples]
    losses = []
    for step in range(options.steps):
        lips, sound = _batch(examples, heard, options, rng)
        seen = network.lips(torch.from_numpy(lips).to(device)).flatten(0, 1)
        spoken = network.sound(torch.from_numpy(sound).to(device))
        cosines = seen @ spoken.T * heat.exp().clamp(max=100)
        target = torch.arange(len(cosines), device=device)
        loss = (F.cross_entropy(cosines, target) + F.cross_entropy(cosines.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        plan.step()
        losses.append(float(loss.detach()))
        advance(step + 1, options.steps, f"loss {losses[-1]:.3f}")
    if not np.isfinite(losses).all():
        raise DatasetError("the loss is no number: lower the learning rate.")
    part = max(1, len(losses) // 10)
    return network.eval().cpu(), (float(np.mean(losses[:part])), float(np.mean(losses[-part:])))


def _batch(
    examples: Sequence[Example],
    heard: Sequence[np.ndarray],
    options: SyncOptions,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [batch, frames + 4, 48, 48], float32 [batch * frames, 13, 20]), varied a little.

    Pictures: mirrored, moved by up to 3 pixels, lighter or darker, with more or less contrast.
    Sound: louder or softer, with noise on its coefficients.
    """
    enough = len(examples) >= options.batch
    chosen = rng.choice(len(examples), options.batch, replace=not enough)
    pictures, sounds = [], []
    for i in chosen:
        at = int(rng.integers(examples[i].frames - options.frames - FRAMES + 2))
        part = examples[i].mouths[at : at + options.frames + FRAMES - 1].astype(np.float32)
        part = np.roll(part, rng.integers(-3, 4, 2), axis=(1, 2))
        part = part[..., ::-1] if rng.random() < 0.5 else part
        part = (part - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-30, 30)
        pictures.append(np.clip(part, 0, 255))
        sound = heard[i][at : at + options.frames].copy()
        sound[:, 0] += rng.uniform(-3, 3)  # the log energy
        sound += rng.normal(0, 0.5, sound.shape).astype(np.float32)
        sounds.append(sound)
    return np.ascontiguousarray(np.stack(pictures), np.float32), np.concatenate(sounds)


def calibrate(network: MouthSync, examples: Sequence[Example]) -> tuple[MouthSync, bool]:
    """The network with embeddings as long as puts AVSync's bound on confidence where it divides.

    Half-way, in logarithms, between the largest confidence of swapped pairs and the tenth
    percentile of clips in sync, neither of which was trained on. Where the former is the larger,
    no swapped pair passes, and not separated is what is said.
    """
    bound = AVSync().min_confidence.value or 1.5
    plain = LipSync(_scaled(network, 1.0), torch.device("cpu"))
    own = [compare(plain.lips(e.mouths), plain.speech(e.sound, e.frames)) for e in examples]
    low = float(np.quantile([sync.confidence for sync in own], 0.1))
    high = max(sync["sync_confidence"] for sync in _swapped(plain, examples))
    separated = low > high > 0
    between = (low * high) ** 0.5 if separated else max(low, high, 1e-3) * 1.05
    return _scaled(network, bound / between), separated


def _scaled(network: MouthSync, scale: float) -> MouthSync:
    made = MouthSync(replace(network.config, scale=scale))
    made.load_state_dict(network.state_dict())
    return made.eval()


def measure_sync(network: MouthSync, examples: Sequence[Example]) -> SyncFigures:
    """Figures of a network on clips in sync that it was not trained on."""
    model, stage = LipSync(network, torch.device("cpu")), AVSync()
    right: dict[int, list[bool]] = {shift: [] for shift in SHIFTS}
    own = []
    for e in examples:
        lips = model.lips(e.mouths)
        for shift in SHIFTS:
            heard = model.speech(moved(e.sound, 0, e.frames, shift), e.frames)
            right[shift].append(abs(compare(lips, heard).offset + shift) <= 1)
        own.append(_judged(stage, model, lips, e, e))
    swapped = _swapped(model, examples)
    return SyncFigures(
        clips=len(examples),
        accuracy=float(np.mean([value for values in right.values() for value in values])),
        by_shift={shift: float(np.mean(values)) for shift, values in right.items()},
        in_sync=float(np.mean([passes(stage, facts) for facts in own])),
        swapped=len(swapped),
        swapped_passed=sum(passes(stage, facts) for facts in swapped),
        confidence=float(np.median([facts["sync_confidence"] for facts in own])),
        swapped_confidence=max(facts["sync_confidence"] for facts in swapped),
    )


def passes(stage: AVSync, facts: dict[str, float]) -> bool:
    """Whether the facts of a judged clip hold the stage's bounds, but for that on volume."""
    named = [b for b in stage.bounds().values() if b.fact in facts]
    return all(bool(bound.holds(np.array([facts[bound.fact]]))[0]) for bound in named)


def _swapped(model: LipSync, examples: Sequence[Example]) -> list[dict[str, float]]:
    """Lips of each clip with the sound of each other one, at most 400 pairs, evenly chosen."""
    pairs = [(a, b) for a in range(len(examples)) for b in range(len(examples)) if a != b]
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_SWAPPED)).astype(int)
    lips = [model.lips(e.mouths) for e in examples]
    stage = AVSync()
    return [
        _judged(stage, model, lips[seen], examples[seen], examples[heard])
        for seen, heard in (pairs[i] for i in chosen)
    ]


def _judged(
    stage: AVSync, model: LipSync, lips: np.ndarray, seen: Example, heard: Example
) -> dict[str, float]:
    """Facts of the lips of one clip and the sound of another, or of the same."""
    frames = min(seen.frames, heard.frames)

    def speech(delay: int) -> np.ndarray:
        return model.speech(moved(heard.sound, 0, frames, delay), frames)

    return stage.judge(lips[: frames - FRAMES + 1], speech)
