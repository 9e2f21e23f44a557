"""A clip without people goes through the whole run: kept, its route in the shard's JSON."""

from __future__ import annotations

import json
import shutil
import tarfile

import pytest

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.curation.recipe import Recipe, to_yaml
from reelmill.curation.recipes import video
from reelmill.datasets.sample import Kind

pytestmark = [pytest.mark.media, pytest.mark.slow]

WANTED = {
    "panda_whales.mp4": ("none", "background", "off_screen"),
    "panda_romans.mp4": ("multi", "voice_over", "off_screen"),
    "real3d_may_5s.mp4": ("single", "lips", "on_screen"),
}
STAGES = ("Probe", "Integrity", "Shots", "Loudness", "Voice", "SoundClass", "Faces", "Talking")


def test_routes_are_in_the_shards(tmp_path, media, weights):
    source = tmp_path / "media"
    source.mkdir()
    for name in WANTED:
        shutil.copy(next(media.rglob(name)), source / name)
    recipe = tmp_path / "recipe.yaml"
    chosen = tuple(s for s in video().stages if s.name in (*STAGES, "Cut"))
    recipe.write_text(to_yaml(Recipe(Kind.VIDEO, chosen)))
    curation = Curation(
        CurateOptions(
            sources=(str(source),),
            workspace=tmp_path / "work",
            recipe=str(recipe),
            overrides=("Cut.max_height=96", "Cut.preset=ultrafast"),
            weights=weights,
            workers=0,
        )
    )
    for step in curation.steps():
        step.run()
    found: dict[str, tuple[str, ...]] = {}
    for shard in (tmp_path / "work").rglob("*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    record = json.load(tar.extractfile(member))
                    facts = record["facts"]
                    found[record["file"]] = tuple(facts[n] for n in ("people", "route", "voice"))
    assert found == WANTED
