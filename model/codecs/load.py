"""Opens a saved codec, whatever its kind."""

from __future__ import annotations

from pathlib import Path

from reelmill.errors import CheckpointError
from reelmill.model.codecs.codec import AudioCodec, VideoCodec
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.codecs.saved import codec_kind
from reelmill.model.codecs.vae_audio import VAEAudio
from reelmill.model.codecs.vae_video import VAEVideo


def load_video_codec(folder: Path) -> VideoCodec:
    """Raises CheckpointError when the folder holds no video codec."""
    match codec_kind(folder):
        case PatchPCAVideo.kind:
            return PatchPCAVideo.load(folder)
        case VAEVideo.kind:
            return VAEVideo.load(folder)
        case other:
            raise CheckpointError(
                f"{folder} holds {other!r}; video codecs: PatchPCAVideo, VAEVideo."
            )


def load_audio_codec(folder: Path) -> AudioCodec:
    """Raises CheckpointError when the folder holds no audio codec."""
    match codec_kind(folder):
        case MelPCAAudio.kind:
            return MelPCAAudio.load(folder)
        case VAEAudio.kind:
            return VAEAudio.load(folder)
        case other:
            raise CheckpointError(f"{folder} holds {other!r}; audio codecs: MelPCAAudio, VAEAudio.")
