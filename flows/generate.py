"""Generation as a Prefect flow: from a prompt to a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from reelmill.flows import artifacts
from reelmill.flows.tasks import run_task
from reelmill.training import generate as engine
from reelmill.training.generate import GenerateOptions, GenerateResult

Length = Annotated[int | None, Field(ge=1, description="1 + a multiple of 4; empty: 17.")]


@flow(name="generate", flow_run_name="generate {output}", retries=0)
def generate(
    prompt: Annotated[str, Field(description="What is to be seen and heard.")],
    model: Annotated[Path, Field(description="Folder that training exported.")],
    output: Annotated[Path, Field(description="File to write; its suffix names the format.")],
    task: Annotated[str | None, Field(description="t2av, i2v...; empty: by what is given.")] = None,
    image: Annotated[Path | None, Field(description="First frame.")] = None,
    video: Annotated[Path | None, Field(description="Video that is to get sound.")] = None,
    audio: Annotated[Path | None, Field(description="Sound that is to get a picture.")] = None,
    seconds: Annotated[float | None, Field(gt=0, description="Length.")] = None,
    frames: Length = None,
    height: Annotated[int, Field(ge=1, description="Pixels.")] = 64,
    width: Annotated[int, Field(ge=1, description="Pixels.")] = 64,
    fps: Annotated[int, Field(ge=1, description="Frames per second.")] = 16,
    steps: Annotated[int, Field(ge=1, description="Steps of the sampler.")] = 50,
    shift: Annotated[float, Field(gt=0, description="Shift of the sampler's times.")] = 5.0,
    text_scale: Annotated[float, Field(description="Guidance by the prompt; 1: off.")] = 1.0,
    seed: Annotated[int, Field(description="Seed of all that is random.")] = 0,
) -> GenerateResult:
    """Generates one clip and writes it, with its provenance beside it."""
    options = GenerateOptions(
        prompt=prompt,
        model=model,
        output=output,
        task=task,
        image=image,
        video=video,
        audio=audio,
        seconds=seconds,
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        steps=steps,
        shift=shift,
        text_scale=text_scale,
        seed=seed,
    )
    result = run_task(
        "generate",
        lambda: engine.generate(options),
        lambda r: f"{r.output}, {r.frames} frames, {r.seconds:.2f} s",
    )
    artifacts.generated(result)
    return result
