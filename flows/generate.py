"""Generation as a Prefect flow: from a prompt to a clip."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from reelmill.flows import artifacts
from reelmill.flows.form import form
from reelmill.flows.limit import Limit, Timeout
from reelmill.flows.tasks import run_task
from reelmill.training import generate as engine
from reelmill.training.generate import GenerateOptions, GenerateResult

FIELDS = frozenset(field.name for field in fields(GenerateOptions))
FIELDS = frozenset(field.name for field in fields(GenerateOptions))
Length = Annotated[int | None, Field(ge=1, description="1 + a multiple of 4; empty: 17.")]


@flow(name="generate", flow_run_name="generate {output}", retries=0)
@form
def generate(
    prompt: Annotated[str, Field(description="What is to be seen and heard.")],
    model: Annotated[Path, Field(description="Folder that training exported.")],
    output: Annotated[Path, Field(description="File to write; its suffix names the format.")],
    task: Annotated[str | None, Field(description="t2av, i2v...; empty: by what is given.")] = None,
    image: Annotated[Path | None, Field(description="First frame.")] = None,
    end: Annotated[Path | None, Field(description="Last frame.")] = None,
    video: Annotated[Path | None, Field(description="Gets sound, is edited or goes on.")] = None,
    audio: Annotated[Path | None, Field(description="Sound that is to get a picture.")] = None,
    keep: Annotated[Path | None, Field(description="Mask: light where the source stays.")] = None,
    change: Annotated[
        tuple[int, int, int, int] | None,
        Field(description="Instead of keep: the box x, y, width, height that is made anew."),
    ] = None,
    strength: Annotated[
        float | None, Field(gt=0, le=1, description="Share of noise over the video.")
    ] = None,
    references: Annotated[
        dict[str, Path] | None, Field(description="Files by the names that the prompt uses.")
    ] = None,
    negative: Annotated[str, Field(description="What guidance leads away from.")] = "",
    negative_audio: Annotated[
        str | None, Field(description="The same for the sound, if another.")
    ] = None,
    seconds: Annotated[float | None, Field(gt=0, description="Length.")] = None,
    frames: Length = None,
    height: Annotated[int, Field(ge=1, description="Pixels.")] = 64,
    width: Annotated[int, Field(ge=1, description="Pixels.")] = 64,
    fps: Annotated[int, Field(ge=1, description="Frames per second.")] = 16,
    steps: Annotated[int, Field(ge=1, description="Steps of the sampler.")] = 50,
    shift: Annotated[float, Field(gt=0, description="Shift of the sampler's times.")] = 5.0,
    solver: Annotated[
        Literal["euler", "heun", "unipc"], Field(description="How a step is made.")
    ] = "euler",
    text_scale: Annotated[float, Field(description="Guidance by the prompt; 1 is off.")] = 1.0,
    audio_text_scale: Annotated[
        float | None, Field(description="The same for the sound, if another.")
    ] = None,
    modality_scale: Annotated[float, Field(description="Guidance by the other modality.")] = 1.0,
    reference_scale: Annotated[float, Field(description="Guidance by references.")] = 1.0,
    rescale: Annotated[float, Field(ge=0, le=1, description="Against added contrast.")] = 0.0,
    refine: Annotated[bool, Field(description="By the Refiner: larger, twice the rate.")] = False,
    scale: Annotated[int, Field(ge=1, le=4, description="How many times as large.")] = 2,
    refine_steps: Annotated[int, Field(ge=1, description="Steps of the Refiner.")] = 12,
    seed: Annotated[int, Field(description="Seed of all that is random.")] = 0,
    preview: Annotated[bool, Field(description="Write a sheet of frames beside it.")] = False,
    timeout: Timeout = None,
) -> GenerateResult:
    """Generates one clip and writes it, with its provenance beside it."""
    given = {name: value for name, value in locals().items() if name in FIELDS}
    limit = Limit(timeout)
    options = GenerateOptions(**given | {"references": references or {}})
    result = run_task(
        "generate",
        lambda: engine.generate(options),
        lambda r: f"{r.output}, {r.frames} frames, {r.seconds:.2f} s",
        limit=limit,
    )
    artifacts.generated(result)
    return result
