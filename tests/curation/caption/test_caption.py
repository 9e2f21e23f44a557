"""Captions: only what is in the clip, of the right clip, from models that misbehave."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.caption_server import Model, model_on_loopback, slowly

from reelmill.curation.caption.caption import FROM_FACTS, Caption
from reelmill.curation.caption.endpoint import MAX_ANSWER
from reelmill.curation.caption.evidence import Evidence
from reelmill.curation.caption.structured import TAGS, Part, compose, same_words, take_apart
from reelmill.curation.stage import NotApplicable, NotMeasured
from reelmill.datasets.media.decode import AudioInfo, MediaInfo
from reelmill.datasets.sample import Clip, Kind
from reelmill.errors import MediaError
from reelmill.model.prompt import Prompt

SPEECH = {
    "speech_ratio": 0.8,
    "sound_class": "speech",
    "music_score": 0.01,
    "transcript": "Ask not what your country can do for you.",
    "camera": "zoom_in",
    "people": "single",
    "voice": "on_screen",
    "text": "ON AIR\nLIVE",
    "luma": 120.0,
}


INFO = MediaInfo(Kind.VIDEO, "mp4", 2.0, 1, None, AudioInfo(48_000, 2, "aac", 0.0))


@dataclass
class Shown:
    clip: Clip
    facts: dict = field(default_factory=lambda: dict(SPEECH))
    info: MediaInfo = INFO

    def frames(self, fps: float, height: int) -> np.ndarray:
        return np.zeros((9, 36, 64, 3), np.uint8)

    def audio(self, rate: int) -> np.ndarray:
        return np.zeros(rate, np.float32)


def shown(number: int, kind: Kind = Kind.VIDEO, **facts) -> Shown:
    clip = Clip(f"{number:064x}"[::-1], kind, 0, 2000, Fraction(1, 1000), 0, 0, 50)
    return Shown(clip, SPEECH | facts)


def captions(stage: Caption, clips: list[Shown]) -> list[dict | str]:
    """Facts, or the words of the failure, as the engine asks: all at once, then one by one."""
    with stage.session(None) as measure:
        try:
            return [dict(facts) for facts in measure(clips)]
        except MediaError:
            found: list[dict | str] = []
            for one in clips:
                try:
                    found.append(dict(measure([one])[0]))
                except MediaError as error:
                    found.append(f"{error.cause}: {error}")
            return found


@pytest.fixture
def model():
    with model_on_loopback() as found:
        yield found


def asking(at: Model, **fields) -> Caption:
    return Caption(url=at.url, **({"model": "seer", "tries": 2, "timeout_s": 2.0} | fields))


def test_without_a_model_only_what_was_measured_is_said():
    (facts,) = captions(Caption(), [shown(1)])
    assert facts["caption_source"] == FROM_FACTS
    assert facts["caption_short"] == "A video of one person."
    assert facts["caption_structured"] == (
        "A video of one person. The camera moves in. Someone speaks. <text>ON AIR</text> "
        "<text>LIVE</text> <dialogue>Ask not what your country can do for you.</dialogue>"
    )
    assert isinstance(facts["shot_type"], NotMeasured)


@pytest.mark.parametrize(
    ("facts", "there", "missing"),
    [
        ({"sound_class": "music", "music_score": 0.9, "speech_ratio": 0.0}, "<bgm>", "<dialogue>"),
        ({"music_score": 0.2}, "<bgm>music</bgm>", "<sfx>"),
        ({"music_score": 0.19}, "<dialogue>", "<bgm>"),
        ({"speech_ratio": 0.0}, "<text>", "<dialogue>"),
        ({"transcript": NotMeasured("weights 'whisper' absent")}, "<text>", "<dialogue>"),
        ({"sound_class": "singing"}, "<singing>Ask not", "<dialogue>"),
        ({"sound_class": "effects"}, "<sfx>", "<bgm>"),
        ({"text": NotApplicable("no text")}, "<dialogue>", "<text>"),
        ({"voice": "off_screen"}, "who is not seen", "<bgm>"),
        (dict.fromkeys(SPEECH, NotMeasured("x")), "A video.", "<"),
    ],
)
def test_a_tag_stands_only_where_its_measurement_does(facts, there, missing):
    (found,) = captions(Caption(), [shown(1, **facts)])
    assert there in found["caption_structured"]
    assert missing not in found["caption_structured"]


def test_models_see_and_hear_and_one_caption_comes_of_it(model):
    clips = [shown(n, sound_class="effects", music_score=0.5) for n in range(5)]
    found = captions(asking(model, sound_model="hearer"), clips)
    assert {(q.pictures, q.sounds) for q in model.asked} == {(8, 0), (0, 1)}
    assert len({facts["caption_long"] for facts in found}) == len(clips)
    for facts in found:
        assert facts["caption_source"] == "sight: seer; sound: hearer"
        text = facts["caption_structured"]
        assert "Much to see in" in text
        assert "<sfx>steps</sfx> <bgm>a slow piano</bgm>" in text
        assert "Shot: medium, eye level." in text
        assert facts["caption_removed"] == 0
    assert "Ask not what" in model.asked[0].text


def test_a_model_that_hears_is_asked_unless_the_clip_is_silent(model):
    unknown = NotMeasured("weights 'yamnet' absent")
    heard = shown(1, sound_class=unknown, music_score=unknown)
    silent = shown(2, sound_class=NotApplicable("silent"))
    first, second = captions(asking(model, model="", sound_model="hearer"), [heard, silent])
    assert len(model.asked) == 1
    assert "Sounds of" in first["caption_long"]
    assert "<bgm>" not in first["caption_structured"]  # claimed, and not measured
    assert first["caption_removed"] == 2
    assert second["caption_source"] == FROM_FACTS


def test_what_measurements_deny_is_removed_and_counted(model):
    def invents(question):
        told = json.loads(model.well(question).strip("`json\n"))
        told["long"] += (
            " <dialogue>Buy now!</dialogue> <bgm>a choir</bgm> <text>LIVE</text>"
            " <text>SALE</text> <singing>la la</singing>"
        )
        return json.dumps(told)

    model.answer = invents
    (facts,) = captions(asking(model), [shown(1)])
    text = facts["caption_structured"]
    assert facts["caption_removed"] == 4
    for invented in ("Buy now", "choir", "SALE", "la la"):
        assert invented not in text
        assert invented in facts["caption_denied"]
    assert text.count("<text>LIVE</text>") == 1
    assert "<dialogue>Ask not what your country can do for you.</dialogue>" in text


def test_the_models_own_words_for_speech_give_way_to_the_transcript(model):
    def quotes(question):
        told = json.loads(model.well(question).strip("`json\n"))
        told["long"] += " <dialogue>ask NOT what your country can do for you</dialogue>"
        return json.dumps(told)

    model.answer = quotes
    (facts,) = captions(asking(model), [shown(1)])
    assert facts["caption_removed"] == 0
    assert (
        "<dialogue>Ask not what your country can do for you.</dialogue>"
        in (facts["caption_structured"])
    )


def test_two_answers_that_were_swapped_are_caught(model):
    """Once: it is asked again and comes out right. Always: both fail by name."""
    clips = [shown(n) for n in range(4)]
    once: dict[str, str] = {}
    for always in (False, True):
        first = captions(asking(model), clips)
        names = {}
        for facts in first:
            digest = facts["caption_short"].split()[-1].strip(".")
            names[digest] = facts
        a, b = list(names)[:2]
        swapped = {a: b, b: a}
        done: set[str] = set()

        def swap(question, swapped=swapped, done=done, always=always):
            good = model.well(question)
            if question.clip in swapped and (always or question.clip not in done):
                done.add(question.clip)
                return good.replace(question.clip, swapped[question.clip])
            return good

        model.answer = swap
        found = captions(asking(model), clips)
        model.answer = None
        if not always:
            assert found == first
            once = first[0]
            continue
        failed = [f for f in found if isinstance(f, str)]
        assert len(failed) == 2
        assert all("about another clip" in words for words in failed)
        assert found[2:] == first[2:]
    assert once


def test_an_answer_that_repeats_another_is_caught(model):
    def repeats(question):
        told = json.loads(model.well(question).strip("`json\n"))
        return json.dumps(told | {"long": "A man walks down the street."})

    model.answer = repeats
    found = captions(asking(model), [shown(n) for n in range(3)])
    failed = [facts for facts in found if isinstance(facts, str)]
    assert len(failed) == 2
    assert all("repeats the caption of clip" in words for words in failed)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"clip": "', "no JSON"),
        ("I cannot help with that.", "no JSON object"),
        ("[" * 100_000, "JSON"),
        ((200, b"<html><body>It works!</body></html>"), "no chat completion"),
        ((200, b'{"choices": []}'), "no chat completion"),
        ((200, b'{"choices": [{"message": {"content": 3}}]}'), "holds no text"),
        ((200, b"x" * (MAX_ANSWER + 1)), "longer than"),
        ((500, b"oops"), "500"),
        ((401, b"who are you?"), "is the key right"),
        ((302, b""), "302"),
        ('{"clip": "CLIP", "short": "a"}', "no long"),
        ('{"clip": "CLIP", "short": "a", "long": ["b"]}', "long is no text"),
        ('{"clip": "CLIP", "short": "a", "long": "   "}', "no long"),
    ],
)
def test_answers_that_cannot_be_used_fail_by_name_and_spare_the_others(model, answer, says):
    clips = [shown(n) for n in range(3)]
    bad: list[str] = []

    def spoil(question):
        if not bad:
            bad.append(question.clip)
        if question.clip != bad[0]:
            return model.well(question)
        return answer.replace("CLIP", question.clip) if isinstance(answer, str) else answer

    model.answer = spoil
    found = captions(asking(model, at_once=1), clips)
    assert found[0].startswith("transient: model seer")
    assert says in found[0]
    assert [isinstance(facts, dict) for facts in found] == [False, True, True]


def test_who_is_slow_is_left_and_asked_again(model):
    calls: list[str] = []

    def slow_once(question):
        calls.append(question.clip)
        if len(calls) == 1:
            slowly(1.0)
        return model.well(question)

    model.answer = slow_once
    (facts,) = captions(asking(model, timeout_s=0.3), [shown(1)])
    assert "Much to see" in facts["caption_long"]
    model.answer = lambda question: slowly(0.6) or model.well(question)
    (words,) = captions(asking(model, timeout_s=0.2), [shown(2)])
    assert "took too long" in words


def test_what_fails_for_a_while_is_asked_again(model):
    asked: list[str] = []

    def busy(question):
        asked.append(question.clip)
        return (503, b"busy") if asked.count(question.clip) == 1 else model.well(question)

    model.answer = busy
    assert all(isinstance(f, dict) for f in captions(asking(model), [shown(n) for n in range(4)]))


def test_a_batch_with_one_failure_asks_no_good_clip_again(model):
    clips = [shown(n) for n in range(4)]
    model.answer = lambda q: "no" if q.clip == model.asked[0].clip else model.well(q)
    found = captions(asking(model, at_once=1), clips)
    assert sum(isinstance(f, str) for f in found) == 1
    assert len(model.asked) == 3 + 2  # two tries of the bad one


def test_nobody_there_is_told_soon():
    stage = Caption(model="seer", url="http://127.0.0.1:9/v1", tries=2)
    found = captions(stage, [shown(n) for n in range(30)])
    assert all(isinstance(words, str) for words in found)
    assert "does not answer" in found[-1]


def test_the_budget_ends_questions_and_not_the_run(model):
    clips = [shown(n) for n in range(5)]
    found = captions(asking(model, max_questions=3, at_once=1), clips)
    assert [isinstance(f, dict) for f in found] == [True, True, True, False, False]
    assert "budget of 3 questions" in found[-1]
    assert len(model.asked) == 3


def test_the_key_comes_from_the_environment(model, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", "s3cret")
    captions(asking(model, key_env="CAPTION_KEY"), [shown(1)])
    assert model.asked[0].key == "Bearer s3cret"


def test_the_address_is_no_part_of_the_measurement():
    a = Caption(model="seer", url="http://a/v1", at_once=2)
    b = Caption(model="seer", url="http://b/v1", tries=9)
    assert a.measuring() == b.measuring()
    assert a.measuring() != Caption(model="other", url="http://a/v1").measuring()


WORDS = st.text(st.characters(codec="utf-8"), max_size=30)


@given(WORDS, st.lists(st.tuples(st.sampled_from(TAGS), WORDS), max_size=4))
def test_a_composed_caption_comes_apart_into_what_it_was_made_of(text, parts):
    bare, _ = take_apart(text)
    claimed = [Part(tag, take_apart(words)[0]) for tag, words in parts]
    claimed = [part for part in claimed if part.words]
    again, found = take_apart(compose(bare, claimed))
    assert (again, sorted(map(str, found))) == (bare, sorted(map(str, claimed)))
    assert str(Prompt.parse(compose(bare, claimed))) == compose(bare, claimed)


def test_words_are_compared_without_case_and_punctuation():
    assert same_words("It's  HERE!", "it\u2019s here")
    assert not same_words("it is here", "it's here")
    assert Evidence(written=("NO SMOKING AREA",)).denies(Part("text", "smoking area")) is None
    assert Evidence(written=("NO SMOKING AREA",)).denies(Part("text", "moking")) is not None
