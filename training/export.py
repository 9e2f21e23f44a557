"""A trained model in a folder, with all that model/pipeline.py needs to generate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reelmill import __version__
from reelmill.datasets.latents import LatentDataset
from reelmill.errors import CheckpointError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.config import MMDiTConfig
from reelmill.model.encoders.encoder import PromptEncoder
from reelmill.model.encoders.load import load_encoder
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import AUDIO_CODEC, TEXT_ENCODER, VIDEO_CODEC, Pipeline
from reelmill.training.checkpoint import Checkpoint


def make_pipeline(point: Checkpoint, data: LatentDataset) -> Pipeline:
    """The EMA weights of a checkpoint with the codecs beside the latents it was trained on.

    Raises CheckpointError when the codecs are not those that the latents were encoded by.
    """
    model = MMDiT(MMDiTConfig.from_json(point.config["model"]))
    model.load_state_dict(point.ema, strict=True)
    video, audio, encoder = _codecs(data)
    return Pipeline(
        model=model.eval(),
        video_codec=video,
        audio_codec=audio,
        encoder=encoder,
        provenance={
            "stage": point.config["stage"]["name"],
            "step": point.step,
            "seed": point.config["seed"],
            "latents": data.manifest.digest,
            "sources": dict(data.manifest.sources),
            "unreviewed": bool(point.state["unreviewed"]),
            "version": __version__,
        },
    )


def _codecs(data: LatentDataset) -> tuple[VideoCodec, AudioCodec, PromptEncoder]:
    """Those beside the latents. Raises CheckpointError when they are not the latents' own."""
    video = load_video_codec(data.folder / VIDEO_CODEC)
    audio = load_audio_codec(data.folder / AUDIO_CODEC)
    encoder = load_encoder(data.folder / TEXT_ENCODER)
    prints = {
        "video": video.fingerprint(),
        "audio": audio.fingerprint(),
        "text": encoder.fingerprint(),
    }
    for name, found in prints.items():
        made = getattr(data.manifest, name)
        if found != made:
            raise CheckpointError(
                f"the {name} codec beside {data.folder} is {found}, its latents were made by "
                f"{made}. Encode again."
            )
    return video, audio, encoder


def require_exportable(data: LatentDataset) -> None:
    """Raises CheckpointError, before anything is trained, for what `make_pipeline` would."""
    _codecs(data)


def export_model(
    folder: Path, point: Checkpoint, data: LatentDataset, base: Pipeline | None = None
) -> Path:
    """Writes `make_pipeline` to a folder that Pipeline.load reads, in place of the old one. base:
    the model that the checkpoint is the Refiner of; both are written."""
    if base is None:
        return make_pipeline(point, data).save(folder)
    refiner = MMDiT(MMDiTConfig.from_json(point.config["model"]))
    refiner.load_state_dict(point.ema, strict=True)
    return replace(base, refiner=refiner.eval()).save(folder)
