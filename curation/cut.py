"""The cut: one clip becomes one file, exact to the frame and to the sample, and proven so.

Frames are those with start <= pts < end and keep their distances (variable rate too). Sound covers
the same span to the sample, from the first frame on, with silence where the source has none. Both
streams of the new file start at zero, so that a loader that ignores container start times sees
picture and sound together. The file is decoded again before it counts as cut.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from av.video.frame import VideoFrame

from reelmill.curation.frame_shape import Box, FrameShape
from reelmill.curation.keys import canonical, code_digest
from reelmill.datasets.media.clock import sound_span
from reelmill.datasets.media.container import decoded, open_container, pick_streams
from reelmill.datasets.media.decode import MediaInfo, clip_samples, probe
from reelmill.datasets.media.encode import write_audio, write_image, write_video
from reelmill.datasets.media.image import read_header, read_rgb
from reelmill.datasets.media.picture import FrameClock, frames_between
from reelmill.datasets.media.sound import resample
from reelmill.datasets.sample import Clip, Kind
from reelmill.datasets.workspace import writing
from reelmill.errors import MediaError

SUFFIX = {Kind.VIDEO: ".mp4", Kind.IMAGE: ".jpg", Kind.AUDIO: ".flac"}
AAC_PACKET = 1024
AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
MAX_OFFSET_MS = 1.0
# Left and right from the channels in FFmpeg's order, ITU-R BS.775 with -3 dB for centre and rear.
_DOWN = 0.5**0.5
_TO_STEREO = {
    6: [[1, 0, _DOWN, 0, _DOWN, 0], [0, 1, _DOWN, 0, 0, _DOWN]],
    8: [[1, 0, _DOWN, 0, _DOWN, 0, _DOWN, 0], [0, 1, _DOWN, 0, 0, _DOWN, 0, _DOWN]],
}


@dataclass(frozen=True, kw_only=True)
class CutSettings:
    """How clips are encoded. All fields belong to the cut's key.

    max_height: of the shorter side, in pixels; larger pictures are scaled down. audio_codec: of a
    video's sound, `aac` or `flac`. Audio clips become FLAC, images JPEG. crop: whether pictures
    are cropped to the box that is given with a clip.
    """

    codec: str = "libx264"
    crf: float = 18.0
    preset: str = "veryfast"
    max_height: int | None = 1080
    audio_codec: str = "aac"
    audio_bit_rate: int = 192_000
    image_quality: int = 95
    crop: bool = True


@dataclass(frozen=True, slots=True)
class CutResult:
    """One written clip. frames and samples: as decoded again from the file, per channel.

    silence_samples: those of `samples` that the source had no sound for. av_offset_ms: how much
    later than the picture the sound is for a loader that ignores container start times (0.0
    without sound). seconds: what the clip spans; fps: frames / seconds, 0 for stills and sound.
    box: what the source's picture was cropped to, empty for all of it. delay_s: by how much the
    sound was put later than the source has it.
    """

    path: Path
    kind: Kind
    codec: str
    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    audio_codec: str
    sample_rate: int
    channels: int
    samples: int
    silence_samples: int
    av_offset_ms: float
    bytes: int
    sha256: str
    box: tuple[int, ...] = ()
    delay_s: float = 0.0


def cut_key(clip: Clip, settings: CutSettings, box: Box | None = None, delay: float = 0.0) -> str:
    """What a cut file depends on: source bytes, span, box, delay, the settings, this code."""
    span = f'"{clip.asset}","{clip.kind}",{clip.start_pts},{clip.end_pts},"{clip.time_base}"'
    crop = f',"box":{list(box)}' if box else ""
    moved = f',"delay":{delay:.6f}' if delay else ""
    whole = f'{_head(settings)},"span":[{span}]{crop}{moved}}}'
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


@lru_cache(maxsize=8)
def _head(settings: CutSettings) -> str:
    """The part of canonical JSON that all clips share: a run makes a key for each of its clips."""
    return canonical({"settings": asdict(settings), "code": code_digest(__name__)})[:-1]


def cut(
    path: Path,
    info: MediaInfo,
    clip: Clip,
    out: Path,
    settings: CutSettings,
    box: Box | None = None,
    delay: float = 0.0,
) -> CutResult:
    """Cuts one clip into `out`, whose suffix must be the one of its kind (SUFFIX).

    box: the part of the picture that is kept, None for all of it. delay: seconds by which a video's
    sound is put later, to the sample; what then sounds at the clip's start is what the source has
    before it.

    The same input gives the same bytes. Raises MediaError, leaving no file, when the written file
    does not hold exactly what was asked for; WorkspaceError when the disk refuses.
    """
    if out.suffix != SUFFIX[clip.kind]:
        raise ValueError(f"a {clip.kind} clip is cut into {SUFFIX[clip.kind]}, not {out.name}")
    try:
        if clip.kind == Kind.VIDEO:
            return _cut_video(path, info, clip, out, settings, box, delay)
        how = _cut_image if clip.kind == Kind.IMAGE else _cut_audio
        return how(path, info, clip, out, settings, box)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def _cut_video(
    path: Path,
    info: MediaInfo,
    clip: Clip,
    out: Path,
    settings: CutSettings,
    box: Box | None,
    delay: float,
) -> CutResult:
    video = info.video
    if video is None:
        raise MediaError(f"clip {clip.id} of {path.name}: the file has no picture.")
    found = frames_between(path, clip.start_pts, clip.end_pts)
    first = next(found, None)
    if first is None:
        raise MediaError(f"clip {clip.id} of {path.name}: no frame of it could be decoded.")
    origin = first[0]
    sound, rate, silence, late = None, 0, 0, 0.0
    if info.audio is not None:
        sound, rate, silence, late = _sound(path, info, clip, origin, settings, delay)
    shape = FrameShape(video.width, video.height, video.rotation, settings.max_height, box)
    asked: list[int] = []

    def pictures() -> Iterator[VideoFrame]:
        before = first
        for now in found:
            yield shape(before[1], before[0] - origin, now[0] - before[0])
            asked.append(before[0] - origin)
            before = now
        yield shape(before[1], before[0] - origin, max(1, clip.end_pts - before[0]))
        asked.append(before[0] - origin)

    frames = clip.end_frame - clip.start_frame
    written = write_video(
        out,
        pictures(),
        own_pts=True,
        fps=_rate(frames, clip),
        time_base=clip.time_base,
        audio=sound,
        audio_rate=rate or 48_000,
        audio_codec=settings.audio_codec if sound is not None else None,
        audio_bit_rate=settings.audio_bit_rate,
        codec=settings.codec,
        crf=settings.crf,
        preset=settings.preset,
    )
    if written != frames:
        raise MediaError(
            f"clip {clip.id} of {path.name}: {frames} frames asked, {written} decoded from it."
        )
    samples = 0 if sound is None else sound.shape[1]
    offset = _verify_video(out, clip, asked, samples, rate, late, settings)
    return _result(
        out,
        clip,
        codec=settings.codec,
        width=shape.width,
        height=shape.height,
        frames=frames,
        fps=frames / float((clip.end_pts - origin) * clip.time_base),
        audio_codec=settings.audio_codec if sound is not None else "",
        sample_rate=rate,
        channels=0 if sound is None else sound.shape[0],
        samples=samples,
        silence_samples=silence,
        av_offset_ms=offset,
        box=box,
        delay_s=delay,
    )


def _sound(
    path: Path, info: MediaInfo, clip: Clip, origin: int, settings: CutSettings, delay: float
) -> tuple[np.ndarray, int, int, float]:
    """(float32 [channels, samples], rate, silent samples, seconds that it lies behind the frame).

    From the first frame's time to the clip's end, at the source's rate where the codec has it. All
    of it is taken `delay` seconds earlier from the source.
    """
    assert info.audio is not None
    source = info.audio.rate
    first = round((origin * clip.time_base - Fraction(info.audio.start_s)) * source)
    _, last = sound_span(clip, info)
    moved = round(delay * source)
    native, sounding = clip_samples(path, info, first - moved, last - moved)
    late = float(Fraction(first, source) + Fraction(info.audio.start_s) - origin * clip.time_base)
    silence = last - first - sounding
    native = _stereo(native)
    if settings.audio_codec != "aac" or source in AAC_RATES:
        return native, source, silence, late
    rate = 48_000
    wanted = round((clip.end_pts - origin) * clip.time_base * rate)
    rows = [resample(row, source, rate)[:wanted] for row in native]
    rows = [np.pad(row, (0, wanted - len(row))) for row in rows]
    return np.stack(rows), rate, round(silence * rate / source), late


def _stereo(samples: np.ndarray) -> np.ndarray:
    """At most two channels: surround is mixed down without clipping, odd layouts to mono."""
    if len(samples) <= 2:
        return samples
    if len(samples) not in _TO_STEREO:
        return samples.mean(axis=0, keepdims=True)
    weights = np.array(_TO_STEREO[len(samples)], np.float32)
    return (weights / weights.sum(axis=1, keepdims=True)) @ samples


def _rate(frames: int, clip: Clip) -> Fraction:
    length = (clip.end_pts - clip.start_pts) * clip.time_base
    return max(Fraction(1), Fraction(frames) / length if length else Fraction(25))


def _verify_video(
    out: Path,
    clip: Clip,
    asked: list[int],
    samples: int,
    rate: int,
    late: float,
    settings: CutSettings,
) -> float:
    """Decodes the file again and compares; returns the offset of sound to picture in ms."""
    with open_container(out) as container:
        video, audio = pick_streams(container, out)
        if video is None or (samples > 0) != (audio is not None):
            raise MediaError(f"clip {clip.id}: the cut lost a stream.")
        clock, base = FrameClock(container, video), video.time_base or Fraction(0)
        shown = [clock.pts(frame) for frame in decoded(container, video)]
        stated = Fraction(0)
        if audio is not None and audio.duration is not None and audio.time_base is not None:
            stated = audio.duration * audio.time_base * rate
    on_time = len(shown) == len(asked) and all(
        got is not None and abs(got * base - tick * clip.time_base) <= clip.time_base
        for got, tick in zip(shown, asked, strict=True)
    )
    if not on_time:
        raise MediaError(
            f"clip {clip.id}: {len(asked)} frames asked, {len(shown)} decoded from the cut, or "
            "shown at other times."
        )
    if not samples:
        return 0.0
    count, start = _count_samples(out)
    spare = AAC_PACKET - 1 if settings.audio_codec == "aac" else 0  # padding of the last packet
    if not samples <= count <= samples + spare or round(stated) != samples:
        raise MediaError(
            f"clip {clip.id}: {samples} samples asked, {count} decoded from the cut, "
            f"{round(stated)} stated."
        )
    plain, aware = late * 1000, (late + start) * 1000
    if max(abs(plain), abs(aware)) > MAX_OFFSET_MS:
        raise MediaError(f"clip {clip.id}: sound is {aware:.2f} ms behind the picture.")
    return plain


def _count_samples(out: Path) -> tuple[int, float]:
    """(samples, seconds of the first one's timestamp) as a plain decode of a file's sound gives."""
    with open_container(out) as container:
        _, stream = pick_streams(container, out)
        if stream is None or stream.time_base is None:
            return 0, 0.0
        count, start = 0, None
        for frame in decoded(container, stream):
            start = (frame.pts or 0) * stream.time_base if start is None else start
            count += frame.samples
        return count, float(start or 0)


def _cut_image(
    path: Path, info: MediaInfo, clip: Clip, out: Path, settings: CutSettings, box: Box | None
) -> CutResult:
    header = read_header(path)
    rgb = read_rgb(path)
    if box is not None:
        x, y, width, height = box
        rgb = np.ascontiguousarray(rgb[y : y + height, x : x + width])
    height, width = rgb.shape[:2]
    limit = settings.max_height
    if header is None:
        raise MediaError(f"{path.name} is no image any more.")
    if limit is not None and min(width, height) > limit:
        scale = limit / min(width, height)
        size = (round(width * scale), round(height * scale))
        write_image(
            out, cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), quality=settings.image_quality
        )
    elif header.format == "JPEG" and header.plain and box is None:
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out)
    else:
        write_image(out, rgb, quality=settings.image_quality)
    written = probe(out).video
    if written is None:
        raise MediaError(f"clip {clip.id}: the written image cannot be read.")
    return _result(
        out, clip, codec="jpeg", width=written.width, height=written.height, frames=1, box=box
    )


def _cut_audio(
    path: Path, info: MediaInfo, clip: Clip, out: Path, settings: CutSettings, box: Box | None
) -> CutResult:
    if info.audio is None:
        raise MediaError(f"clip {clip.id} of {path.name}: the file has no sound.")
    first, last = sound_span(clip, info)
    native, sounding = clip_samples(path, info, first, last)
    if sounding != last - first:
        raise MediaError(
            f"clip {clip.id} of {path.name}: {last - first} samples asked, {sounding} decoded."
        )
    samples = _stereo(native)
    write_audio(out, samples, info.audio.rate, codec="flac")
    count, _ = _count_samples(out)
    if count != samples.shape[1]:
        raise MediaError(f"clip {clip.id}: {samples.shape[1]} samples asked, {count} written.")
    return _result(
        out,
        clip,
        audio_codec="flac",
        sample_rate=info.audio.rate,
        channels=samples.shape[0],
        samples=count,
    )


def _result(
    out: Path,
    clip: Clip,
    *,
    codec: str = "",
    width: int = 0,
    height: int = 0,
    frames: int = 0,
    fps: float = 0.0,
    audio_codec: str = "",
    sample_rate: int = 0,
    channels: int = 0,
    samples: int = 0,
    silence_samples: int = 0,
    av_offset_ms: float = 0.0,
    box: Box | None = None,
    delay_s: float = 0.0,
) -> CutResult:
    with out.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return CutResult(
        path=out,
        kind=clip.kind,
        codec=codec,
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        seconds=clip.seconds,
        audio_codec=audio_codec,
        sample_rate=sample_rate,
        channels=channels,
        samples=samples,
        silence_samples=silence_samples,
        av_offset_ms=av_offset_ms,
        bytes=out.stat().st_size,
        sha256=sha256,
        box=box or (),
        delay_s=delay_s,
    )
