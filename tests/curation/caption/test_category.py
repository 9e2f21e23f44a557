"""Categories: what a caption names, by a user's taxonomy; and quotas by them."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.media import noise_video
from tests.small_run import curate, recipe_file

from reelmill.curation.balance import Balance
from reelmill.curation.caption.category import Category
from reelmill.curation.caption.taxonomy import Taxonomy
from reelmill.curation.stage import FactTable, NotApplicable, NotMeasured
from reelmill.curation.video.embedding import packed
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import RecipeError

TAXONOMY = """
- name: animal/dog
  words: [dog, puppy, german shepherd]
  without: [hot dog]
- name: scene/street
  words: [street, road, Crossing]
- name: food
  words: [hot dog, soup]
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "taxonomy.yaml"
    path.write_text(TAXONOMY)
    return path


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("Two DOGS run.", {"animal/dog": ["dog"]}),
        ("A German  shepherd and a puppy on the road", {"animal/dog": ["german shepherd", "puppy"],
                                                       "scene/street": ["road"]}),
        ("a hot dog on the street", {"scene/street": ["street"], "food": ["hot dog"]}),
        ("There is no dog and not a road, without soup", {}),
        ("dogma, roadster, streetwise", {}),
        ("crossings", {"scene/street": ["crossing"]}),
        ("", {}),
    ],
)  # fmt: skip
def test_words_that_a_caption_names(file, caption, found):
    told = Taxonomy.read(file).match(caption)
    assert told == found
    assert list(told) == list(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "list of 1"),
        ("- name: a", "must have name and words"),
        ("- {name: a, words: [], x: 1}", "may have without"),
        ("- {name: 'a=b', words: [c]}", "without blanks and = ;"),
        ("- {name: a b, words: [c]}", "without blanks"),
        ("- {name: a, words: []}", "has no words"),
        ("- {name: a, words: [1]}", "list of at most"),
        ("- {name: a, words: [b]}\n- {name: a, words: [c]}", "two categories 'a'"),
        ("- {name: a, words: !!python/object/apply:os.system ['x']}", "cannot be read"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_what_is_no_taxonomy_is_refused_with_its_place(tmp_path, text, says):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says):
        Taxonomy.read(path)


def test_contents_and_not_the_place_belong_to_the_measurement(file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(TAXONOMY)
    one = Category(taxonomy=str(file)).measuring()
    assert one == Category(taxonomy=str(other)).measuring()
    other.write_text(TAXONOMY.replace("soup", "stew"))
    assert one != Category(taxonomy=str(other)).measuring()


def test_what_is_not_known_says_why(file):
    known = Taxonomy.read(file)
    captions = {"caption_short": "A dog.", "caption_long": "A dog in the street, a road."}
    told = Category().judge(captions, known)
    assert told == {
        "category": "scene/street",
        "categories": "scene/street;animal/dog",
        "category_words": "street;road",
    }
    assert set(Category().judge(captions, None).values()) == {NotMeasured("no taxonomy is given")}
    plain = dict.fromkeys(captions, "Something.")
    assert set(Category().judge(plain, known).values()) == {NotApplicable("the caption names none")}
    silent = dict.fromkeys(captions, NotMeasured("why"))
    assert set(Category().judge(silent, known).values()) == {NotMeasured("why")}


def table(**columns) -> FactTable:
    count = len(next(iter(columns.values())))
    clips = [Clip(f"{i:064x}"[::-1], Kind.VIDEO, 0, 2, Fraction(1), 0, 0, 1) for i in range(count)]
    return FactTable(clips, {name: np.array(v, object) for name, v in columns.items()})


def test_categories_are_held_to_quotas():
    names = ["dog"] * 6 + ["street"] * 3 + [None] * 2
    stage = Balance(by="category", quota="explicit", wanted=("dog=2", "none=1"))
    lost = stage.select(table(category=names))
    left = Counter(str(n) for i, n in enumerate(names) if i not in lost)
    assert left == {"dog": 2, "street": 3, "None": 1}
    assert stage.needs == ("category",)


def test_clusters_of_embeddings_are_concepts_and_not_looks():
    """Two planted concepts, whatever their order."""
    rng = np.random.default_rng(1)
    concepts = np.repeat([0, 1], [12, 4])
    vectors = np.eye(32)[concepts * 5] + 0.05 * rng.standard_normal((16, 32))
    stage = Balance(by="embedding", quota="cap").with_field("clusters", 2)
    labels = stage.labels(table(embedding=[packed(v) for v in vectors]))
    assert len(set(zip(concepts.tolist(), labels.tolist(), strict=True))) == 2
    lost = stage.with_field("max_share", 0.5).select(table(embedding=[packed(v) for v in vectors]))
    assert len(lost) == 8
    assert {concepts[i] for i in lost} == {0}
    with pytest.raises(ValueError, match="by is one of"):
        Balance(by="magic")


RECIPE = """
kind: video
stages: [Probe, Shots: {min_seconds: 0.5}, Caption, Category: {taxonomy: FILE},
         Balance: {by: category, quota: explicit, wanted: [clip=2]}, Cut: {preset: ultrafast}]
"""


def test_a_run_matches_captions_and_keeps_what_is_asked_for(tmp_path):
    (tmp_path / "media").mkdir()
    for seed in range(4):
        noise_video(tmp_path / "media" / f"{seed}.mp4", seconds=1.0, seed=seed)
    path = tmp_path / "t.yaml"
    path.write_text("- {name: clip, words: [video, clip, film]}\n")
    recipe = recipe_file(tmp_path, RECIPE.replace("FILE", str(path)))
    result = curate(tmp_path / "media", tmp_path / "w", recipe=recipe, workers=0)
    assert result.clips.to_json() == {"in": 4, "kept": 2, "rejected": 2, "failed": 0}
    bad = recipe_file(tmp_path, RECIPE.replace("Category: {taxonomy: FILE},", ""))
    with pytest.raises(RecipeError, match="needs 'category'"):
        curate(tmp_path / "media", tmp_path / "w", recipe=bad, workers=0)
