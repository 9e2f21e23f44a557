"""The prompt enhancer: tags that parse, every reference kept, nothing else believed."""

from __future__ import annotations

import json
import re

import pytest
from tests.caption_server import model_on_loopback
from typer.testing import CliRunner

from reelmill.cli import app

GOOD = "@image_1 walks into a kitchen. <dialogue>Hello!</dialogue> <sfx>steps</sfx>"


def ask(model, *, prompt: str = '@image_1 says "Hello!"'):
    return CliRunner().invoke(app, ["enhance", prompt, "--model", "words", "--url", model.url])


@pytest.mark.parametrize(
    "first",
    [
        "nothing",
        '{"clip": "0123456789abcdef", "prompt": "another"}',
        '{"clip": "NAME", "prompt": "@image_1 <dialogue>Hello!"}',
        '{"clip": "NAME", "prompt": "A man says hello."}',
        '{"clip": "NAME", "prompt": "@image_1 meets @Actor-0."}',
        '{"clip": "NAME", "prompt": ""}',
    ],
)
def test_an_answer_that_will_not_do_is_asked_for_again(first):
    with model_on_loopback() as model:
        told = [first, json.dumps({"clip": "NAME", "prompt": GOOD})]

        def answer(question):
            name = re.search(r'"clip": "([0-9a-f]{16})"', question.text)[1]
            return told[min(len(model.asked), 2) - 1].replace("NAME", name)

        model.answer = answer
        done = ask(model)
        assert done.exit_code == 0
        assert GOOD in " ".join(done.stdout.split())
        assert len(model.asked) == 2


def test_a_model_that_never_does_it_is_told_in_words(monkeypatch):
    monkeypatch.setattr("reelmill.curation.caption.endpoint.BACKOFF_S", 0.01)
    with model_on_loopback() as model:
        model.answer = lambda question: "no"
        done = ask(model)
    assert done.exit_code != 0
    assert len(model.asked) == 4
    assert "no JSON object" in str(done.exception)
