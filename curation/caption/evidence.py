"""What was measured of a clip, as far as its caption may say it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from reelmill.curation.caption.structured import Part, plain, same_words, says
from reelmill.curation.stage import Facts, NoValue

# Facts that captions are made from, where earlier stages add them.
READS = (
    "seconds",
    "camera",
    "camera_speed",
    "people",
    "voice",
    "speech_ratio",
    "sound_class",
    "music_score",
    "transcript",
    "sphinx_transcript",
    "speakers",
    "speaker_turns",
    "text",
    "luma",
)
DARK, BRIGHT = 50.0, 190.0  # of 255, mean luma


@dataclass(frozen=True)
class Evidence:
    """None: not known. spoken: the words of a transcript; singing: whether they are sung.
    turns: the same words, by who says them in turn. speakers: how many people do.

    written: lines of text that were read in the picture. music: whether music was measured.
    """

    spoken: str | None = None
    turns: tuple[str, ...] = ()
    speakers: int | None = None
    singing: bool | None = None
    speech: bool | None = None
    music: bool | None = None
    sound: str | None = None
    written: tuple[str, ...] = ()
    camera: str | None = None
    people: str | None = None
    voice: str | None = None
    luma: float | None = None

    @classmethod
    def of(cls, facts: Facts, min_music: float) -> Evidence:
        """min_music: the score of music from which on there is some."""
        known = {name: facts[name] for name in READS if name in facts}
        values = {name: v for name, v in known.items() if not isinstance(v, NoValue)}
        score, ratio, sound = (
            values.get(n) for n in ("music_score", "speech_ratio", "sound_class")
        )
        spoken = values.get("transcript", values.get("sphinx_transcript"))
        text, luma = values.get("text"), values.get("luma")
        speakers = values.get("speakers")
        return cls(
            spoken=plain(str(spoken)) or None if spoken is not None else None,
            turns=_turns(values.get("speaker_turns"), str(spoken)),
            speakers=None if speakers is None else int(speakers),
            singing=None if sound is None else sound == "singing",
            speech=None if ratio is None else float(ratio) > 0,
            music=True
            if sound == "music"
            else None
            if score is None
            else float(score) >= min_music,
            sound=None if sound is None else str(sound),
            written=tuple(filter(None, map(plain, str(text or "").split("\n")))),
            camera=_text(values.get("camera")),
            people=_text(values.get("people")),
            voice=_text(values.get("voice")),
            luma=None if luma is None else float(luma),
        )

    def parts(self) -> list[Part]:
        """What measurements alone put into a caption."""
        found = [Part("text", line) for line in self.written]
        if self.spoken and self.singing:
            found.append(Part("singing", self.spoken))
        elif self.spoken and self.speech:
            found += [Part("dialogue", words) for words in self.turns or (self.spoken,)]
        return found

    def denies(self, part: Part) -> str | None:
        """Why a part that a model claims may not stand in the caption; None: it may."""
        if part.tag == "bgm":
            return None if self.music else "no music was measured"
        if part.tag == "sfx":
            return "no sound was measured" if self.sound is None else None
        if part.tag == "text":
            shown = " ".join(self.written)
            return None if self.written and says(shown, part.words) else "it was not read there"
        if part.tag == "singing" and not self.singing:
            return "nobody was heard to sing"
        if part.tag == "dialogue" and (self.singing or not self.speech):
            return "nobody was heard to speak"
        if self.spoken is None:
            return "there is no transcript"
        return None if same_words(part.words, self.spoken) else "its words are not the transcript's"


def _turns(value: object, spoken: str) -> tuple[str, ...]:
    """Words of each turn; none where they are not, all together, the words spoken."""
    if value is None:
        return ()
    found = tuple(filter(None, (plain(str(words)) for _, words in json.loads(str(value)))))
    return found if same_words(" ".join(found), spoken) else ()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
