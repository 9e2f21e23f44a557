"""What must not grow with the number of clips, on a ledger of 2,000 (benchmarks/scale_clips.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from tests.small_run import recipe_file

import reelmill.datasets.media.container as container
from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.explain.plan import make_plan
from reelmill.curation.near_duplicate import NearDuplicate
from reelmill.curation.result import CurateResult
from reelmill.datasets.ledger import TrackReader
from reelmill.datasets.media.encode import write_image

pytestmark = pytest.mark.long

CLIPS = 2_000
MOVED = "Blur.min_sharpness=0.5"  # stricter: no clip comes back that would have to be cut
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "synthetic_clips.py"
RECIPE = """
kind: video
max_failed: 1.0
stages:
  [Probe, Integrity, Shots, Exposure, Blur, Motion, Freeze, Text, Loudness, Clipping, Voice, PHash,
   NearDuplicate, MOS, Balance: {max_share: 0.13}, Cut]
"""


def synthetic():
    spec = importlib.util.spec_from_file_location("synthetic_clips", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(folder: Path, *overrides: str) -> CurateOptions:
    return CurateOptions(
        sources=(str(folder / "media"),),
        workspace=folder / "workspace",
        recipe=recipe_file(folder, RECIPE),
        overrides=overrides,
        allow_missing=True,
        workers=0,
    )


def run(folder: Path, *overrides: str) -> tuple[CurateResult, list[str]]:
    curation = Curation(options(folder, *overrides))
    labels = []
    for step in curation.steps():
        step.run()
        labels.append(step.label)
    return curation.result(), labels


def rejected(result: CurateResult, stage: str) -> int:
    report = json.loads((Path(result.report).parent / "run.json").read_text())
    (count,) = (s["tally"]["rejected"]["count"] for s in report["stages"] if s["name"] == stage)
    return count


@pytest.fixture(scope="module")
def no_media():
    """Media are opened for the previews of the report alone, and these are no media."""
    opened: list[str] = []
    patch = pytest.MonkeyPatch()

    def refuse(path, *args, **more):
        opened.append(str(path))
        raise AssertionError(f"{path} was opened")

    patch.setattr(container.av, "open", refuse)
    patch.setattr("reelmill.curation.examples.PREVIEWS", 0)
    yield opened
    patch.undo()


@pytest.fixture(scope="module")
def place(tmp_path_factory, no_media) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    synthetic().make_workspace(options(folder), CLIPS)
    return folder


@pytest.fixture(scope="module")
def first(place) -> tuple[CurateResult, list[str]]:
    return run(place)


def test_a_full_ledger_is_decided_without_media_and_conserves(first, no_media):
    result, _ = first
    assert result.redone == 0
    assert no_media == []
    assert result.assets.into == CLIPS // 5
    assert CLIPS * 0.9 < result.clips.into <= CLIPS
    assert result.clips.into == result.clips.kept + result.clips.rejected
    for name in ("Blur", "NearDuplicate", "Balance"):
        assert rejected(result, name) > 0
    assert Path(result.report).stat().st_size < 5_000_000


def test_a_moved_bound_searches_no_pairs_reads_no_tracks_and_opens_no_media(
    place, first, no_media, monkeypatch
):
    before, labels = first

    def refuse(*_):
        raise AssertionError("searched again")

    monkeypatch.setattr(NearDuplicate, "compare", refuse)
    read = []
    real = TrackReader.__getitem__
    monkeypatch.setattr(
        TrackReader, "__getitem__", lambda self, unit: read.append(unit) or real(self, unit)
    )
    assert make_plan(options(place, MOVED)).todo == 0
    after, again = run(place, MOVED)
    assert after.redone == 0
    assert again == labels
    # Of all that are kept, Balance has a say too.
    assert rejected(after, "Blur") > rejected(before, "Blur")
    assert set(read) <= {"*"}  # what is known of all clips together
    assert no_media == []


def test_steps_grow_with_stages_and_not_with_clips(first, tmp_path, no_media):
    synthetic().make_workspace(options(tmp_path), 50)
    _, few = run(tmp_path)
    assert few == first[1]


def test_every_ledger_file_is_checked_once_a_run(place, first, monkeypatch):
    import reelmill.datasets.ledger as ledger

    checked: list[str] = []
    real = ledger.hashlib.file_digest

    def noting(file, name):
        checked.append(file.name)
        return real(file, name)

    monkeypatch.setattr(ledger.hashlib, "file_digest", noting)
    run(place, MOVED)
    ours = [name for name in checked if "/ledger/" in name or "/tracks/" in name]
    assert len(ours) == len(set(ours)) > 0


def test_one_of_a_hundred_changed_files_is_the_only_one_measured(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    rng = np.random.default_rng(0)
    for number in range(100):
        write_image(media / f"{number:03d}.png", rng.integers(0, 256, (96, 96, 3)).astype("uint8"))
    recipe = recipe_file(
        tmp_path, "kind: image\nmax_failed: 1.0\nstages: [Probe, WholeFile, Blur, PHash, Cut]\n"
    )

    def measured() -> dict[str, int]:
        curation = Curation(
            CurateOptions(sources=(str(media),), workspace=tmp_path / "w", recipe=recipe, workers=0)
        )
        counts: dict[str, int] = {}
        for step in curation.steps():
            done = step.run().measured
            counts[step.name] = counts.get(step.name, 0) + done
        return counts

    whole = measured()
    assert (whole["probe"], whole["image: shared decode"], whole["image: cut"]) == (100, 100, 100)
    write_image(media / "042.png", rng.integers(0, 256, (96, 96, 3)).astype("uint8"))
    one = measured()
    assert (one["probe"], one["image: shared decode"], one["image: cut"]) == (1, 1, 1)
