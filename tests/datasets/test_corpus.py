"""The corpus against its own truth: every planted property measured again from the file."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import get_args

import av
import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image
from tests.media import Plain, read_plain

from reelmill.datasets.corpus import speech
from reelmill.datasets.corpus.corpus import make_corpus
from reelmill.datasets.corpus.scene import COLOURS, random_scene
from reelmill.datasets.corpus.truth import (
    CorpusTruth,
    DefectKind,
    FileTruth,
    fingerprint,
    read_truth,
)
from reelmill.datasets.sample import Kind, Outcome
from reelmill.errors import UsageError

pytestmark = pytest.mark.long

TRAINING = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Path, CorpusTruth]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, make_corpus(folder, training_clips=TRAINING)


@pytest.fixture(scope="module")
def decoded(corpus):
    """Decodes a file of the corpus once."""
    folder, _ = corpus
    seen: dict[str, Plain] = {}

    def read(name: str) -> Plain:
        if name not in seen:
            seen[name] = read_plain(folder / name)
        return seen[name]

    return read


def whole(truth: CorpusTruth, kind: Kind) -> list[FileTruth]:
    return [f for f in truth.files if f.kind is kind and f.expected.outcome is not Outcome.FAILED]


def sharpness(picture: np.ndarray) -> float:
    return float(cv2.Laplacian(picture.astype(np.float32), cv2.CV_32F).var())


def loudness(samples: np.ndarray) -> float:
    """RMS in dBFS."""
    return 20 * np.log10(max(float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))), 1e-9))


def onset_lag(plain: Plain, times: list[float]) -> float:
    """Seconds by which sudden rises of energy follow `times`, by the best match within 0.5 s."""
    assert plain.samples is not None
    hop = plain.rate // 500
    power = (plain.samples**2).sum(axis=0)
    power = power[: len(power) // hop * hop].reshape(-1, hop).mean(axis=1)
    level = np.log(power + 1e-6)
    rise = np.maximum(np.diff(level, prepend=level[0]), 0)
    rise = np.convolve(rise, np.ones(5), mode="same")
    lags = np.arange(-250, 251)
    at = np.rint(np.array(times) * 500).astype(int)
    spots = at[None] + lags[:, None]
    valid = (spots >= 0) & (spots < len(rise))
    score = np.where(valid, rise[np.clip(spots, 0, len(rise) - 1)], 0).sum(axis=1)
    return float(lags[score.argmax()] / 500)


def test_truth_file_is_valid_and_names_what_is_there(corpus):
    folder, truth = corpus
    assert read_truth(folder) == truth
    media = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix != ".txt"}
    assert media - {"truth.json", "training"} == {f.name for f in truth.files}
    assert all(fingerprint(folder / f.name) == (f.sha256, f.bytes) for f in truth.files)
    for file in truth.files:
        caption = (folder / file.name).with_suffix(".txt")
        assert caption.exists() == (file.caption is not None)
        if file.caption:
            assert caption.read_text().strip() == file.caption
    stems = [Path(f.name).stem for f in truth.files]
    assert len(set(stems)) == len(stems)


def test_every_kind_and_every_defect_is_planted(corpus):
    _, truth = corpus
    kinds = {d.kind for f in truth.files for d in f.defects}
    assert kinds == set(get_args(DefectKind))
    assert {Path(f.name).suffix for f in truth.files} == {".mp4", ".mkv", ".mov", ".jpg", ".flac"}
    assert all(len(f.defects) <= 1 for f in truth.files)
    for file in truth.files:
        clean = file.expected.outcome is Outcome.KEPT
        assert clean == (not file.defects)
        assert (file.duplicate_of is not None) == ("duplicate" in file.expected.reason)


def test_files_hold_what_the_truth_says(corpus, decoded):
    folder, truth = corpus
    for file in whole(truth, Kind.VIDEO):
        plain = decoded(file.name)
        assert plain.rgb.shape[:3] == (file.frames, file.height, file.width), file.name
        if file.pts_ms is not None:
            ticks = [round(p * plain.time_base * 1000) for p in plain.pts]
            assert tuple(ticks) == file.pts_ms
            assert len(set(np.diff(ticks))) > 2
        else:
            with av.open(str(folder / file.name), format=None) as container:
                assert str(container.streams.video[0].average_rate) == file.fps
        if file.rate is None:
            assert plain.samples is None
        else:
            assert (plain.rate, len(plain.samples)) == (file.rate, file.channels)
            missing = plain.samples.shape[1] - file.seconds * file.rate
            assert -1 <= missing < 1024
    for file in whole(truth, Kind.AUDIO):
        assert decoded(file.name).samples.shape == (file.channels, round(file.seconds * file.rate))
    for file in whole(truth, Kind.IMAGE):
        with Image.open(folder / file.name) as image:
            assert image.format == "JPEG"
            assert image.size == (file.width, file.height)


def test_cuts_are_the_only_jumps(corpus, decoded):
    """Mean absolute difference of neighbouring frames; also by PySceneDetect, on the pixels."""
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    _, truth = corpus
    checked = 0
    for file in whole(truth, Kind.VIDEO):
        if file.defects or file.training:
            continue
        plain = decoded(file.name)
        step = np.abs(np.diff(plain.rgb.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
        cuts = [i for i in file.shots if i]
        at_cut = step[[i - 1 for i in cuts]]
        inside = np.delete(step, [i - 1 for i in cuts])
        assert inside.min() > 2, "the whole picture moves"
        if cuts:
            assert at_cut.min() > 1.5 * inside.max()
            checked += 1
            detector = ContentDetector(threshold=27, min_scene_len=15)
            found = [
                cut.frame_num if hasattr(cut, "frame_num") else cut.get_frames()
                for i, frame in enumerate(plain.rgb)
                for cut in detector.process_frame(FrameTimecode(i, 24.0), frame[..., ::-1].copy())
            ]
            assert found == cuts, file.name
    assert checked == 3


def test_clean_pictures_are_well_exposed_sharp_and_moving(corpus, decoded):
    _, truth = corpus
    for file in whole(truth, Kind.VIDEO):
        if file.defects:
            continue
        gray = decoded(file.name).gray
        assert 60 < gray.mean() < 190, file.name
        assert gray.std() > 12
        assert sharpness(gray[10]) > 40
        assert np.abs(np.diff(gray, axis=0)).mean(axis=(1, 2)).min() > 0.25
        assert file.width >= 192 or file.training
        assert 3 <= file.seconds <= 12


def test_picture_defects_are_what_they_say(decoded):
    clean = decoded("clean_origin.mp4").gray
    assert decoded("black.mp4").rgb.max() <= 4
    bright, dim = decoded("overexposed.mp4").gray, decoded("underexposed.mp4").gray
    assert (bright > 240).mean() > 0.8
    assert 12 < dim.mean() < 45
    assert np.percentile(dim, 95) < 70
    assert sharpness(decoded("blurred.mp4").gray[10]) < 0.05 * sharpness(clean[10])


def test_frozen_interval_is_exact(corpus, decoded):
    _, truth = corpus
    file = truth["frozen.mp4"]
    (first, last), seconds = file.defects[0].frames, file.defects[0].seconds
    step = np.abs(np.diff(decoded("frozen.mp4").gray, axis=0)).mean(axis=(1, 2))
    still = np.flatnonzero(step < 0.5)
    assert (still[0], still[-1] + 2) == (first, last)
    assert len(still) == last - first - 1 >= 0.4 * file.frames
    assert seconds == (first / 24, last / 24)


def test_logo_box_is_the_only_still_part(corpus, decoded):
    _, truth = corpus
    box = truth["logo.mp4"].defects[0].box
    change = decoded("logo.mp4").gray.std(axis=0)
    ys, xs = np.nonzero(
        cv2.morphologyEx((change < 6).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5)))
    )
    found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    np.testing.assert_allclose(found, box, atol=2)


def test_letterbox_is_black_outside_its_box(corpus, decoded):
    _, truth = corpus
    file = truth["letterbox.mp4"]
    x0, y0, x1, y1 = file.defects[0].box
    rows = np.flatnonzero(decoded("letterbox.mp4").gray.max(axis=(0, 2)) > 24)
    assert (x0, x1) == (0, file.width)
    np.testing.assert_allclose((rows[0], rows[-1] + 1), (y0, y1), atol=1)


def test_sound_levels_and_defects_are_what_they_say(corpus, decoded):
    _, truth = corpus
    audible = [f for f in truth.files if f.rate and f.expected.outcome is not Outcome.FAILED]
    for file in audible:
        samples = decoded(file.name).samples
        full = (np.abs(samples) >= 0.999).mean()
        if file.expected.reason == "silent":
            assert not samples.any()
        elif file.expected.reason == "clipped":
            assert full == pytest.approx(file.defects[0].value, abs=0.01)
            assert full >= 0.05
        else:
            assert -32 < loudness(samples) < -12, file.name
            assert full == 0


def test_noise_has_its_ratio(corpus, decoded):
    """Tones lie below 1.6 kHz and white noise is flat, so the band above tells the noise."""
    _, truth = corpus
    for name in ("noisy.mp4", "tones_noisy.flac"):
        plain = decoded(name)
        length = 1 << 17
        power = np.abs(np.fft.rfft(plain.samples[:, :length])) ** 2
        hz = np.fft.rfftfreq(length, 1 / plain.rate)
        share = power[:, (hz > 4000) & (hz < 14_000)].sum() * 2.4
        snr = 10 * np.log10((power.sum() - share) / share)
        assert snr == pytest.approx(truth[name].defects[0].value, abs=1.5), name


def test_sound_follows_the_picture_unless_shifted(corpus, decoded):
    _, truth = corpus
    checked = 0
    for file in whole(truth, Kind.VIDEO):
        if not file.bounces or file.rate is None:
            continue
        if file.expected.reason in ("silent", "noisy", "clipped"):
            continue
        planted = file.defects[0].value if file.expected.reason == "shifted" else 0.0
        lag = onset_lag(decoded(file.name), [b.t for b in file.bounces])
        assert lag == pytest.approx(planted, abs=0.006), file.name
        checked += 1
    assert checked > 15


def test_bounces_are_seen_where_and_heard_as_they_are_told(corpus, decoded):
    """Place by the colour's centroid, pitch by the spectrum's peak, pan by the channels' ratio."""
    _, truth = corpus
    seen = 0
    for file in whole(truth, Kind.VIDEO):
        colours = {b.colour for b in file.bounces}
        times = np.array([b.t for b in file.bounces])
        if not file.training or len(colours) != 1:
            continue
        plain = decoded(file.name)
        for bounce in file.bounces:
            others = np.abs(times[times != bounce.t] - bounce.t)
            if bounce.t > file.seconds - 0.25 or (others < 0.25).any():
                continue
            frame = plain.rgb[round(bounce.t * 16)].astype(np.float32)
            close = np.abs(frame - COLOURS[bounce.colour]).max(axis=2) < 60
            stats = cv2.connectedComponentsWithStats(close.astype(np.uint8))[2]
            x, y, wide, high, _ = max(stats[1:], key=lambda part: part[4])
            centre = (x + wide / 2, y + high / 2)
            place = (bounce.x * file.width, bounce.y * file.height)
            np.testing.assert_allclose(centre, place, atol=9)
            start = round(bounce.t * plain.rate)
            piece = plain.samples[:, start : start + plain.rate // 5]
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(piece.shape[1]), n=1 << 16))
            peak = spectrum.sum(axis=0).argmax()
            assert peak * plain.rate / (1 << 16) == pytest.approx(bounce.pitch, rel=0.02)
            left, right = spectrum[:, peak]
            pan = np.arctan2(right, left) * 4 / np.pi - 1
            assert pan == pytest.approx(bounce.pan, abs=0.12)
            seen += 1
    assert seen >= 3


def hashes(rgb: np.ndarray, fps: float) -> np.ndarray:
    """pHash bits of two frames a second, black borders cut off: bool [frames, 64]."""
    rows = np.flatnonzero(rgb.max(axis=(0, 2, 3)) > 32)
    picture = rgb[:, rows[0] : rows[-1] + 1] if len(rows) else rgb
    chosen = picture[:: max(1, round(fps / 2))]
    return np.stack([imagehash.phash(Image.fromarray(f)).hash.ravel() for f in chosen])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Median over the shorter's frames of the least Hamming distance to the other's."""
    gaps = (a[:, None] != b[None]).sum(axis=2)
    return float(np.median(gaps.min(axis=1 if len(a) <= len(b) else 0)))


def test_edits_are_near_their_origin_and_nothing_else_is(corpus, decoded):
    _, truth = corpus
    pictures = {
        f.name: decoded(f.name).rgb
        for f in whole(truth, Kind.VIDEO)
        if f.expected.reason not in ("black", "exact_duplicate")
    }
    plain = {name: hashes(rgb, 24) for name, rgb in pictures.items()}
    turned = {name: hashes(rgb[:, :, ::-1], 24) for name, rgb in pictures.items()}
    origin = {f.name: f.duplicate_of or f.name for f in truth.files}
    near, far = [], []
    names = sorted(plain)
    for i, one in enumerate(names):
        for two in names[:i]:
            gap = min(distance(plain[one], plain[two]), distance(turned[one], plain[two]))
            (near if origin[one] == origin[two] else far).append((gap, one, two))
    assert len(near) == 15
    assert max(near)[0] <= 12, max(near)
    assert min(far)[0] > 14, min(far)


def test_duplicates_are_equal_or_differ_as_told(corpus, decoded):
    _, truth = corpus
    origin = truth["clean_origin.mp4"]
    digests = [f.sha256 for f in truth.files]
    assert truth["copy_exact.mp4"].sha256 == origin.sha256
    assert len(set(digests)) == len(digests) - 1
    first = decoded("clean_origin.mp4").gray
    trimmed, mirrored = decoded("copy_trimmed.mp4").gray, decoded("copy_mirrored.mp4").gray
    assert np.abs(trimmed[5] - first[29]).mean() < 4
    assert np.abs(mirrored[5][:, ::-1] - first[5]).mean() < 4
    assert decoded("copy_half.mp4").gray.shape[1:] == (first.shape[1] // 2, first.shape[2] // 2)
    ratio = truth["copy_reencoded.mp4"].bytes / origin.bytes
    assert ratio < 0.75


def decodable(container, **stream: int) -> int:
    """Frames, or samples, until the end or an error."""
    count = 0
    with contextlib.suppress(av.error.FFmpegError):
        for frame in container.decode(**stream):
            count += getattr(frame, "samples", 1)
    return count


def test_broken_files_are_broken_and_misnamed_ones_are_not(corpus, decoded):
    folder, truth = corpus
    short = truth["broken_short.mp4"]
    with av.open(str(folder / short.name)) as container:
        promised = container.streams.video[0].frames
        got = decodable(container, video=0)
    assert promised == short.frames
    assert got < 0.8 * promised
    with pytest.raises(av.error.FFmpegError):
        av.open(str(folder / "broken_headless.mp4"))
    assert (folder / "broken_empty.mp4").read_bytes() == b""
    flac = truth["broken_tones.flac"]
    with av.open(str(folder / flac.name)) as container:
        stated = container.streams.audio[0].duration * container.streams.audio[0].time_base
        samples = decodable(container, audio=0)
    assert float(stated) == flac.seconds
    assert samples < 0.7 * flac.seconds * flac.rate
    assert (folder / "still_named_video.mp4").read_bytes()[:3] == b"\xff\xd8\xff"
    assert (folder / "video_named_still.jpg").read_bytes()[4:8] == b"ftyp"


def test_stills_are_sharp_or_soft(corpus):
    folder, _ = corpus
    read = {
        name: sharpness(cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE))
        for name in ("still_one.jpg", "still_two.jpg", "still_soft.jpg")
    }
    assert read["still_soft.jpg"] < 0.05 * min(read["still_one.jpg"], read["still_two.jpg"])


@pytest.mark.slow
def test_same_arguments_give_the_same_bytes_and_another_seed_others(corpus, tmp_path):
    folder, truth = corpus
    made: list[str] = []
    again = make_corpus(tmp_path / "again", training_clips=TRAINING, done=made.append)
    pairs = zip(again.files, truth.files, strict=True)
    assert [one.name for one, two in pairs if one != two] == []
    assert again == truth
    assert len(made) == len(truth.files)
    assert (tmp_path / "again" / "truth.json").read_bytes() == (folder / "truth.json").read_bytes()
    # Left alone while unaltered, made again when a byte is missing.
    assert make_corpus(tmp_path / "again", training_clips=TRAINING, done=made.append) == truth
    assert len(made) == len(truth.files)
    first, second = random_scene(1), random_scene(2)
    assert first == random_scene(1) != second


@pytest.mark.slow
def test_an_altered_corpus_is_made_again(corpus, tmp_path):
    folder, truth = corpus
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "black.mp4").write_bytes(b"x")
    made: list[str] = []
    make_corpus(copy, training_clips=TRAINING, done=made.append)
    assert "black.mp4" in made
    assert fingerprint(copy / "black.mp4")[0] == truth["black.mp4"].sha256


def test_without_espeak_no_speech_is_made_and_the_truth_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    spoken, note = speech.speaker()
    assert not spoken
    assert "not installed" in note
    assert speech.speak("hello", 16_000) is None


def test_speech_is_made_where_espeak_is(corpus, decoded):
    _, truth = corpus
    names = {f.name for f in truth.files if f.transcript}
    assert truth.speech == (shutil.which("espeak-ng") is not None)
    assert names == ({"speech_one.flac", "speech_two.mp4"} if truth.speech else set())


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(UsageError, match="huge"):
        make_corpus(tmp_path, size="huge")
    with pytest.raises(UsageError, match="-1"):
        make_corpus(tmp_path, training_clips=-1)


def test_truth_json_is_plain(corpus):
    folder, truth = corpus
    data = json.loads((folder / "truth.json").read_text())
    assert data["version"] == 1
    assert [f["name"] for f in data["files"]] == sorted(f["name"] for f in data["files"])
    assert str(folder) not in (folder / "truth.json").read_text()
    assert len(data["files"]) == len(truth.files) >= 30
