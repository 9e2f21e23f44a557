"""TranscriptCheck: is a transcript one that can be trusted? Each doubt has its own reason."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from reelmill.curation.audio.transcript import is_sung
from reelmill.curation.stage import (
    AUDIBLE,
    Bound,
    ClipMedia,
    ClipStage,
    Fact,
    Facts,
    NotApplicable,
    NoValue,
    WeightsStore,
    at_most,
    below,
)

# What Whisper says of silence and music: it learned from subtitles of videos.
PHRASES = (
    "thank you",
    "thanks for watching",
    "thank you for watching",
    "thank you so much for watching",
    "thanks for listening",
    "please subscribe",
    "please subscribe to my channel",
    "like and subscribe",
    "see you next time",
    "see you in the next video",
    "bye bye",
    "subtitles by the amara.org community",
    "sous titres realises par la communaute d'amara.org",
    "untertitel der amara.org community",
    "untertitelung des zdf 2020",
    "subtitulos realizados por la comunidad de amara.org",
    "\u8c22\u8c22\u89c2\u770b",
    "\u8bf7\u4e0d\u541d\u70b9\u8d5e \u8ba2\u9605 \u8f6c\u53d1 \u6253\u8d4f\u652f\u6301"
    "\u660e\u955c\u4e0e\u70b9\u70b9\u680f\u76ee",
    "\u3054\u8996\u8074\u3042\u308a\u304c\u3068\u3046\u3054\u3056\u3044\u307e\u3057\u305f",
)
_NAMES = ("repetition", "compression_ratio", "stock_phrase", "characters_per_second")
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['.]\w+)*")
_LONGEST = 4  # words of a phrase that may repeat


def plain(text: str) -> str:
    """Lower case, without accents on the phrases' letters, punctuation and double spaces."""
    import unicodedata

    flat = unicodedata.normalize("NFKD", text.replace("\u2019", "'").casefold())
    bare = unicodedata.normalize("NFC", "".join(c for c in flat if not _accent(c)))
    return " ".join(re.sub(r"[^\w'.]+|\.(?=\s|$)", " ", bare).split())


def _accent(character: str) -> bool:
    return "\u0300" <= character <= "\u036f"


def repetition(text: str) -> float:
    """Share of words that stand in a phrase of 1 to 4 words said three times or more in a row."""
    words = _WORD.findall(text.casefold())
    inside = [False] * len(words)
    for size in range(1, _LONGEST + 1):
        run = 0  # words in a row that equal the one `size` before them
        for i in range(size, len(words) + 1):
            if i < len(words) and words[i] == words[i - size]:
                run += 1
                continue
            if run >= 2 * size:
                inside[i - run - size : i] = [True] * (run + size)
            run = 0
    return sum(inside) / len(words) if words else 0.0


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of it under zlib, as OpenAI's Whisper has it."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


_STOCK = frozenset(plain(phrase) for phrase in PHRASES)


def stock_share(text: str) -> float:
    """Share of a text's sentences that are stock phrases, 0 without any."""
    sentences = [plain(s) for s in re.split(r"(?<=[.!?])\s+|[\u3002\uff01\uff1f]", text)]
    sentences = [s for s in sentences if s]
    if plain(text) in _STOCK:
        return 1.0
    return sum(s in _STOCK for s in sentences) / len(sentences) if sentences else 0.0


@dataclass(frozen=True, kw_only=True)
class TranscriptCheck(ClipStage):
    """Marks of invented transcripts. It reads the transcript and how long speech lasts, no media.

    Compression above 2.4 is Whisper's own bound (Radford et al. 2022, section 4.5). More than 40
    characters for each second of speech, or of a clip of singing, is what NeMo Curator calls a
    hallucination; words that lie where the VAD hears no speech show in the same figure, since the
    speech is then too short for them. A clip all of whose sentences are stock phrases, or half of
    whose words repeat, is rejected; those two numbers are ours. How sure the language is,
    Transcript itself judges.
    """

    kinds: ClassVar = AUDIBLE
    version: ClassVar = 2
    needs: ClassVar = ("transcript", "speech_ratio", "seconds")
    reads: ClassVar = ("sound_class",)
    adds: ClassVar = (
        Fact("repetition", "", "Share of words in phrases said three times in a row."),
        Fact("compression_ratio", "", "Bytes over compressed bytes.", 0, 5),
        Fact("stock_phrase", "", "Share of sentences that models invent over silence."),
        Fact("characters_per_second", "1/s", "Characters per second of speech.", 0, 60),
    )
    paper: ClassVar = "section 3.4"
    max_repetition: Bound = below(0.5, "repetition", "repetitive_transcript")
    max_compression: Bound = at_most(2.4, "compression_ratio", "compressible_transcript")
    max_stock_phrase: Bound = below(1.0, "stock_phrase", "invented_transcript")
    max_rate: Bound = at_most(40.0, "characters_per_second", "too_many_words_for_the_speech")

    @contextmanager
    def session(
        self, weights: WeightsStore
    ) -> Iterator[Callable[[Sequence[ClipMedia]], list[Facts]]]:
        yield lambda clips: [check(clip.facts) for clip in clips]


def check(facts: Facts) -> Facts:
    """The facts of TranscriptCheck, from those it needs."""
    text, speech, seconds = (facts[name] for name in TranscriptCheck.needs)
    for fact in (text, speech, seconds):
        if isinstance(fact, NoValue):
            return dict.fromkeys(_NAMES, fact)
    assert isinstance(text, str)
    if not text.strip():
        return dict.fromkeys(_NAMES, NotApplicable("no words"))
    share = 1.0 if is_sung(facts) else float(speech)  # type: ignore[arg-type]
    spoken = share * float(seconds)  # type: ignore[arg-type]
    return {
        "repetition": repetition(text),
        "compression_ratio": compression_ratio(text),
        "stock_phrase": stock_share(text),
        "characters_per_second": len(text.strip()) / spoken
        if spoken > 0
        else NotApplicable("no speech"),
    }
