"""Rounds as raters get them: nothing tells one system's clips from another's but what is seen."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import av
import numpy as np
import pytest
from tests.evaluation.review.studio import PROMPTS, SYSTEMS, clips_of, names_in, round_of
from tests.media import flash_beep_clip, flash_beep_offsets, read_plain

from reelmill.datasets.media.encode import write_audio
from reelmill.errors import DatasetError, SourceError, UsageError
from reelmill.evaluation.bench import own_bench
from reelmill.evaluation.review.blind import canvas, look, write_copy
from reelmill.evaluation.review.build import build_round
from reelmill.evaluation.review.plan import Mode, Shares
from reelmill.evaluation.review.round import RoundFolder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return round_of(tmp_path_factory.mktemp("built"))


def clips(built) -> list[Path]:
    return sorted(built.folder.media.iterdir())


def container_of(path: Path) -> dict:
    """Everything that the container says of itself, but for how long it is."""
    with av.open(str(path)) as file:
        return {
            "format": file.format.name,
            "metadata": dict(file.metadata),
            "streams": [
                (s.type, s.codec_context.name, s.codec_context.profile, s.time_base,
                 dict(s.metadata), s.language, dict(s.codec_context.options or {}))
                for s in file.streams
            ],
            "size": [(s.width, s.height, s.pix_fmt) for s in file.streams.video],
            "sound": [(s.rate, s.layout.name, s.format.name) for s in file.streams.audio],
        }  # fmt: skip


def test_copies_differ_in_nothing_but_picture_and_sound(built):
    found = clips(built)
    assert len(found) == built.clips > 4
    assert len({json.dumps(container_of(path), default=str) for path in found}) == 1
    assert len({path.stat().st_size for path in found}) == 1
    assert len({path.stat().st_mtime for path in found}) == 1
    assert len({len(path.name) for path in found}) == 1
    told = container_of(found[0])
    assert told["metadata"].keys() <= {"major_brand", "minor_version", "compatible_brands"}


def test_no_name_is_anywhere_that_a_rater_can_look(built):
    for path in built.folder.pages.rglob("*"):
        assert names_in(str(path).encode()) == []
        if path.is_file():
            assert names_in(path.read_bytes()) == []
            assert b"Lavf" not in path.read_bytes()
            assert not any(prompt.encode() in path.read_bytes() for prompt in PROMPTS)
    assert names_in((built.folder.root / "round.json").read_bytes()) == []
    key = built.folder.root / "key.json"
    assert set(names_in(key.read_bytes())) == set(SYSTEMS)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_copies_show_what_the_clips_show(built):
    key = built.folder.key(built.round)
    source = built.folder.root.parent / "clips"
    for name, origin in key.clips.items():
        suffix = ".mp4" if origin.system == SYSTEMS[0] else ".mkv"
        before = read_plain(source / origin.system / f"{origin.prompt}_0{suffix}")
        after = read_plain(built.folder.media / name)
        assert after.rate == 48_000
        assert len(after.rgb) == len(before.rgb)
        assert after.seconds == pytest.approx(np.arange(len(before.rgb)) / 16, abs=1e-5)
        assert len(after.samples) == 2
        if origin.system == SYSTEMS[1]:  # the larger one keeps every pixel
            error = np.abs(after.gray - before.gray).mean()
            assert (error > 2.5) == (
                origin.damage not in ("", "clipping", "drop-outs", "sound noise")
            )


def test_sound_and_picture_stay_together(tmp_path):
    flash_beep_clip(tmp_path / "a.mp4", fps=25, seconds=3.0, rate=44_100, sound_shift_s=0.1)
    seen = look(tmp_path / "a.mp4")
    copy = write_copy(seen, canvas([seen.size]), tmp_path / "b.mp4")
    before = flash_beep_offsets(tmp_path / "a.mp4")
    after = flash_beep_offsets(tmp_path / "b.mp4")
    assert after == pytest.approx(before, abs=0.002)
    assert not copy.silent


def test_loudness_is_evened_out_by_the_page(built):
    key = built.folder.key(built.round)
    pairs = [i for seat in built.round.seats for i in seat.items if i.paired]
    plain = [i for i in pairs if not any(key.clips[name].damage for name in i.media)]
    assert plain
    for item in plain:
        gains = {key.clips[n].system: g for n, g in zip(item.media, item.gains, strict=True)}
        assert gains[SYSTEMS[1]] == 1.0  # the quiet one
        assert gains[SYSTEMS[0]] < 0.6


def test_what_cannot_be_hidden_is_told_to_the_organiser(tmp_path):
    clips_of(tmp_path / "clips", PROMPTS[:1])
    flash_beep_clip(tmp_path / "clips" / "third" / f"{PROMPTS[0]}_0.mp4", fps=25, seconds=1.0)
    built = round_of(tmp_path, mode=Mode.PAIRS, shares=Shares(1, 0, 0))
    told = " ".join(built.told_apart_by)
    assert "frame rate" in told
    assert "25 fps" in told
    assert "length" in told
    assert "25 fps" not in (built.folder.pages / "anna.html").read_text()


def test_clips_that_cannot_be_shown_are_left_out_and_told_of(tmp_path):
    folder = clips_of(tmp_path / "clips")
    (folder / SYSTEMS[0] / f"{PROMPTS[0]}_7.mp4").write_bytes(b"\0" * 4000)
    write_audio(folder / SYSTEMS[1] / f"{PROMPTS[0]}_7.flac", np.zeros((1, 4800)), 48_000)
    (folder / SYSTEMS[1] / "unnamed.mp4").write_bytes(b"nothing")
    built = round_of(tmp_path, mode=Mode.PAIRS)
    assert len(built.failed) == 3
    why = {Path(path).name: told for path, told in built.failed.items()}
    assert "no video" in why[f"{PROMPTS[0]}_7.flac"]
    assert "<prompt>_<seed>" in why["unnamed.mp4"]
    assert all(len(seat.items) > 2 for seat in built.round.seats)


def test_the_seed_gives_the_same_round_and_none_gives_another(tmp_path):
    clips_of(tmp_path / "clips", PROMPTS[:1], seconds=0.3)

    def ids(name: str, seed: int | None) -> set[str]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "clips").symlink_to(tmp_path / "clips")
        made = round_of(tmp_path / name, seed=seed, raters=["r"], shares=Shares(1, 0, 0))
        files = {p.name: p.read_bytes() for p in made.folder.pages.rglob("*") if p.is_file()}
        return {f"{n} {hash(data)}" for n, data in files.items()}

    assert ids("a", 3) == ids("b", 3)
    assert not ids("c", None) & ids("d", None)


def test_bad_orders_are_refused(tmp_path, built):
    with pytest.raises(UsageError, match="holds a round already"):
        round_of(built.folder.root.parent)
    clips_of(tmp_path / "clips", PROMPTS[:1], seconds=0.3)
    with pytest.raises(UsageError, match="raters read it"):
        round_of(tmp_path, title="Is Borealis better?")
    (tmp_path / "round").mkdir()
    (tmp_path / "round" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="mine"):
        round_of(tmp_path)
    (tmp_path / "round" / "mine.txt").unlink()
    for bad in ("../x", "", "a/b", ".hidden", "x" * 60, "a\nb"):
        with pytest.raises(UsageError, match="rater"):
            round_of(tmp_path, raters=[bad], shares=Shares(1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="names no clip"):
        build_round([tmp_path / "empty"], tmp_path / "r", ["a"], bench=own_bench())
    with pytest.raises(UsageError, match="holds no round"):
        RoundFolder(tmp_path / "empty").round()


def test_a_build_that_was_interrupted_is_begun_anew(tmp_path):
    clips_of(tmp_path / "clips", PROMPTS[:1], seconds=0.3)
    left = tmp_path / "round" / "pages" / "media" / f"{'0' * 32}.mp4"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a clip")
    (tmp_path / "round" / "key.json").write_text("{}")
    (tmp_path / "round" / ".round.json.tmp-77").write_text("{")
    built = round_of(tmp_path, shares=Shares(1, 0, 0), mode=Mode.PAIRS)
    assert not left.exists()
    assert built.folder.key(built.folder.round()).systems == tuple(sorted(SYSTEMS))


def test_a_changed_key_is_not_believed(tmp_path):
    clips_of(tmp_path / "clips", PROMPTS[:1], seconds=0.3)
    built = round_of(tmp_path, shares=Shares(1, 0, 0), mode=Mode.PAIRS)
    path = built.folder.root / "key.json"
    first, second = (name.encode() for name in SYSTEMS)
    path.write_bytes(path.read_bytes().replace(first, b"@").replace(second, first))
    with pytest.raises(DatasetError, match="changed after the round began"):
        built.folder.key(built.round)


@pytest.mark.media
def test_real_clips_of_all_kinds_become_alike(tmp_path, media):
    kinds = {
        "one": ("general/fmt_vp9_odd_161x121.webm", "talking/mmaction_makeup_speech.avi"),
        "two": ("general/fmt_rot90.mov", "general/fmt_vfr_slowmotion.mp4"),
    }
    for system, files in kinds.items():
        for i, file in enumerate(files):
            target = tmp_path / "clips" / system / f"p{i}_0{Path(file).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(media / file)
    built = round_of(tmp_path, mode=Mode.PAIRS, shares=Shares(1, 0, 0))
    assert built.failed == {}
    per_prompt: dict[str, set] = {}
    key = built.folder.key(built.round)
    for name, origin in key.clips.items():
        told = container_of(built.folder.media / name)
        per_prompt.setdefault(origin.prompt, set()).add(json.dumps(told, default=str))
    assert [len(kinds) for kinds in per_prompt.values()] == [1, 1]
    assert len({path.stat().st_size for path in clips(built)}) == 1
