"""Whisper through WhisperX: batched transcription of the speech in a sound, from a local folder.

WhisperX (BSD-2) cuts the speech into chunks of at most 30 s and decodes them with CTranslate2. Its
voice detectors are not used: one fetches code from a hub when it is made, and the other unpickles
its weights. The spans come from silero-vad's ONNX file instead.
"""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.curation.models.silero import SpeechProbability
from reelmill.errors import WeightsError

RATE = 16_000
CHUNK_S = 30


@dataclass(frozen=True, slots=True)
class Transcription:
    """text: of all speech. language: Whisper's code; probability None where it was not guessed."""

    text: str
    language: str
    probability: float | None


class Whisper:
    """folder: a Whisper in CTranslate2 form, with its tokenizer.json. Needs no network.

    Raises WeightsError when the folder holds no such model.
    """

    def __init__(self, folder: Path, *, device: str, compute_type: str, beam_size: int):
        # whisperx imports pyannote.audio, which otherwise reports its use over the network, and
        # logs to stdout unless its logger has a handler.
        os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
        logger = logging.getLogger("whisperx")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
            logger.propagate = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from whisperx import asr
        try:
            with redirect_stdout(StringIO()):  # load_model prints
                self._pipeline: Any = asr.load_model(
                    str(folder),
                    device,
                    compute_type=compute_type,
                    asr_options={"beam_size": beam_size},
                    vad_model=_detector(self),
                    local_files_only=True,
                    threads=1,
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise WeightsError(
                f"weights 'whisper' in {folder} cannot be loaded on {device} as {compute_type}: "
                f"{error}. They must be a Whisper converted by CTranslate2."
            ) from error
        self._sung = False
        self._mel = asr.log_mel_spectrogram
        self._most = asr.N_SAMPLES

    def __call__(
        self, sound: np.ndarray, batch_size: int, *, sung: bool = False
    ) -> Transcription | None:
        """Transcribes float32 [n] at 16 kHz; None where there is no speech.

        sung: all of it is looked at, since a detector of speech passes over singing.
        """
        self._sung = sung
        spans = self.spans(sound)
        if not spans:
            return None
        language, probability = self._language(sound[round(spans[0][0] * RATE) :])
        found = self._pipeline.transcribe(sound, batch_size=batch_size, language=language)
        text = " ".join(segment["text"].strip() for segment in found["segments"])
        return Transcription(text.strip(), language, probability)

    def spans(self, sound: np.ndarray) -> list[tuple[float, float]]:
        """Seconds that are looked at, no span longer than a chunk."""
        return _chunks(sound) if self._sung else _spans(sound)

    def _language(self, sound: np.ndarray) -> tuple[str, float | None]:
        """From the 30 s that begin with the first speech."""
        model = self._pipeline.model
        if not model.model.is_multilingual:
            return "en", None
        sound = sound[: self._most]
        bands = model.feat_kwargs.get("feature_size") or 80
        mel = self._mel(sound, n_mels=bands, padding=self._most - len(sound))
        token, probability = model.model.detect_language(model.encode(mel))[0][0]
        return token[2:-2], float(probability)


def _spans(sound: np.ndarray) -> list[tuple[float, float]]:
    """Seconds of speech, no span longer than a chunk."""
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    speech = SpeechProbability()
    speech.push(sound)
    spans = get_speech_timestamps_from_probs(
        speech.finish().tolist(), max_speech_duration_s=CHUNK_S, audio_length_samples=len(sound)
    )
    return [(span["start"] / RATE, span["end"] / RATE) for span in spans]


def _chunks(sound: np.ndarray) -> list[tuple[float, float]]:
    """All of it, in equal parts."""
    seconds = len(sound) / RATE
    count = -(-len(sound) // (CHUNK_S * RATE))
    return [(seconds * i / count, seconds * (i + 1) / count) for i in range(count)]


def _detector(whisper: Whisper) -> Any:
    """A voice detector as WhisperX wants it, which loads nothing from anywhere."""
    from whisperx.diarize import Segment
    from whisperx.vads import Silero, Vad

    class Detector(Vad):
        merge_chunks = staticmethod(Silero.merge_chunks)

        @staticmethod
        def preprocess_audio(audio: np.ndarray) -> np.ndarray:
            return audio

        def __call__(self, audio: dict[str, Any]) -> list[Any]:
            return [Segment(start, end, "") for start, end in whisper.spans(audio["waveform"])]

    return Detector(0.5)
