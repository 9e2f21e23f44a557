"""Do picture and sound belong together? Measured on held-out clips (notes: PAPER.md 5, sync).

Sound is generated for the picture of clips that were never trained on (task v2a). The onset
envelope of what comes out is compared with that of the clip's true sound, with those of other
clips (shuffled pairs), and with what the same weights give when audio-video cross-attention is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from reelmill.datasets.latents import LatentDataset, LatentSample, held_out_rows
from reelmill.datasets.media.onsets import ENVELOPE_HZ, onset_envelope, planted_envelope
from reelmill.errors import DatasetError
from reelmill.model.modality import Text
from reelmill.model.pipeline import Pipeline
from reelmill.model.sampler import AudioCanvas, VideoCanvas, sample
from reelmill.training.config import Progress, silent


def correlations(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of every row of ours [n, L] with every row of others [m, L]: [n, m].

    NaN where an envelope is flat: nothing begins in it, so there is nothing to agree with.
    """
    a = ours - ours.mean(axis=1, keepdims=True)
    b = others - others.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 1e-9, (a @ b.T) / norms, np.nan)


@dataclass(frozen=True)
class Spread:
    """A mean over clips with its 95 % interval from a bootstrap over source files."""

    mean: float
    low: float
    high: float
    clips: int


def spread(values: np.ndarray, groups: Sequence[str], *, draws: int = 2000) -> Spread:
    """Mean of values [n] and its interval. Values of one group (source file) are drawn together."""
    names = sorted(set(groups))
    of = np.array([names.index(g) for g in groups])
    good = np.isfinite(values)
    sums = np.bincount(of[good], weights=values[good], minlength=len(names))
    counts = np.bincount(of[good], minlength=len(names))
    picks = np.random.default_rng(0).integers(0, len(names), (draws, len(names)))
    weight = counts[picks].sum(axis=1)
    means = sums[picks].sum(axis=1)[weight > 0] / weight[weight > 0]
    low, high = np.quantile(means, [0.025, 0.975]) if len(means) else (np.nan, np.nan)
    mean = sums.sum() / counts.sum() if counts.sum() else np.nan
    return Spread(float(mean), float(low), float(high), int(counts.sum()))


@dataclass(frozen=True)
class SyncReport:
    """Correlations of onset envelopes.

    matched: generated sound against the true sound of the same picture. shuffled: against the
    true sounds of all other source files. apart: the same weights with audio-video cross-attention
    off, against the true sound. planted: against known onset times, where they were given. clips:
    windows looked at; silent: of them, those in whose true sound nothing begins.
    """

    matched: Spread
    shuffled: Spread
    apart: Spread
    planted: Spread | None
    clips: int
    silent: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        names = ("matched", "shuffled", "apart")
        labels = ("held-out video-to-audio", "shuffled pairs", "audio-video attention off")
        return "onset correlation: " + ", ".join(
            f"{label} {s.mean:.2f} ({s.low:.2f} to {s.high:.2f})"
            for label, s in zip(labels, (getattr(self, n) for n in names), strict=True)
        )


def onset_correlation(
    pipeline: Pipeline,
    data: LatentDataset,
    *,
    held_out: float = 0.1,
    clips: int = 48,
    steps: int = 16,
    shift: float = 1.0,
    seed: int = 0,
    onsets: Mapping[str, Sequence[float]] | None = None,
    progress: Progress = silent,
) -> SyncReport:
    """Generates sound for held-out pictures and compares when it begins with when it should.

    held_out: the share that training held out (TrainStage.held_out). clips: at most so many
    windows, spread evenly over the held-out files. steps, shift: of the Euler sampler; no
    guidance. onsets: seconds of planted onsets from the start of each clip, by its shard key. The
    true sound is what the codec gives back of it, so that both went through the same decoder.
    Raises DatasetError when fewer than two held-out files have sound.
    """
    chosen = _held_out(data, held_out, clips)
    samples = [data.read(row) for row in chosen]
    groups = [s.asset for s in samples]
    sounds = torch.from_numpy(np.stack([_sound(s) for s in samples]))
    video = torch.from_numpy(np.stack([s.video for s in samples])).float()
    text = Text.stack([torch.from_numpy(np.asarray(s.text, np.float32)) for s in samples])
    canvas = VideoCanvas(video, torch.ones_like(video[:, :1]), held=True)
    target = AudioCanvas(sounds.shape[2], video.shape[2])
    seeds = [seed * 1_000_003 + i for i in range(len(samples))]
    made = []
    for number, av in enumerate((True, False)):
        _, latents = sample(
            pipeline.model,
            text,
            video=canvas,
            audio=target,
            seeds=seeds,
            steps=steps,
            s=shift,
            av=av,
            progress=partial(_report, progress, number),
        )
        assert latents is not None
        made.append(_envelopes(pipeline, latents))
    true = _envelopes(pipeline, sounds)
    return compare(made[0], made[1], true, groups, _planted(samples, onsets, true.shape[1]))


def _report(progress: Progress, run: int, done: int, steps: int) -> None:
    progress(run * steps + done, 2 * steps, "sound of held-out pictures")


def compare(
    made: np.ndarray,
    apart: np.ndarray,
    true: np.ndarray,
    groups: Sequence[str],
    planted: np.ndarray | None = None,
) -> SyncReport:
    """The report of envelopes [clips, L]: generated, generated without cross-attention, true."""
    all_pairs = correlations(made, true)
    other = np.array([[a != b for b in groups] for a in groups])
    counts = (other & np.isfinite(all_pairs)).sum(axis=1)
    sums = np.where(other, np.nan_to_num(all_pairs), 0).sum(axis=1)
    shuffled = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return SyncReport(
        matched=spread(np.diag(all_pairs), groups),
        shuffled=spread(shuffled, groups),
        apart=spread(np.diag(correlations(apart, true)), groups),
        planted=None if planted is None else spread(np.diag(correlations(made, planted)), groups),
        clips=len(groups),
        silent=int((np.ptp(true, axis=1) < 1e-9).sum()),
    )


def _held_out(data: LatentDataset, fraction: float, clips: int) -> list[int]:
    """Rows of held-out windows with sound, all of one length, spread over their files."""
    frames = np.array(data.column("frames"))
    good = held_out_rows(data.column("asset"), fraction) & np.array(data.column("has_audio"))
    if good.any():
        lengths, counts = np.unique(frames[good], return_counts=True)
        good &= frames == lengths[np.argmax(counts)]
    rows = np.flatnonzero(good)
    files = {data.column("asset")[row] for row in rows}
    if len(files) < 2:
        raise DatasetError(
            f"{len(files)} held-out files of {data.folder} have sound; two or more are needed to "
            "tell matching pairs from others. Encode more clips."
        )
    return [
        int(row) for row in rows[np.linspace(0, len(rows) - 1, min(clips, len(rows))).astype(int)]
    ]


def _sound(sample_: LatentSample) -> np.ndarray:
    assert sample_.audio is not None
    return sample_.audio.astype(np.float32)


def _envelopes(pipeline: Pipeline, latents: torch.Tensor) -> np.ndarray:
    codec = pipeline.audio_codec
    waves = codec.decode(latents).cpu().numpy()
    return np.stack([onset_envelope(wave, codec.rate) for wave in waves])


def _planted(
    samples: Sequence[LatentSample], onsets: Mapping[str, Sequence[float]] | None, length: int
) -> np.ndarray | None:
    if onsets is None:
        return None
    rows = []
    for s in samples:
        start = s.meta["start_frame"] / s.meta["fps"]
        times = [t - start for t in onsets.get(str(s.meta["clip"]), ())]
        rows.append(planted_envelope(times, length / ENVELOPE_HZ + 0.5 / ENVELOPE_HZ)[:length])
    return np.stack(rows)
