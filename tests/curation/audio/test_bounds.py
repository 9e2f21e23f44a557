"""Every bound on a fact of sound or lips, as a table: what is kept at it, and right beside it."""

from __future__ import annotations

import numpy as np
import pytest

from reelmill.curation.audio import (
    bandwidth,
    channels,
    chunks,
    clipping,
    event_sync,
    loudness,
    mos,
    noise,
    noise_in_class,
    speakers,
    speech_rating,
    sphinx_transcript,
    transcript,
    transcript_check,
    true_peak,
    voice,
    word_times,
)
from reelmill.curation.lips.av_sync import AVSync
from reelmill.curation.recipes import KNOWN

# (stage, bound, value, kept below it, at it, above it)
TABLE = [
    (loudness.Loudness(), "min_volume", -60.0, False, True, True),
    (true_peak.TruePeak(), "max_true_peak", -1.0, True, True, False),
    (clipping.Clipping(), "max_clipping_ratio", 0.01, True, True, False),
    (channels.Channels(), "min_correlation", -0.8, False, True, True),
    (channels.Channels(), "max_dc_offset", 0.02, True, True, False),
    (bandwidth.Bandwidth(), "min_bandwidth", 5000.0, False, False, True),
    (noise.Noise(), "min_snr", 5.0, False, True, True),
    (noise_in_class.NoiseInClass(), "min_snr", 5.0, False, True, True),
    (voice.Voice(), "max_silence_ratio", 0.2, True, False, False),
    (mos.MOS(), "min_overall", 2.0, False, True, True),
    (speech_rating.NISQA(), "min_overall", 2.0, False, True, True),
    (speech_rating.SQUIM(), "min_stoi", 0.8, False, True, True),
    (speech_rating.SQUIM(), "min_pesq", 2.0, False, True, True),
    (speech_rating.SQUIM(), "min_si_sdr", 5.0, False, True, True),
    (speech_rating.UTMOS(), "min_utmos", 2.0, False, True, True),
    (transcript.Transcript(), "min_language_probability", 0.8, False, True, True),
    (transcript_check.TranscriptCheck(), "max_repetition", 0.5, True, False, False),
    (transcript_check.TranscriptCheck(), "max_compression", 2.4, True, True, False),
    (transcript_check.TranscriptCheck(), "max_stock_phrase", 1.0, True, False, False),
    (transcript_check.TranscriptCheck(), "max_rate", 40.0, True, True, False),
    (sphinx_transcript.SphinxTranscript(), "max_outside", 0.2, True, True, False),
    (chunks.Chunks(), "min_seconds", 1.0, False, True, True),
    (word_times.WordTimes(), "min_score", 0.2, False, True, True),
    (word_times.WordTimes(), "max_unspoken", 0.5, True, True, False),
    (speakers.Speakers(), "max_speakers", 2.0, True, True, False),
    (event_sync.EventSync(), "max_shift", 0.12, True, True, False),
    (AVSync(), "max_offset", 3.0, True, True, False),
    (AVSync(), "min_confidence", 1.5, False, False, True),
    (AVSync(), "min_volume", -60.0, False, True, True),
]
OFF = {
    "TruePeak.max_true_peak", "Bandwidth.min_bandwidth", "Voice.max_silence_ratio",
    "SQUIM.min_stoi", "SQUIM.min_pesq", "Transcript.min_language_probability",
    "SphinxTranscript.max_outside", "Chunks.min_seconds", "WordTimes.min_score",
    "Speakers.max_speakers",
}  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "name", "value", "below", "at", "above"),
    TABLE,
    ids=lambda x: getattr(x, "name", None),
)
def test_what_is_kept_at_a_bound_and_beside_it(stage, name, value, below, at, above):
    assert stage.bounds()[name].value == (None if f"{stage.name}.{name}" in OFF else value)
    bound = stage.with_field(name, value).bounds()[name]
    places = np.array([np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf), np.nan])
    assert bound.holds(places).tolist() == [below, at, above, True]
    assert bound.reason
    assert bound.fact in {fact.name for fact in stage.adds}


def test_the_table_has_every_bound():
    there = {(stage.name, name) for stage, name, *_ in TABLE}
    folders = ("reelmill.curation.audio.", "reelmill.curation.lips.")
    for stage in KNOWN.values():
        if type(stage).__module__.startswith(folders):
            found = {(stage.name, name) for name, b in stage.bounds().items() if b.fact}
            assert found <= there, stage.name
