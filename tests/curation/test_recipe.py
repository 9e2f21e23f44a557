"""Recipes: YAML, overrides and the whole-recipe check, on small stages of our own."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.curation.cut_stage import Cut
from reelmill.curation.recipe import Recipe, check, load_yaml, override, to_yaml
from reelmill.curation.stage import (
    AssetStage,
    Bound,
    Fact,
    FrameStage,
    Segmenter,
    TableStage,
    at_least,
    at_most,
    knob,
)
from reelmill.datasets.sample import Kind
from reelmill.errors import OverrideError, RecipeError


@dataclass(frozen=True, kw_only=True)
class Size(AssetStage):
    adds: ClassVar = (Fact("height", "px", "Rows."),)
    min_height: Bound = at_least(64, "height", "low_resolution")

    def measure(self, path, info):
        return {"height": info.video.height}


@dataclass(frozen=True, kw_only=True)
class Cuts(FrameStage, Segmenter):
    adds: ClassVar = (Fact("seconds", "s", "Length."),)
    threshold: Bound = knob(27)
    detector: str = "content"
    scale: float = 1.0
    levels: tuple[int, ...] = (1, 2)

    def open(self, info): ...
    def facts(self, tracks, clip, info): ...
    def segment(self, tracks, whole, info): ...


@dataclass(frozen=True, kw_only=True)
class Twins(TableStage):
    needs: ClassVar = ("seconds",)
    max_distance: Bound = knob(12)

    def select(self, table):
        return {}


KNOWN = {s.name: s for s in (Size(), Cuts(), Twins(), Cut())}
GOOD = Recipe(Kind.VIDEO, (Size(), Cuts(), Twins(), Cut()))


def test_a_recipe_survives_its_yaml(tmp_path):
    changed = override({Kind.VIDEO: GOOD}, ["Cuts.threshold=3.5", "Size.min_height=null"])[
        Kind.VIDEO
    ]
    path = tmp_path / "r.yaml"
    path.write_text(to_yaml(changed))
    again = load_yaml(path, KNOWN)
    assert again == changed
    assert again.digest == changed.digest != GOOD.digest


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_set_is_the_number_used(value):
    found = override({Kind.VIDEO: GOOD}, [f"Size.min_height={value!r}"])[Kind.VIDEO]
    assert found.stage("Size").bounds()["min_height"].value == value
    assert found.stage("Size").measuring() == GOOD.stage("Size").measuring()


@pytest.mark.parametrize("text", ["1e-05", "2.5e-05", "1e9", "-3E+2"])
def test_numbers_with_an_exponent_are_numbers(text):
    """As the report's sliders write them; YAML 1.1 takes those without a point for text."""
    found = override({Kind.VIDEO: GOOD}, [f"Size.min_height={text}"])[Kind.VIDEO]
    assert found.stage("Size").bounds()["min_height"].value == float(text)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("Sice.min_height=3", "did you mean 'Size'"),
        ("Size.min_hight=3", "did you mean 'min_height'"),
        ("Size.min_height=tall", "must be a number"),
        ("Size.min_height=.nan", "must be a number"),
        ("Size.min_height", "Stage.field=value"),
        ("Cuts.detector=3", "must be str"),
        ("Cuts.levels=3", "must be tuple"),
        ("Cuts.levels=[[]]", "must be a list of"),
        ("Cuts.scale=true", "must be float"),
        ("Cuts.scale=[", "no YAML value"),
        ("Cuts.scale=!!python/object/apply:os.system ['true']", "no YAML value"),
    ],
)
def test_a_wrong_override_is_explained(setting, says):
    with pytest.raises(OverrideError, match=says):
        override({Kind.VIDEO: GOOD}, [setting])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1\n", "mapping with kind and"),
        ("kind: film\nstages: [Size]", "must be video, image or audio"),
        ("kind: video\nstages: {}", "stages must be a list"),
        ("kind: video\nstages: [Sizes]", "did you mean 'Size'"),
        ("kind: video\nstages: [{Size: 3}]", "must be a mapping"),
        ("kind: video\nstages: [{Size: {min_heigh: 3}}]", "stage 1.*did you mean 'min_height'"),
        ("kind: video\nstage: []", "unknown key 'stage'; did you mean 'stages'"),
        ("kind: video\nmax_failed: 3\nstages: [Size]", "must be from 0 to 1"),
        ("kind: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("kind: video\nstages: [[Size]]", "stage 1 is"),
        ("[" * 5000, "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_wrong_recipe_file_is_explained(tmp_path, text, says):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        load_yaml(path, KNOWN)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ((Size(), Cuts(), Twins()), "last stage must be Cut"),
        ((Size(), Twins(), Cut()), "exactly one stage that makes clips"),
        ((Cuts(), Size(), Cut()), r"Size \(stage 2 of 3\) reads whole files"),
        ((Twins(), Cuts(), Cut()), r"Twins \(stage 1 of 3\) compares clips"),
        ((Size(), Size(), Cuts(), Cut()), "stands twice"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(stages, says):
    check(GOOD)
    with pytest.raises(RecipeError, match=says):
        check(Recipe(Kind.VIDEO, stages))


def test_a_stage_for_another_kind_is_refused():
    with pytest.raises(RecipeError, match="does not apply to audio"):
        check(Recipe(Kind.AUDIO, (Cuts(), Cut())))


def test_a_missing_need_names_the_remedy():
    @dataclass(frozen=True, kw_only=True)
    class Wants(TableStage):
        needs: ClassVar = ("face_track",)

        def select(self, table):
            return {}

    with pytest.raises(RecipeError, match=r"Wants \(stage 3 of 4\) needs 'face_track'"):
        check(Recipe(Kind.VIDEO, (Size(), Cuts(), Wants(), Cut())))


def test_a_bound_on_a_fact_of_another_stage_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Odd(TableStage):
        max_height: Bound = at_most(3, "height", "tall")

        def select(self, table):
            return {}

    with pytest.raises(RecipeError, match="bound max_height"):
        check(Recipe(Kind.VIDEO, (Size(), Cuts(), Odd(), Cut())))
