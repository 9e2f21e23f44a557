"""What models say of a clip: asked, bound to the clip, and held against what was measured.

The question names the clip by a digest of its contents, and the answer must repeat it: an answer
that was swapped with another's is caught (cosmos-curate gave captions to the wrong videos until
1.2.0). The same long caption for two clips is caught too (LVD-2M has one of 4,000 clips).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from reelmill.curation.caption.compose import Captions
from reelmill.curation.caption.endpoint import Endpoint
from reelmill.curation.caption.evidence import Evidence
from reelmill.curation.caption.shared_log import SharedLog
from reelmill.curation.caption.structured import Part, compose, plain, take_apart

MAX_WORDS = 4000  # characters of any one field
AUDIO_RATE = 16_000
SEE = """You describe {what} for a dataset. {shown} Measured facts, which are true:
{facts}
Answer with one JSON object and nothing else:
{{"clip": "{clip}", "short": one sentence, "long": a paragraph of all that is to be seen and how it
moves, "shot_type": close-up, medium, wide or another, "angle": eye level, low, high or another}}
Copy the value of "clip". Do not speak of sound, and do not guess what cannot be seen."""
HEAR = """You describe a recording for a dataset. Measured facts, which are true:
{facts}
Answer with one JSON object and nothing else:
{{"clip": "{clip}", "sound": one sentence of what is to be heard, "sfx": list of sound effects,
"bgm": the music in a few words, or null}}
Copy the value of "clip". Do not quote speech, and do not guess what cannot be heard."""


class Repeats:
    """Finds long captions that were given before, to another clip, by any worker of any run."""

    def __init__(self, path: Path | None = None) -> None:
        self._clip_of = SharedLog(path)

    def check(self, clip: str, text: str) -> None:
        """Raises ValueError for another clip's caption."""
        digest = hashlib.sha256(plain(text).casefold().encode()).hexdigest()
        first = self._clip_of.claim(digest, clip)
        if first != clip:
            raise ValueError(f"it repeats the caption of clip {first}")


def binding(clip: str, model: str) -> str:
    """What the answer about a clip must carry. A clip's id holds the digest of its contents."""
    return hashlib.sha256(f"{clip}\n{model}".encode()).hexdigest()[:16]


def seen(
    endpoint: Endpoint, clip: str, what: str, frames: np.ndarray, known: Evidence, repeats: Repeats
) -> Mapping[str, str]:
    """What a model sees in frames, uint8 RGB [n, h, w, 3]: short, long, shot_type, angle."""
    many = f"These are {len(frames)} frames of it, in order." if len(frames) > 1 else ""
    name = binding(clip, endpoint.options.model)
    text = SEE.format(what=what, shown=many, facts=facts_text(known), clip=name)

    def read(answer: str) -> Mapping[str, str]:
        told = answer_for(name, answer)
        found = {key: text_field(told, key, needed=key in ("short", "long")) for key in _SEEN}
        repeats.check(clip, found["long"])
        return found

    return endpoint.ask([{"type": "text", "text": text}, *map(_picture, frames)], read)


_SEEN = ("short", "long", "shot_type", "angle")


def heard(
    endpoint: Endpoint, clip: str, samples: np.ndarray, known: Evidence
) -> tuple[str, list[Part]]:
    """What a model hears in mono float32 [samples] at 16 kHz: a sentence, and effects and music."""
    name = binding(clip, endpoint.options.model)
    text = HEAR.format(facts=facts_text(known), clip=name)

    def read(answer: str) -> tuple[str, list[Part]]:
        told = answer_for(name, answer)
        effects = told.get("sfx") or []
        if not (isinstance(effects, list) and all(isinstance(one, str) for one in effects)):
            raise ValueError("its sfx are no list of texts")
        parts = [Part("sfx", plain(one)[:MAX_WORDS]) for one in effects if plain(one)]
        if music := text_field(told, "bgm"):
            parts.append(Part("bgm", music))
        return text_field(told, "sound"), parts

    return endpoint.ask([{"type": "text", "text": text}, sound_part(samples)], read)


def merged(
    sight: Mapping[str, str] | None, sound: tuple[str, list[Part]] | None, known: Evidence
) -> Captions:
    """One caption of what is seen and heard, with only what measurements do not deny."""
    parts: list[Part] = []
    described: dict[str, str] = {}
    for key, text in {**(sight or {}), "sound": sound[0] if sound else ""}.items():
        described[key], claimed = take_apart(text)
        parts += claimed
    parts += sound[1] if sound else []
    kept, removed = known.parts(), []
    for part in parts:
        why = known.denies(part)
        if why is not None:
            removed.append(f"{part.tag} {part.words[:80]!r}: {why}")
        elif part.tag in ("sfx", "bgm") and part not in kept:
            kept.append(part)
    long = " ".join(filter(None, (described.get("long"), described["sound"])))
    shot = [described[key] for key in ("shot_type", "angle") if described.get(key)]
    told = " ".join(filter(None, (long, f"Shot: {', '.join(shot)}." if shot else "")))
    return Captions(
        short=described.get("short") or described["sound"],
        long=long,
        structured=compose(told, kept),
        shot_type=described.get("shot_type") or None,
        angle=described.get("angle") or None,
        removed=tuple(removed),
    )


def facts_text(known: Evidence) -> str:
    """Measured facts as lines of a question."""
    yes = {True: "yes", False: "no"}
    lines = {
        "camera": known.camera,
        "people": known.people,
        "kind of sound": known.sound,
        "speech": None if known.speech is None else yes[known.speech],
        "music": None if known.music is None else yes[known.music],
        "people heard to speak": None if known.speakers is None else str(known.speakers),
        "words spoken": known.spoken,
        "text in the picture": " / ".join(known.written) if known.written else None,
    }
    told = [f"- {name}: {value}" for name, value in lines.items() if value is not None]
    return "\n".join(told) or "- none"


def answer_for(name: str, answer: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises ValueError for another clip's, and for no object."""
    found = re.search(r"\{.*\}", answer, re.DOTALL)
    try:
        told = json.loads(found[0]) if found else None
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"its answer is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"its answer holds no JSON object: {plain(answer)[:40]!r}")
    if told.get("clip") != name:
        raise ValueError(f"its answer is about another clip: {str(told.get('clip'))[:40]!r}")
    return told


def text_field(told: Mapping[str, Any], key: str, *, needed: bool = False) -> str:
    """One text of an answer, bounded. Raises ValueError."""
    value = told.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {key} is no text")
    text = " ".join((value or "").split())[:MAX_WORDS]
    if needed and not text:
        raise ValueError(f"it gives no {key}")
    return text


def _picture(frame: np.ndarray) -> dict[str, Any]:
    jpeg = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def sound_part(samples: np.ndarray) -> dict[str, Any]:
    """Mono float32 [samples] at AUDIO_RATE as a part of a question."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(AUDIO_RATE)
        out.writeframes(pcm.tobytes())
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def spread(frames: np.ndarray, count: int) -> np.ndarray:
    """At most `count` frames, evenly spaced."""
    places = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    return np.asarray(frames[places])
