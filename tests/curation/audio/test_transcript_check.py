"""TranscriptCheck: each mark of an invented transcript, on both sides, and true speech spared."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.curation.audio.sounds import Heard, Shelf

from reelmill.curation.audio.transcript_check import (
    PHRASES,
    TranscriptCheck,
    check,
    compression_ratio,
    repetition,
    stock_share,
)
from reelmill.curation.stage import NotApplicable, NotMeasured

JFK = (
    "And so my fellow Americans ask not what your country can do for you, ask what you can do "
    "for your country."
)


def facts(text: str, speech: float = 0.8, seconds: float = 10.0) -> dict:
    return dict(check({"transcript": text, "speech_ratio": speech, "seconds": seconds}))


def rejected(found: dict) -> set[str]:
    """Reasons by which the stage's bounds reject."""
    bounds = TranscriptCheck().bounds().values()
    return {
        b.reason
        for b in bounds
        if isinstance(found[b.fact], float) and not b.holds(np.array([found[b.fact]]))[0]
    }


@pytest.mark.parametrize(
    "text",
    [
        JFK,
        "Thank you. I think that went well.",
        "No, no, wait.",
        "\u5e0c\u671b\u4f60\u4ee5\u540e\u80fd\u591f\u505a\u7684\u6bd4\u6211\u8fd8\u597d\u5466\u3002",
        "Row, row, row your boat gently down the stream, merrily, merrily, merrily, merrily, "
        "life is but a dream.",
    ],
)
def test_what_people_say_is_kept(text):
    assert rejected(facts(text)) == set()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Thanks for watching!", "invented_transcript"),
        ("Thank you. Thank you.", "invented_transcript"),
        ("Subtitles by the Amara.org community", "invented_transcript"),
        (PHRASES[-1], "invented_transcript"),
        ("I am going to go to the store and get it. " * 12, "compressible_transcript"),
        ("so we go so we go so we go so we go home", "repetitive_transcript"),
        (JFK * 5, "too_many_words_for_the_speech"),
    ],
)
def test_planted_inventions_have_their_own_reason(text, reason):
    assert reason in rejected(facts(text))


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_is_known_however_it_is_written(phrase):
    assert stock_share(f"  {phrase.upper()}. ") == 1


def test_rate_counts_the_time_of_speech_alone():
    assert facts("x" * 80, speech=0.2)["characters_per_second"] == pytest.approx(40)
    assert rejected(facts(JFK, speech=0.2)) == {"too_many_words_for_the_speech"}
    assert isinstance(facts(JFK, speech=0.0)["characters_per_second"], NotApplicable)


@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=8, unique=True),
    st.lists(st.sampled_from("pqrs"), min_size=1, max_size=4, unique=True),
    st.integers(1, 6),
)
def test_repetition_counts_planted_repeats(before, phrase, times):
    words = [*before, *phrase * times]
    truth = len(phrase) * times / len(words) if times >= 3 else 0
    assert repetition(" ".join(words)) == pytest.approx(truth)


@given(st.text())
def test_any_text_has_numbers(text):
    assert 0 <= repetition(text) <= 1
    assert 0 <= stock_share(text) <= 1
    data = text.encode()
    ratio = len(data) / len(zlib.compress(data)) if data else 0
    assert compression_ratio(text) == pytest.approx(ratio)


def test_without_a_transcript_nothing_is_judged():
    absent = NotMeasured("weights 'whisper' absent")
    found = check({"transcript": absent, "speech_ratio": 0.5, "seconds": 3.0})
    assert set(found.values()) == {absent}
    assert {type(v) for v in facts(" ").values()} == {NotApplicable}


def test_the_stage_asks_for_no_media():
    known = {"transcript": JFK, "speech_ratio": 0.9, "seconds": 11.0}
    clip = Heard(np.zeros(16_000, np.float32), known)
    with TranscriptCheck().session(Shelf({})) as measure:
        assert measure([clip]) == [check(known)]
    assert clip.asked == 0


def test_of_singing_all_the_time_counts():
    facts = {"transcript": "la " * 100, "speech_ratio": 0.1, "seconds": 10.0}
    assert check(facts)["characters_per_second"] == pytest.approx(299)
    assert check({**facts, "sound_class": "singing"})["characters_per_second"] == pytest.approx(
        29.9
    )
    assert check({**facts, "speech_ratio": 0.0, "sound_class": "singing"})[
        "characters_per_second"
    ] == pytest.approx(29.9)
