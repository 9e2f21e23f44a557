"""`reelmill doctor`: what this machine has of what Reelmill can use."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from reelmill import console
from reelmill.commands.options import Json, examples

EPILOG = examples("reelmill doctor", "reelmill doctor --json")
CODECS = {"h264 encoder": "libx264", "aac encoder": "aac", "flac encoder": "flac"}
LOW_DISK_GB = 5
PREFECT_PORT = 4200


@dataclass(frozen=True)
class Finding:
    """One line of the answer. level: `ok`, `note` (something is optional or slow) or `bad`."""

    name: str
    level: str
    text: str


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}")


def _cpus() -> Finding:
    return Finding("cpus", "ok", f"{len(os.sched_getaffinity(0))} usable")


def _torch() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "note", f"none; torch {torch.__version__} runs on the CPU")
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return Finding("gpu", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")


def _ffmpeg() -> Finding:
    import av

    version = ".".join(str(n) for n in av.library_versions["libavcodec"])
    lacking = [f"{name} ({codec})" for name, codec in CODECS.items() if not _encodes(codec)]
    if lacking:
        return Finding("codecs", "bad", f"libavcodec {version} lacks {', '.join(lacking)}")
    return Finding("codecs", "ok", f"PyAV {av.__version__}, libavcodec {version}")


def _encodes(codec: str) -> bool:
    import av

    try:
        av.Codec(codec, "w")
    except ValueError:  # PyAV's UnknownCodecError
        return False
    return True


def _disk(folder: Path) -> Finding:
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    level = "ok" if free >= LOW_DISK_GB else "bad"
    writable = "" if os.access(there, os.W_OK) else ", not writable"
    return Finding("disk", "bad" if writable else level, f"{free:.0f} GB free at {there}{writable}")


def _speech() -> Finding:
    if shutil.which("espeak-ng"):
        return Finding("speech", "ok", "espeak-ng: the made corpus has spoken clips")
    return Finding("speech", "note", "no espeak-ng: the made corpus has no spoken clips")


def _weights() -> Finding:
    """How many of the pretrained weights that stages can use are here."""
    from reelmill.curation.models.weights import Weights, WeightsState, catalogue

    store = Weights(None)
    absent = [name for name in catalogue() if store.state(name)[0] == WeightsState.ABSENT]
    there = len(catalogue()) - len(absent)
    told = f"{there} of {len(catalogue())} here"
    if not absent:
        return Finding("weights", "ok", told)
    return Finding("weights", "note", f"{told}; `reelmill weights list` says which are not")


def _ports() -> Finding:
    """Whether servers can listen on this machine's loopback; Prefect's usual port, if taken."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
    with socket.socket() as usual:
        taken = usual.connect_ex(("127.0.0.1", PREFECT_PORT)) == 0
    used = f"; {PREFECT_PORT}, Prefect's, is in use" if taken else ""
    return Finding("ports", "ok", f"127.0.0.1 can be listened on{used}")


def _prefect() -> Finding:
    from importlib.metadata import version

    url = os.environ.get("PREFECT_API_URL", "its embedded server, started when a flow runs")
    return Finding("prefect", "ok", f"{version('prefect')}, with {url}")


def _careful(name: str, look: Callable[[], Finding]) -> Finding:
    """A broken part of the machine is a finding, not an end of the search."""
    try:
        return look()
    except (ImportError, OSError, RuntimeError) as error:
        return Finding(name, "bad", f"{type(error).__name__}: {error}")


def doctor(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="Where the disk is looked at.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Says what this machine has: GPU, codecs, disk, weights, ports. Exit code 1 if bad."""
    looks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "cpus": _cpus,
        "gpu": _torch,
        "codecs": _ffmpeg,
        "disk": lambda: _disk(workspace),
        "weights": _weights,
        "ports": _ports,
        "speech": _speech,
        "prefect": _prefect,
    }
    findings = [_careful(name, look) for name, look in looks.items()]
    for finding in findings:
        console.say(f"{finding.level:5} {finding.name:8} {finding.text}")
    console.answer({"findings": [asdict(finding) for finding in findings]})
    raise typer.Exit(int(any(finding.level == "bad" for finding in findings)))
