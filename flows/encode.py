"""Encoding as a Prefect flow: curated shards to latent shards.

It says that latents are there as an event: `reelmill.latents.approved` where every shard folder
has its approval, which starts `train` (see prefect.yaml), else `reelmill.latents.unreviewed`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.events import emit_event
from pydantic import Field

from reelmill.datasets.approval import check
from reelmill.flows import artifacts
from reelmill.flows.form import form
from reelmill.flows.limit import Limit, Timeout
from reelmill.flows.tasks import LogProgress, ended, run_task
from reelmill.training import encode as engine
from reelmill.training.encode import EncodeOptions, EncodeResult
from reelmill.training.encode_request import parse_size

APPROVED, UNREVIEWED = "reelmill.latents.approved", "reelmill.latents.unreviewed"


@flow(name="encode", flow_run_name="encode into {output}", retries=0)
@form
def encode(
    shards: Annotated[list[Path], Field(description="Folders of curated shards.")],
    output: Annotated[Path, Field(description="Folder of latent shards.")],
    fps: Annotated[int, Field(ge=1, description="Frames per second of the latents.")] = 16,
    height: Annotated[int, Field(ge=16, description="Pixels; a multiple of 16.")] = 64,
    width: Annotated[int, Field(ge=16, description="Pixels; a multiple of 16.")] = 64,
    frames: Annotated[list[int], Field(description="Bucket lengths, each 1 + 4k.")] = [33, 17],  # noqa: B006
    stride: Annotated[int, Field(ge=1, description="Frames between a clip's windows.")] = 8,
    video_codec: Annotated[Path | None, Field(description="Saved codec; empty: PCA.")] = None,
    audio_codec: Annotated[Path | None, Field(description="Saved codec; empty: PCA.")] = None,
    encoder: Annotated[Path | None, Field(description="Saved encoder; empty: hashed.")] = None,
    channels: Annotated[int, Field(ge=1, description="Of a fitted video codec.")] = 4,
    dtype: Annotated[
        Literal["float16", "float32"], Field(description="Of stored latents.")
    ] = "float16",
    low: Annotated[
        int, Field(ge=0, description="For the Refiner: times smaller, at half the rate; 0: not.")
    ] = 0,
    views: Annotated[
        Path | None, Field(description="Of `reelmill views`: its windows of this size.")
    ] = None,
    also: Annotated[list[str], Field(description="Other sizes, WIDTHxHEIGHT.")] = [],  # noqa: B006
    timeout: Timeout = None,
) -> EncodeResult:
    """Turns pictures, sound and captions into tensors, once."""
    limit = Limit(timeout)
    options = EncodeOptions(
        shards=tuple(shards),
        output=output,
        fps=fps,
        height=height,
        width=width,
        frames=tuple(frames),
        stride=stride,
        video_codec=video_codec,
        audio_codec=audio_codec,
        encoder=encoder,
        channels=channels,
        dtype=dtype,
        low=low,
        views=views,
        sizes=tuple(parse_size(size) for size in also),
    )
    result = run_task(
        "encode",
        lambda: engine.encode(options, LogProgress("encode")),
        _said,
        reused=lambda r: r.reused == r.parts,
        resumes=True,
        limit=limit,
    )
    artifacts.encoded(result)
    whole = output.resolve()
    emit_event(
        event=APPROVED if all(check(folder) for folder in shards) else UNREVIEWED,
        resource={
            "prefect.resource.id": f"reelmill.latents.{whole}",
            "prefect.resource.name": whole.name,
        },
        payload={"latents": str(whole), "checkpoints": str(whole.parent / "checkpoints")},
    )
    return ended(result, _said(result))


def _said(result: EncodeResult) -> str:
    return f"{result.samples} samples of {result.clips} clips, {len(result.failed)} failed"
