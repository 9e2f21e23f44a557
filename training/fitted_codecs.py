"""The codecs of an encoding: those that were named, else PCA codecs fitted to its shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from reelmill.datasets.index import ShardIndex
from reelmill.datasets.latents import CODECS
from reelmill.datasets.workspace import commit_bytes, writing
from reelmill.errors import MediaError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec
from reelmill.model.codecs.load import load_audio_codec, load_video_codec
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.codecs.pca import Components
from reelmill.model.encoders.encoder import PromptEncoder
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.encoders.load import load_encoder
from reelmill.training.config import Progress
from reelmill.training.decoded_clip import DecodedClip, read_clip
from reelmill.training.encode_request import EncodeOptions

FIT_VERSION = 1
FIT_CLIPS = 96  # clips that a codec is fitted to, spread evenly over the shards


class Codecs(NamedTuple):
    """What latents are made with. Their fingerprints are part of what names a latent."""

    video: VideoCodec
    audio: AudioCodec
    text: PromptEncoder

    @property
    def fingerprints(self) -> tuple[str, str, str]:
        return self.video.fingerprint(), self.audio.fingerprint(), self.text.fingerprint()


def codecs_for(
    options: EncodeOptions,
    sources: Sequence[ShardIndex],
    digests: Mapping[str, str],
    progress: Progress,
) -> Codecs:
    """The codecs that were named, else those fitted to the shards; saved beside the latents.

    digests: of the shards' manifests. Raises CheckpointError for a folder that holds no codec.
    """
    video, audio, encoder = found_codecs(options, digests)
    if video is None or audio is None:
        progress(0, None, "fit codecs")
        clips = list(_fit_clips(sources, options))
        if video is None:
            fitted_video = PatchPCAVideo.fit(
                (frames for c in clips for frames in c.pictures.values()), options.channels
            )
            first, rest = (_tempered(c) for c in (fitted_video.first, fitted_video.rest))
            video = replace(fitted_video, first=first, rest=rest)
        if audio is None:
            fitted_audio = MelPCAAudio.fit(c.sound for c in clips if c.sound is not None)
            audio = replace(fitted_audio, components=_tempered(fitted_audio.components))
    mark, key = options.output / CODECS, _fit_key(options, digests)
    if _fitted_for(mark) != key:
        with writing(options.output):
            mark.unlink(missing_ok=True)
            saves = (video.save, audio.save, encoder.save)
            for save, folder in zip(saves, _folders(options), strict=True):
                save(folder)
        names = {"video": options.video_codec, "audio": options.audio_codec}
        own = [name for name, given in names.items() if not given]
        commit_bytes(mark, json.dumps({"fitted_for": key, "fitted": own}).encode())
    return Codecs(video, audio, encoder)


def found_codecs(
    options: EncodeOptions, digests: Mapping[str, str]
) -> tuple[VideoCodec | None, AudioCodec | None, PromptEncoder]:
    """Those that were named or have been fitted to these shards; None: it has yet to be fitted."""
    folders = _folders(options)
    fitted = _fitted_for(options.output / CODECS) == _fit_key(options, digests)
    video = options.video_codec or (folders[0] if fitted else None)
    audio = options.audio_codec or (folders[1] if fitted else None)
    return (
        None if video is None else load_video_codec(video),
        None if audio is None else load_audio_codec(audio),
        load_encoder(options.encoder) if options.encoder else HashTextEncoder(),
    )


def _folders(options: EncodeOptions) -> list[Path]:
    return [options.output / name for name in ("video_codec", "audio_codec", "text_encoder")]


def _fit_key(options: EncodeOptions, digests: Mapping[str, str]) -> str:
    told = json.dumps([FIT_VERSION, dict(digests), options.decisive], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _tempered(components: Components) -> Components:
    """Half-way between principal components as they are and whitened ones, at unit mean square.

    Whitened, the many faint channels that hold a room's noise or a texture weigh as much in the
    loss as the few that hold what happens, and synchronisation is learned late or never.
    """
    scale = components.scale
    return replace(components, scale=(scale * scale.mean()).sqrt())


def _fitted_for(mark: Path) -> str:
    try:
        return str(json.loads(mark.read_text())["fitted_for"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fit_clips(sources: Sequence[ShardIndex], options: EncodeOptions) -> Iterator[DecodedClip]:
    """At most FIT_CLIPS clips, spread evenly over all shards; those that fail are left out."""
    names = [(source, key) for source in sources for key in source.keys]
    step = max(1, -(-len(names) // FIT_CLIPS))
    for source, key in names[::step]:
        with contextlib.suppress(MediaError):
            yield read_clip(source, key, options.fps, ((options.height, options.width),))
