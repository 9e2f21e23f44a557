"""A22: prompts, their references and tags."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelmill.errors import PromptError
from reelmill.model.prompt import MAX_CHARACTERS, TAGS, Prompt, Reference, Tagged

words = st.text(st.characters(codec="utf-8", exclude_characters="@<>"), min_size=1, max_size=12)
names = st.builds(
    lambda kind, mark, n: Reference(f"{kind}{mark}{n}"),
    st.sampled_from(["image", "video", "Actor", "Audio"]),
    st.sampled_from("_-"),
    st.integers(0, 99),
)  # fmt: skip


@st.composite
def sequences(draw, others):
    """Words and other parts in turn, so that no two runs of words touch; words around names are
    fenced by blanks, since `image_1s` names nothing."""
    out = []
    for other in draw(st.lists(others, max_size=4)):
        out += [" " + draw(words) + " ", other]
    return (*out, " " + draw(words)) if draw(st.booleans()) else tuple(out)


tagged = st.builds(Tagged, st.sampled_from(TAGS), sequences(names))


@given(sequences(st.one_of(names, tagged)))
def test_what_is_written_is_what_is_parsed(parts):
    prompt = Prompt(parts)
    assert Prompt.parse(str(prompt)) == prompt


pieces = st.sampled_from([*"@<>/a_-1", *TAGS, "<sfx>", "</sfx>", "image", "@image_1"])


@given(st.lists(pieces, max_size=12).map("".join))
def test_any_text_comes_back_or_is_refused(text):
    try:
        found = str(Prompt.parse(text))
    except PromptError:
        found = None
    if found is None:
        assert re.search(r"@[a-z]+[_-]\d|<", text)
    else:
        assert found == text


def test_references_are_found_once_in_order_in_tags_too():
    prompt = Prompt.parse("@image_2 and <dialogue>@Actor-0 says: @image_2!</dialogue> @actor_0")
    assert [r.name for r in prompt.references] == ["image_2", "Actor-0"]
    assert [r.kind for r in prompt.references] == ["image", "image"]
    assert prompt.tagged("dialogue") == ("@Actor-0 says: @image_2!",)


@pytest.mark.parametrize(
    ("text", "sounds"), [("<sfx>boing</sfx>", True), ("<text>HI</text>", False)]
)
def test_tags_of_sound_ask_for_sound(text, sounds):
    assert Prompt.parse(text).sounds == sounds


def test_addresses_sums_and_other_tags_are_words():
    text = "mail me@image_1 if 3 < 5, <b>bold</b> @home, @@image_1"
    assert Prompt.parse(text).parts == (text,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<sfx>boing", "<sfx> is not closed"),
        ("boing</sfx>", "character 5: </sfx> closes no <sfx>"),
        ("<sfx>a<bgm>b</bgm></sfx>", "tags do not nest"),
        ("@imag_1 walks", "reference @imag_1: names are @image_1"),
        ("x" * (MAX_CHARACTERS + 1), "100001 characters"),
    ],
)
def test_what_cannot_be_meant_is_a_prompt_error(text, message):
    with pytest.raises(PromptError, match=message):
        Prompt.parse(text)


def test_a_name_without_a_file_is_named():
    prompt = Prompt.parse("@image_1 meets @Actor-0")
    prompt.check(["image_1", "Actor-0"])
    prompt.check(["Image-1", "actor_0", "video_7"])
    with pytest.raises(PromptError, match=r"names @Actor-0, .*given: @image_1"):
        prompt.check(["image_1"])
    with pytest.raises(PromptError, match="@image_1 is given more than once"):
        prompt.check(["image_1", "image-1", "Actor-0"])
