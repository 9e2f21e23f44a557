"""A bench out of the demo's corpus: clips that were never trained on, of which all is known.

Each held-out clip gives two prompts: its caption, from which picture and sound are made, and its
picture, which gets a sound.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from reelmill.datasets.corpus.truth import CorpusTruth, FileTruth, read_truth
from reelmill.datasets.latents import LatentDataset, held_out_rows
from reelmill.datasets.workspace import commit_bytes
from reelmill.errors import UsageError
from reelmill.evaluation.bench import (
    Bench,
    Camera,
    Content,
    Language,
    Prompt,
    Scene,
    Sound,
    Subject,
    Tempo,
)


def corpus_bench(truth: CorpusTruth, videos: str, held_out: set[str], seconds: float) -> Bench:
    """videos: the corpus' folder as prompts shall name it. held_out: sha256 of files, or the first
    16 digits. seconds: length of the clips. Raises UsageError where no file is held out.
    """
    chosen = [f for f in truth.files if f.training and {f.sha256, f.sha256[:16]} & held_out]
    if not chosen:
        raise UsageError("none of the corpus' training clips was held out: are these its latents?")
    prompts = [p for file in chosen for p in _prompts(file, videos, seconds)]
    return Bench(prompts=tuple(prompts))


def _prompts(file: FileTruth, videos: str, seconds: float) -> list[Prompt]:
    name = Path(file.name).stem.replace("_", "-").lower()
    known = {
        "language": Language.EN,
        "content": Content.ENTERTAINMENT,
        "sound": Sound.EFFECTS,
        "camera": Camera.STATIC,
        "subject": Subject.ABSTRACT,
        "scene": Scene.INDOOR,
        "tempo": Tempo.FAST,
        "text": file.caption,
        "seconds": seconds,
        "scene_known": True,
    }
    onsets = tuple(b.t for b in file.bounces if b.t < seconds)
    return [
        Prompt.model_validate({"id": f"{name}-t2av", **known}),
        Prompt.model_validate(
            {"id": f"{name}-v2a", **known, "video": f"{videos}/{file.name}", "onsets": onsets}
        ),
    ]


def write_corpus_bench(
    corpus: Path, latents: Path, out: Path, *, share: float = 0.1, frames: int = 33, fps: int = 16
) -> Bench:
    """Writes the prompts of what training on `latents` held out, as YAML that `read_bench` reads.

    share: TrainStage.held_out. Raises UsageError where the corpus is not below the folder of `out`.
    """
    home = out.resolve().parent
    if not corpus.resolve().is_relative_to(home):
        raise UsageError(f"{out}: prompts name videos below them; write it in or above {corpus}.")
    with LatentDataset(latents) as data:
        assets = data.column("asset")
    held = {a for a, out_ in zip(assets, held_out_rows(assets, share), strict=True) if out_}
    videos = corpus.resolve().relative_to(home).as_posix()
    bench = corpus_bench(read_truth(corpus), videos, held, frames / fps)
    rows = [p.model_dump(mode="json", exclude_defaults=True) for p in bench.prompts]
    text = yaml.safe_dump(rows, sort_keys=False, allow_unicode=True)
    commit_bytes(out, text.encode())
    return bench
