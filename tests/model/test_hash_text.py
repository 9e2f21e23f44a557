"""HashTextEncoder: deterministic everywhere, tells words and their order apart."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelmill.errors import CheckpointError, PromptError
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.encoders.load import load_encoder

ENCODER = HashTextEncoder()


def tokens(prompt: str) -> torch.Tensor:
    return ENCODER.encode([prompt]).tokens[0]


def test_a_known_prompt_has_known_tokens():
    """Guards what models were trained on: change it, and raise the encoder's version."""
    found = tokens("A red ball")[1, :4].tolist()
    assert found == pytest.approx(KNOWN, abs=1e-5)


KNOWN = [0.896538, -0.016404, 0.309735, 0.80381]


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("", 1),
        ("   ", 1),
        ("a red ball", 3),
        ("a red ball.", 4),
        ("<sfx>boing</sfx>", 3),
        ("@image_1 walks", 2),
        ("@Actor-0 sings", 2),
        ("红球", 1),
    ],
)
def test_words_tags_references_and_marks_are_tokens(prompt, count):
    assert tokens(prompt).shape == (count, 64)


def test_case_and_unicode_form_do_not_matter_but_words_and_order_do():
    assert torch.equal(tokens("Red BALL"), tokens("red ball"))
    assert torch.equal(tokens("caf\u00e9"), tokens("cafe\u0301"))
    a, b = tokens("red ball blue box"), tokens("blue ball red box")
    assert not torch.allclose(a.sum(0), b.sum(0), atol=0.1)  # not a bag of words
    assert (a[1] - b[1]).norm() < (a[1] - a[3]).norm()  # yet `ball` is like `ball`


def test_words_that_share_letters_are_nearer():
    def similarity(x, y):
        return torch.cosine_similarity(tokens(x), tokens(y)).item()

    assert similarity("bouncing", "bouncer") > similarity("bouncing", "silent") + 0.1


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_a_batch_is_its_prompts_padded_with_unit_tokens(prompts):
    text = ENCODER.encode(prompts)
    for prompt, own in zip(prompts, text.unstack(), strict=True):
        assert torch.equal(own, tokens(prompt))
        assert torch.allclose(own.square().mean(1), torch.ones(len(own)), atol=1e-4)


def test_long_prompts_are_cut_and_absurd_ones_refused():
    assert len(tokens("word " * 1000)) == ENCODER.max_tokens == 256
    with pytest.raises(PromptError, match="100000"):
        tokens("x" * 100_001)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    encoder = HashTextEncoder(width=32, max_tokens=9)
    encoder.save(tmp_path)
    assert load_encoder(tmp_path) == encoder
    assert encoder.fingerprint() != ENCODER.fingerprint()


@pytest.mark.parametrize(
    "head",
    [
        '{"kind": "Other"}',
        "[]",
        "",
        '{"kind": "HashTextEncoder", "width": 1e9, "max_tokens": 3, "version": 1}',
        '{"kind": "HashTextEncoder", "width": 64, "max_tokens": 256, "version": 2}',
    ],
)
def test_a_damaged_encoder_is_a_checkpoint_error(tmp_path, head):
    (tmp_path / "encoder.json").write_text(head)
    with pytest.raises(CheckpointError):
        load_encoder(tmp_path)
