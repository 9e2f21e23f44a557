"""`reelmill enhance`: free words become a prompt as captions are written."""

from __future__ import annotations

from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

EPILOG = examples(
    "reelmill enhance 'a man says hello' --model some-model --url http://localhost:8000/v1",
    "reelmill enhance 'a red ball bounces' --model m > prompt.txt",
)


def enhance(
    prompt: Annotated[str, typer.Argument(help="What is to be seen and heard, in free words.")],
    model: Annotated[str, typer.Option(help="The language model's name at the endpoint.")],
    url: Annotated[
        str, typer.Option(help="OpenAI-compatible endpoint, up to /v1.")
    ] = "http://localhost:8000/v1",
    key_env: Annotated[
        str, typer.Option(help="Variable of the environment that holds its key.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Rewrites a prompt with the tags of the training captions, by a language model."""
    from reelmill.curation.caption.endpoint import Endpoint, EndpointOptions
    from reelmill.curation.caption.enhance import enhance as run
    from reelmill.errors import PromptError, UsageError
    from reelmill.model.prompt import Prompt

    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url}: it must begin with http:// or https://.")
    Prompt.parse(prompt)

    def check(text: str) -> None:
        try:
            Prompt.parse(text)
        except PromptError as error:
            raise ValueError(str(error)) from error

    with Endpoint(EndpointOptions(url=url, model=model, key_env=key_env)) as endpoint:
        text = run(prompt, endpoint, check)
    console.say(text)
    console.answer({"prompt": text})
