"""SoundClassByModel: bound to the clip, one of four; scores that nobody gave stay unmeasured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.caption_server import Question, model_on_loopback
from tests.curation.audio.sounds import Heard, Shelf
from tests.media import tone

from reelmill.curation.audio.noise_in_class import NoiseInClass
from reelmill.curation.audio.sound_class_by_model import SoundClassByModel, class_of
from reelmill.curation.caption.evidence import Evidence
from reelmill.curation.recipe import check, override
from reelmill.curation.recipes import KNOWN, audio
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.datasets.sample import Kind
from reelmill.errors import MediaError

LOUD = {"mean_volume": -20.0}


def clip(seconds: float = 1.0, facts=LOUD) -> Heard:
    return Heard(tone(seconds, 16_000).astype(np.float32).reshape(-1), facts)


def asked(url: str, clips, **options):
    stage = SoundClassByModel(model="omni", url=url, **options)
    with stage.session(Shelf({})) as measure:
        return measure(clips)


def says(kind: object):
    return lambda q: json.dumps({"clip": q.clip, "class": kind})


def test_the_class_is_the_models_and_scores_are_nobodys():
    with model_on_loopback() as model:
        model.answer = says(" Music")
        (facts,) = asked(model.url, [clip()])
        (question,) = model.asked
    assert (question.sounds, question.pictures) == (1, 0)
    assert facts.pop("sound_class") == "music"
    assert {fact.name for fact in SoundClassByModel.adds} == {*facts, "sound_class"}
    assert {type(value) for value in facts.values()} == {NotMeasured}
    known = Evidence.of({**LOUD, **facts, "sound_class": "music"}, 0.2)
    assert known.music is True
    assert Evidence.of({**LOUD, **facts, "sound_class": "speech"}, 0.2).music is None
    judged = NoiseInClass().judge({**facts, "snr": 3.0, "sound_class": "effects"})
    assert isinstance(judged["judged_snr"], NotApplicable)


def test_silence_and_no_sound_are_not_asked_about():
    silent = Heard(np.zeros(8_000, np.float32), {"mean_volume": -91.0})
    none = clip(facts={"mean_volume": NotApplicable("no sound")})
    with model_on_loopback() as model:
        found = asked(model.url, [silent, none])
        assert not model.asked
    assert set(found[0].values()) == {NotApplicable("silent")}
    assert set(found[1].values()) == {NotApplicable("no sound")}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says("rain"), "none of speech"),
        (says(["music"]), "none of speech"),
        (lambda q: json.dumps({"clip": "0" * 16, "class": "music"}), "another clip"),
        (lambda q: (200, b"<html>"), "no chat completion"),
        (lambda q: (503, b""), "503"),
    ],
)
def test_what_is_no_answer_fails_by_name(answer, why):
    with model_on_loopback() as model:
        model.answer = answer
        with pytest.raises(MediaError, match=why) as error:
            asked(model.url, [clip()], tries=1)
    assert error.value.cause == "transient"


def test_two_swapped_answers_are_caught_and_asked_again():
    """Each of two questions gets the other's answer the first time."""
    clips = [clip(1.0), clip(2.0)]
    with model_on_loopback() as model:

        def swapped(question: Question) -> str:
            others = [q.clip for q in model.asked if q.clip != question.clip]
            first = sum(q.clip == question.clip for q in model.asked) == 1
            name = (others or ["0" * 16])[0] if first else question.clip
            return json.dumps({"clip": name, "class": "speech"})

        model.answer = swapped
        found = asked(model.url, clips, tries=3)
        assert len(model.asked) == 4
    assert [facts["sound_class"] for facts in found] == ["speech"] * 2


def test_a_class_is_one_of_four_and_a_model_is_named():
    assert class_of("a", '{"clip": "a", "class": "Singing"}') == "singing"
    with pytest.raises(ValueError, match="model must name one"):
        SoundClassByModel(model="")


def test_it_takes_the_place_of_the_small_network_in_a_recipe():
    from dataclasses import replace

    recipe = audio()
    stages = tuple(
        KNOWN["SoundClassByModel"] if s.name == "SoundClass" else s for s in recipe.stages
    )
    check(replace(recipe, stages=stages))
    moved = override({Kind.AUDIO: replace(recipe, stages=stages)}, ["SoundClassByModel.tries=2"])
    same = moved[Kind.AUDIO].stages[stages.index(KNOWN["SoundClassByModel"])]
    assert same.measuring() == KNOWN["SoundClassByModel"].measuring()  # nothing is measured anew
