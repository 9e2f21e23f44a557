"""The prompts that come with the package, and what makes a prompt wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from tests.evaluation.footage import prompt

from reelmill.errors import PromptError
from reelmill.evaluation.bench import (
    Language,
    Scene,
    Shots,
    Sound,
    Subject,
    Tempo,
    own_bench,
    read_bench,
)
from reelmill.evaluation.taxonomy import Stream, dimension_of, dimensions


def test_the_taxonomy_is_the_papers():
    sizes = {d.name: len(d.parts) for d in dimensions()}
    assert sizes == {
        "instruction_following": 8,
        "audio_visual_sync": 4,
        "visual_quality": 4,
        "motion_quality": 5,
        "audio_quality": 5,
    }
    names = [part.name for d in dimensions() for part in d.parts]
    assert len(set(names)) == 26
    assert dimension_of("lip_sync") == "audio_visual_sync"
    streams = Counter(part.stream for part in dimensions()[0].parts)
    assert streams == {Stream.VIDEO: 5, Stream.AUDIO: 3}


def test_every_cell_has_a_prompt_in_both_halves_of_the_bench():
    bench = own_bench()
    assert len(bench.prompts) == 120
    assert bench.missing_cells() == ()
    assert Counter(p.language for p in bench.prompts) == {Language.EN: 60, Language.ZH: 60}
    for sound in Sound:
        assert len({p.language for p in bench.prompts if p.sound is sound}) == 2
    for kind, field in ((Subject, "subject"), (Scene, "scene"), (Tempo, "tempo")):
        assert {getattr(p, field) for p in bench.prompts} == set(kind)
    assert sum(bool(p.screen_text) for p in bench.prompts) >= 20
    assert len({p.text for p in bench.prompts}) == 120


def test_chinese_prompts_are_chinese_and_english_ones_are_not():
    for p in own_bench().prompts:
        chinese = sum("\u4e00" <= c <= "\u9fff" for c in p.text)
        assert (chinese > 20) == (p.language is Language.ZH), p.id


def test_cuts_that_a_prompt_asks_for_stand_in_its_words():
    for p in own_bench().prompts:
        for cut in p.cuts:
            assert p.text.count(f"{cut:g}") >= 2, p.id
        assert (p.shots is Shots.MULTI) == ("[0-" in p.text), p.id


def test_expected_words_come_from_the_tags():
    p = prompt(
        sound="speech",
        text="She says <dialogue>One,\n two.</dialogue> then <dialogue>Three</dialogue>, a sign "
        "reads <text>EXIT</text>, <sfx>rain</sfx>, <bgm>piano</bgm>.",
    )
    assert p.dialogue == ("One, two.", "Three")
    assert (p.screen_text, p.effects, p.music, p.singing) == (("EXIT",), ("rain",), ("piano",), ())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"text": "A sound <sfx>that never ends"}, "not balanced"),
        ({"text": "A sound <sfx>in <text>a</text></sfx> tag"}, "not balanced"),
        ({"text": "An <effect>unknown</effect> <sfx>tag</sfx>"}, "not balanced"),
        ({"sound": "speech"}, "has no <dialogue>"),
        ({"sound": "music"}, "has no <bgm>"),
        ({"sound": "singing"}, "has no <singing>"),
        ({"text": "Nothing can be heard here."}, "has no <sfx>"),
        ({"cuts": (2.0, 1.0)}, "must rise"),
        ({"cuts": (3.8,)}, "must rise"),
        ({"id": "../etc"}, "pattern"),
        ({"camera": "drunk"}, "static"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_wrong_prompt_is_told_what_is_wrong(changes: dict, told: str):
    with pytest.raises(ValidationError, match=told):
        prompt(**changes)


def test_own_files_of_prompts_are_read_and_errors_name_file_and_prompt(tmp_path: Path):
    rows = [prompt(id=f"p{i}").model_dump(mode="json") for i in range(3)]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(rows))
    bench = read_bench([path])
    assert bench.get("p1") == prompt(id="p1")
    assert bench.get("p9") is None
    assert len(bench.missing_cells()) == 119

    with pytest.raises(PromptError, match=r"given twice: p0, p1"):
        read_bench([path, path])
    rows[1]["sound"] = "noise"
    path.write_text(yaml.safe_dump(rows))
    with pytest.raises(PromptError, match=r"mine\.yaml: prompt p1: sound"):
        read_bench([path])


@pytest.mark.parametrize("text", ["a: b", "- [", "!!python/object/apply:os.system [ls]", "7", ""])
def test_what_is_no_list_of_prompts_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(PromptError, match=r"bad\.yaml"):
        read_bench([path])


def test_a_missing_file_of_prompts_is_a_clear_error(tmp_path: Path):
    with pytest.raises(PromptError, match=r"cannot be read"):
        read_bench([tmp_path / "none.yaml"])


def test_another_wording_has_another_digest():
    assert prompt().digest == prompt().digest
    assert prompt().digest != prompt(text="A cube bounces. <sfx>a tone</sfx>").digest
