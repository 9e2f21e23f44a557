"""A prompt enhancer: free words become a structured caption (paper section 3.3), for inference."""

from __future__ import annotations

import re
from collections.abc import Callable

from reelmill.curation.caption.by_model import answer_for, binding, text_field
from reelmill.curation.caption.endpoint import Endpoint

REFERENCE = re.compile(r"(?<![\w@])@[A-Za-z]{1,20}[_-]\d{1,4}(?!\w)")
ASK = """Rewrite this prompt for a model that makes video with sound, as captions of its training
data are written: first what is to be seen, how it moves and how the camera moves, then, each only
if the prompt asks for it or clearly implies it: <text>words written in the picture</text>,
<dialogue>words spoken</dialogue>, <singing>words sung</singing>, <sfx>a sound</sfx>,
<bgm>music</bgm>. Keep words that the prompt quotes and names such as @image_1 exactly as they are,
and invent no such names. Answer with one JSON object and nothing else:
{{"clip": "{name}", "prompt": the rewritten prompt}}
Copy the value of "clip". The prompt:
{prompt}"""


def enhance(prompt: str, endpoint: Endpoint, check: Callable[[str], object]) -> str:
    """The prompt as a structured caption, with every reference that it names and no other.

    check: raises ValueError for a text that is no prompt. Raises UnansweredError.
    """
    name = binding(prompt, endpoint.options.model)
    asked = sorted(set(REFERENCE.findall(prompt)))

    def read(answer: str) -> str:
        text = text_field(answer_for(name, answer), "prompt", needed=True)
        found = sorted(set(REFERENCE.findall(text)))
        if found != asked:
            raise ValueError(f"it names {found or 'nothing'} where the prompt names {asked}")
        check(text)
        return text

    return endpoint.ask([{"type": "text", "text": ASK.format(name=name, prompt=prompt)}], read)
