"""The caption that measurements alone make: little, but nothing that was not measured."""

from __future__ import annotations

from dataclasses import dataclass

from reelmill.curation.caption.evidence import BRIGHT, DARK, Evidence
from reelmill.curation.caption.structured import Part, compose
from reelmill.datasets.sample import Kind

NOUN = {Kind.VIDEO: "video", Kind.IMAGE: "picture", Kind.AUDIO: "recording"}
CAMERA = {
    "static": "the camera stands still",
    "unsteady": "the camera is held by hand",
    "pan_left": "the camera pans left",
    "pan_right": "the camera pans right",
    "tilt_up": "the camera tilts up",
    "tilt_down": "the camera tilts down",
    "zoom_in": "the camera moves in",
    "zoom_out": "the camera moves out",
    "roll_ccw": "the camera rolls to the left",
    "roll_cw": "the camera rolls to the right",
}
PEOPLE = {"single": "of one person", "multi": "of several people", "none": "without people"}
SOUND = {
    "speech": "someone speaks",
    "singing": "someone sings",
    "music": "music plays",
    "effects": "sounds are heard",
}


@dataclass(frozen=True)
class Captions:
    """The same said three ways (paper section 3.3). removed: what a model claimed in vain, why."""

    short: str
    long: str
    structured: str
    shot_type: str | None = None
    angle: str | None = None
    removed: tuple[str, ...] = ()


def composed(kind: Kind, known: Evidence) -> Captions:
    """Captions from measurements alone."""
    light = ""
    if known.luma is not None and kind is not Kind.AUDIO:
        light = "dark " if known.luma < DARK else "bright " if known.luma > BRIGHT else ""
    who = PEOPLE.get(known.people or "", "")
    short = " ".join(filter(None, (f"A {light}{NOUN[kind]}", who)))
    said = [CAMERA.get(known.camera or "", ""), SOUND.get(known.sound or "", "")]
    if known.sound == "speech" and (known.speakers or 0) > 1:
        said[1] = f"{known.speakers} people are heard to speak"
    elif known.voice == "off_screen" and known.sound == "speech":
        said[1] = "someone speaks who is not seen"
    if known.music and known.sound not in (None, "music"):
        said.append("there is music")
    if known.speech is False and known.sound is None:
        said.append("nobody speaks")
    description = _sentences([short, *said])
    parts = known.parts()
    if known.music:
        parts.append(Part("bgm", "music"))
    if known.sound == "effects":
        parts.append(Part("sfx", "sounds"))
    return Captions(f"{short}.", description + _told(known), compose(description, parts))


def _told(known: Evidence) -> str:
    """What is spoken and written, in words."""
    told = [f'"{line}" is written there.' for line in known.written]
    if known.spoken and (known.speech or known.singing):
        told.append(f'The words are: "{known.spoken}".')
    return "".join(f" {sentence}" for sentence in told)


def _sentences(clauses: list[str]) -> str:
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in clauses if clause)
