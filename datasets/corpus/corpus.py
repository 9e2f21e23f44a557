"""Makes the corpus: small encoded files of every kind that matters, and truth.json beside them.

    video   clean in mp4, mkv, mov, constant and variable rate; several shots; no sound
    copies  the same bytes; re-encoded, half size, letterboxed, trimmed, mirrored
    defects of picture and of sound, one per file
    broken  cut short, empty, named as what they are not
    training/   clean clips for the demo model

A caption lies as `name.txt` beside every file that has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from reelmill.datasets.corpus import defects, speech, training_set
from reelmill.datasets.corpus.film import RATE, Take, film
from reelmill.datasets.corpus.render import render_scene
from reelmill.datasets.corpus.scene import Scene, random_scene
from reelmill.datasets.corpus.sound import scene_audio
from reelmill.datasets.corpus.truth import (
    Bounce,
    CorpusTruth,
    Defect,
    Expected,
    FileTruth,
    fingerprint,
    read_truth,
    write_truth,
)
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.sample import Kind, Outcome
from reelmill.datasets.workspace import writing
from reelmill.errors import SourceError, UsageError

SIZES = {"small": (256, 160), "large": (512, 320)}
DRIFT = 0.2  # of the width per second
CONTRASTING = ("sand", "navy", "olive", "purple")
FAST_AAC = {"aac_coder": "fast"}
KEPT = Expected(outcome=Outcome.KEPT)


def make_corpus(
    folder: Path,
    *,
    seed: int = 0,
    training_clips: int = 0,
    training_stills: int = 0,
    training_sounds: int = 0,
    size: str = "small",
    done: Callable[[str], None] = lambda name: None,
) -> CorpusTruth:
    """Writes the corpus and truth.json into `folder`; the same arguments give the same bytes.

    training_clips: how many clean 4 s clips, 96x96 at 16 fps with sound, to add in `training/`.
    training_stills, training_sounds: pictures of that size, and sounds of 15 s, likewise.
    size: `small` (256x160) or `large` (512x320). done: called with the name of each file.
    A corpus of the same arguments that is there unaltered is left as it is. Raises UsageError for
    an unknown size, WorkspaceError when the disk refuses.
    """
    if size not in SIZES:
        raise UsageError(f"corpus size {size!r}: use one of {', '.join(SIZES)}.")
    added = (training_clips, training_stills, training_sounds)
    if min(*added, seed) < 0:
        raise UsageError(f"seed ({seed}) and training clips, stills, sounds {added} are 0 or more.")
    spoken, note = speech.speaker()
    blank = CorpusTruth(
        seed=seed,
        size=size,
        training_clips=training_clips,
        training_stills=training_stills,
        training_sounds=training_sounds,
        speech=spoken,
        speech_note=note,
        files=(),
    )
    found = _unaltered(folder, blank)
    if found is not None:
        return found
    maker = _Maker(folder, seed, SIZES[size], done)
    maker.clean()
    maker.copies()
    maker.picture_defects()
    maker.sound_defects()
    maker.stills()
    maker.sounds()
    maker.broken()
    if spoken:
        maker.spoken()
    maker.training(*added)
    truth = blank.model_copy(update={"files": tuple(sorted(maker.files, key=lambda f: f.name))})
    write_truth(folder, truth)
    return truth


def _unaltered(folder: Path, asked: CorpusTruth) -> CorpusTruth | None:
    try:
        found = read_truth(folder)
        if found.model_copy(update={"files": ()}) != asked:
            return None
        whole = all(fingerprint(folder / f.name) == (f.sha256, f.bytes) for f in found.files)
    except (SourceError, OSError):
        return None
    return found if whole else None


def _squeezed(bounces: tuple[Bounce, ...], bar: float) -> tuple[Bounce, ...]:
    """Where they are seen when bars of that share of the height press the picture together."""
    return tuple(b.model_copy(update={"y": round(bar + b.y * (1 - 2 * bar), 6)}) for b in bounces)


class _Maker:
    def __init__(self, folder: Path, seed: int, size: tuple[int, int], done: Callable[[str], None]):
        self.folder, self.seed, self.size, self.done = folder, seed, size, done
        self.files: list[FileTruth] = []
        self.drawn = 0

    # -- what the groups are made with ---------------------------------------------------------

    def scene(self, seconds: float = 4.0, **options: Any) -> Scene:
        """The next scene: over a drifting background, so that the whole picture moves."""
        self.drawn += 1
        options = {"balls": 1 + self.drawn % 2, "drift": DRIFT * self.size[0]} | options
        return random_scene(
            self.seed * 100_003 + self.drawn, seconds=seconds, size=self.size, **options
        )

    def take(self, seconds: float = 4.0, fps: Fraction | int = 24) -> Take:
        return film([self.scene(seconds)], Fraction(fps))

    def video(
        self,
        name: str,
        take: Take,
        *,
        expected: Expected = KEPT,
        defect: Defect | None = None,
        duplicate_of: str | None = None,
        bounces: tuple[Bounce, ...] | None = None,
        transcript: str | None = None,
        sound: bool = True,
        training: bool = False,
        **options: Any,
    ) -> None:
        timing: dict[str, Any] = (
            {"pts": take.pts_ms, "time_base": Fraction(1, 1000)}
            if take.pts_ms is not None
            else {"fps": take.fps}
        )
        if "audio_codec" not in options:
            options["audio_options"] = FAST_AAC
        options.setdefault("crf", 20)
        voice = take.sound if sound else None
        write_video(
            self.folder / name, take.frames, audio=voice, audio_rate=RATE, **timing, **options
        )
        count, height, width = take.frames.shape[:3]
        self.add(
            name,
            kind=Kind.VIDEO,
            expected=expected,
            defects=(defect,) if defect else (),
            duplicate_of=duplicate_of,
            caption=take.caption,
            transcript=transcript,
            width=width,
            height=height,
            frames=count,
            fps=str(take.fps) if take.pts_ms is None else None,
            pts_ms=take.pts_ms,
            seconds=round(count / take.fps if take.pts_ms is None else take.seconds, 6),
            rate=RATE if sound else None,
            channels=len(take.sound) if sound else None,
            shots=take.shots,
            bounces=take.bounces if bounces is None else bounces,
            training=training,
        )

    def add(self, name: str, **known: Any) -> None:
        """Notes a file that has been written, and writes its caption beside it."""
        path = self.folder / name
        digest, size = fingerprint(path)
        known = {k: float(v) if isinstance(v, Fraction) else v for k, v in known.items()}
        file = FileTruth(name=name, sha256=digest, bytes=size, **known)
        if file.caption is not None:
            with writing(path):
                path.with_suffix(".txt").write_text(file.caption + "\n", encoding="utf-8")
        self.files.append(file)
        self.done(name)

    def copy_bytes(self, name: str, data: bytes, **known: Any) -> None:
        with writing(self.folder / name):
            (self.folder / name).write_bytes(data)
        self.add(name, **known)

    def reject(self, name: str, take: Take, defect: Defect, **options: Any) -> None:
        expected = Expected(outcome=Outcome.REJECTED, reason=defect.kind)
        self.video(name, take, expected=expected, defect=defect, **options)

    # -- the groups ----------------------------------------------------------------------------

    def clean(self) -> None:
        self.origin = self.take(5.0)
        self.video("clean_origin.mp4", self.origin)
        self.video("clean_mkv.mkv", self.take(4.0, 25))
        pcm = self.take(3.5, 30)
        self.video("clean_pcm.mov", pcm, audio_codec="pcm_s16le")
        self.video("clean_ntsc.mp4", self.take(4.0, Fraction(30_000, 1001)))
        self.video("clean_mute.mp4", self.take(3.5), sound=False)
        self.video("clean_vfr.mp4", film([self.scene(4.0)], Fraction(24), variable=self.seed))
        for name, lengths, variable in (
            ("shots_three.mp4", (3.0, 2.5, 3.25), None),
            ("shots_four.mkv", (2.25, 2.5, 2.0, 2.75), None),
            ("shots_vfr.mp4", (2.5, 3.0), self.seed + 1),
        ):
            scenes = [
                self.scene(length, background=colour)
                for length, colour in zip(lengths, CONTRASTING, strict=False)
            ]
            self.video(name, film(scenes, Fraction(24), variable=variable))

    def copies(self) -> None:
        take, origin = self.origin, "clean_origin.mp4"
        width, height = self.size
        same = next(f for f in self.files if f.name == origin)
        self.copy_bytes(
            "copy_exact.mp4",
            (self.folder / origin).read_bytes(),
            **{
                **same.model_dump(exclude={"name", "sha256", "bytes"}),
                "expected": Expected(outcome=Outcome.REJECTED, reason="exact_duplicate"),
                "defects": (Defect(kind="exact_duplicate"),),
                "duplicate_of": origin,
            },
        )
        skip = 24
        trimmed = take.last(skip)
        later = tuple(
            b.model_copy(update={"t": round(b.t - float(skip / take.fps), 6)})
            for b in take.bounces
            if b.t >= float(skip / take.fps)
        )
        mirror = tuple(
            b.model_copy(update={"x": round(1 - b.x, 6), "pan": -b.pan}) for b in take.bounces
        )
        half = replace(take, frames=defects.resized(take.frames, width // 2, height // 2))
        bars = replace(take, frames=defects.letterboxed(take.frames, height // 8))
        flipped = replace(take, frames=defects.mirrored(take.frames), sound=take.sound[::-1])
        self._edit("copy_reencoded.mp4", take, "reencoded", crf=32)
        self._edit("copy_half.mp4", half, "half_size")
        lower = _squeezed(take.bounces, height // 8 / height)
        self._edit("copy_letterboxed.mp4", bars, "letterboxed", bounces=lower)
        self._edit("copy_trimmed.mp4", trimmed, "trimmed", bounces=later)
        self._edit("copy_mirrored.mp4", flipped, "mirrored", bounces=mirror)

    def _edit(self, name: str, take: Take, edit: Any, **options: Any) -> None:
        defect = Defect(kind="near_duplicate", edit=edit)
        self.reject(name, take, defect, duplicate_of="clean_origin.mp4", **options)

    def picture_defects(self) -> None:
        width, height = self.size
        take = self.take()
        dark = replace(take, frames=defects.black(take.frames))
        self.reject(
            "black.mp4", dark, Defect(kind="black", frames=(0, len(take.frames))), bounces=()
        )

        take = self.take()
        first, last = len(take.frames) // 4, len(take.frames) * 3 // 4
        span = (float(first / take.fps), float(last / take.fps))
        seen = tuple(b for b in take.bounces if not span[0] <= b.t < span[1])
        held = replace(take, frames=defects.frozen(take.frames, first, last))
        frozen = Defect(kind="frozen", frames=(first, last), seconds=span)
        self.reject("frozen.mp4", held, frozen, bounces=seen)

        box = defects.logo_box(width, height)
        take = self.take()
        marked = replace(take, frames=defects.logo(take.frames, box))
        self.reject("logo.mp4", marked, Defect(kind="logo", box=box))

        bar = height // 4
        take = self.take()
        framed = replace(take, frames=defects.letterboxed(take.frames, bar))
        inner = (0, bar, width, height - bar)
        lower = _squeezed(take.bounces, bar / height)
        self.reject("letterbox.mp4", framed, Defect(kind="letterbox", box=inner), bounces=lower)

        take = self.take()
        bright = replace(take, frames=defects.overexposed(take.frames))
        self.reject("overexposed.mp4", bright, Defect(kind="overexposed"))
        take = self.take()
        dim = replace(take, frames=defects.underexposed(take.frames))
        self.reject("underexposed.mp4", dim, Defect(kind="underexposed"))
        take = self.take()
        sigma = width / 40
        soft = replace(take, frames=defects.blurred(take.frames, sigma))
        self.reject("blurred.mp4", soft, Defect(kind="blurred", value=sigma))

    def sound_defects(self) -> None:
        take = self.take()
        loud = replace(take, sound=defects.clipped(take.sound, 0.1))
        clipped = Defect(kind="clipped", value=0.1)
        self.reject("clipped.mov", loud, clipped, audio_codec="pcm_s16le")
        take = self.take()
        hiss = replace(take, sound=defects.noisy(take.sound, 0.0, self.seed))
        self.reject("noisy.mp4", hiss, Defect(kind="noisy", value=0.0))
        take = self.take()
        quiet = replace(take, sound=np.zeros_like(take.sound))
        self.reject("silent.mp4", quiet, Defect(kind="silent", seconds=(0.0, take.seconds)))
        take = self.take(5.0)
        late = replace(take, sound=defects.shifted(take.sound, RATE // 5))
        self.reject("shifted.mp4", late, Defect(kind="shifted", value=0.2))

    def stills(self) -> None:
        width, height = 640, 480
        for name, soft in (("still_one.jpg", 0.0), ("still_two.jpg", 0.0), ("still_soft.jpg", 9.0)):
            scene = replace(self.scene(), width=width, height=height)
            picture = render_scene(scene, times=np.zeros(1))
            if soft:
                picture = defects.blurred(picture, soft)
            write_image(self.folder / name, picture[0])
            defect = Defect(kind="blurred", value=soft)
            self._still(
                name,
                scene.caption,
                picture[0],
                expected=Expected(outcome=Outcome.REJECTED, reason="blurred") if soft else KEPT,
                defects=(defect,) if soft else (),
            )
            if name == "still_one.jpg":
                small = defects.resized(picture, width // 2, height // 2)[0]
                write_image(self.folder / "still_copy.jpg", small, quality=70)
                self._still(
                    "still_copy.jpg",
                    scene.caption,
                    small,
                    expected=Expected(outcome=Outcome.REJECTED, reason="near_duplicate"),
                    defects=(Defect(kind="near_duplicate", edit="half_size"),),
                    duplicate_of=name,
                )

    def _still(self, name: str, caption: str, picture: np.ndarray, **known: Any) -> None:
        height, width = picture.shape[:2]
        known = {"kind": Kind.IMAGE, "frames": 1, "expected": KEPT} | known
        self.add(name, caption=caption, width=width, height=height, **known)

    def sounds(self) -> None:
        kinds: tuple[tuple[str, Defect | None], ...] = (
            ("tones_one.flac", None),
            ("tones_two.flac", None),
            ("tones_noisy.flac", Defect(kind="noisy", value=0.0)),
            ("tones_silent.flac", Defect(kind="silent", seconds=(0.0, 5.0))),
        )
        for name, defect in kinds:
            scene = self.scene(5.0, balls=2, bounces_per_second=(3.0, 4.0))
            sound = scene_audio(scene, RATE)
            if defect is not None:
                noise = defects.noisy(sound, 0.0, self.drawn)
                sound = noise if defect.kind == "noisy" else np.zeros_like(sound)
            write_audio(self.folder / name, sound, RATE)
            rejected = Expected(outcome=Outcome.REJECTED, reason=defect.kind) if defect else KEPT
            self._sound(
                name,
                sound,
                expected=rejected,
                defects=(defect,) if defect else (),
                bounces=scene.bounces,
            )

    def _sound(self, name: str, sound: np.ndarray, **known: Any) -> None:
        seconds = round(sound.shape[1] / RATE, 6)
        known = {"kind": Kind.AUDIO, "expected": KEPT} | known
        self.add(name, seconds=seconds, rate=RATE, channels=len(sound), **known)

    def broken(self) -> None:
        failed = Expected(outcome=Outcome.FAILED, reason="corrupt")
        corrupt = Defect(kind="corrupt")
        index_last: dict[str, Any] = {"container_options": {"movflags": ""}}
        for name, share, options in (
            ("broken_short.mp4", 0.6, {}),
            ("broken_headless.mp4", 0.7, index_last),
        ):
            self.video(name, self.take(), expected=failed, defect=corrupt, bounces=(), **options)
            self._cut_short(name, share)
        scene = self.scene(4.0)
        name = "broken_tones.flac"
        sound = scene_audio(scene, RATE)
        write_audio(self.folder / name, sound, RATE)
        self._sound(name, sound, expected=failed, defects=(corrupt,))
        self._cut_short(name, 0.5)
        self.copy_bytes("broken_empty.mp4", b"", kind=None, expected=failed, defects=(corrupt,))

        scene = self.scene()
        picture = render_scene(scene, times=np.zeros(1))[0]
        write_image(self.folder / "still_named_video.mp4", picture, suffix=".jpg")
        self._still("still_named_video.mp4", scene.caption, picture)
        self.video("video_named_still.jpg", self.take(3.0), container="mp4")

    def _cut_short(self, name: str, share: float) -> None:
        """Takes the end of the last file made away, and notes its new bytes."""
        path = self.folder / name
        data = path.read_bytes()
        with writing(path):
            path.write_bytes(data[: int(len(data) * share)])
        digest, size = fingerprint(path)
        self.files[-1] = self.files[-1].model_copy(update={"sha256": digest, "bytes": size})

    def spoken(self) -> None:
        for name, sentence in zip(
            ("speech_one.flac", "speech_two.mp4"), speech.SENTENCES, strict=True
        ):
            voice = speech.speak(sentence, RATE)
            if voice is None:
                continue
            if name.endswith(".flac"):
                write_audio(self.folder / name, voice, RATE)
                self._sound(name, voice, transcript=sentence)
            else:
                take = self.take(voice.shape[1] / RATE)
                spoken = np.zeros((1, take.sound.shape[1]), np.float32)
                length = min(spoken.shape[1], voice.shape[1])
                spoken[:, :length] = voice[:, :length]
                self.video(name, replace(take, sound=spoken), transcript=sentence, bounces=())

    def training(self, clips: int, stills: int, sounds: int) -> None:
        for name, take in training_set.clips(self.seed, clips):
            self.video(name, take, training=True)
        for name, scene, picture in training_set.stills(self.seed, stills):
            write_image(self.folder / name, picture)
            self._still(name, scene.caption, picture, training=True)
        for name, scene, sound in training_set.sounds(self.seed, sounds):
            write_audio(self.folder / name, sound, RATE)
            known = {"caption": scene.caption, "bounces": scene.bounces}
            self._sound(name, sound, training=True, **known)
