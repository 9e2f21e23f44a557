"""A run that is killed again and again: what each kill lost, and that the runs end the same."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.curation_content import content
from tests.ray_nodes import below, command, wait_until_gone
from tests.toil import PARTITIONS
from tests.trees import digests

from reelmill.datasets.ledger import Ledger
from reelmill.datasets.workspace import open_workspace

ROOT = Path(__file__).parent.parent
LINES = 16  # about as many as an undisturbed run prints
LARGEST = 500_000
CODE = """
import json, sys
from tests.toil import curate
print("go", flush=True)
sources, workspace, marks, options = json.loads(sys.argv[1])
curate(sources, workspace, marks, **options)
"""


def real_clips(media: Path) -> list[str]:
    """Talking heads and films of several shots, small enough to be cut in a second."""
    found = [*(media / "talking").glob("*.mp4"), *(media / "multishot").glob("*.mp4")]
    return sorted(str(path) for path in found if path.stat().st_size < LARGEST)


@dataclass
class Scene:
    """Films, the folder where their decodes leave marks, and a run that nothing disturbed."""

    sources: list[str]
    marks: Path
    whole: Path
    recipe: str = "short"

    @classmethod
    def play(cls, sources: list[str], root: Path, recipe: str = "short") -> Scene:
        scene = cls(sources, root / "marks", root / "w", recipe)
        scene.marks.mkdir()
        process = _start(scene, scene.whole, {"workers": 2})
        _, error = process.communicate()
        assert process.returncode == 0, error
        assert scene.begun() == scene.files == decoded(scene.whole)
        return scene

    @property
    def files(self) -> int:
        return len(self.sources)

    def begun(self) -> int:
        """Decodes that were ever begun."""
        return len(list(self.marks.iterdir()))

    def same(self, workspace: Path) -> None:
        assert digests(workspace / "shards") == digests(self.whole / "shards")
        assert content(workspace) == content(self.whole)
        assert list((workspace / "cuts").iterdir()) == []
        assert list(workspace.rglob(".*tmp*")) == []


def decoded(workspace: Path) -> int:
    """Files whose decode is committed."""
    if not (workspace / "workspace.json").exists():
        return 0
    ledger = Ledger(open_workspace(workspace, create=False))
    keys = (workspace / "ledger" / "decoded").glob("*")
    return sum(len(ledger.units(f"ledger/decoded/{key.name}")) for key in keys)


@dataclass
class Toll:
    """lost: by kill, the files whose decode was begun by that run and not committed."""

    lost: list[int] = field(default_factory=list)
    runs: int = 0

    @property
    def inside(self) -> int:
        """Kills that fell into a decode."""
        return sum(n > 0 for n in self.lost)

    def __str__(self) -> str:
        return (
            f"{len(self.lost)} kills, {self.inside} of them inside a decode, {self.runs} whole "
            f"runs, {sum(self.lost)} files decoded again, at most {max(self.lost)} for a kill"
        )


def kill_and_resume(
    scene: Scene,
    folder: Path,
    kills: int,
    options: dict[str, object],
    working: Callable[[], list[int]] = list,
    seed: int = 0,
) -> Toll:
    """kill -9 at random moments of a run, most of them inside its decodes, until it was enough.

    A run that comes to its end is checked, and another one begun in a workspace of its own.
    working: processes of the run that do not descend from it.
    """
    chance = random.Random(seed)
    begun_before = scene.begun()
    toll = Toll()
    while True:
        workspace = folder / f"w{toll.runs}"
        begun, kept = scene.begun(), decoded(workspace)
        process = _start(scene, workspace, options)
        told: list[str] = []
        if len(toll.lost) < kills:
            told = _await_a_moment(process, scene, scene.files - kept, chance)
            family = [*_family(process.pid), *working()]
            process.kill()
        rest, error = process.communicate()
        assert "Traceback" not in error, error
        if process.returncode == 0:
            again = [line for line in [*told, *rest.splitlines()] if ": shared decode" in line]
            assert sum(int(line.split()[-1]) for line in again) == scene.files - kept
            assert scene.begun() - begun == scene.files - kept
            scene.same(workspace)
            toll.runs += 1
            if len(toll.lost) == kills:
                break
            continue
        assert process.returncode == -9, error
        wait_until_gone(family)
        toll.lost.append((scene.begun() - begun) - (decoded(workspace) - kept))
        print("killed", len(toll.lost), "lost", toll.lost[-1], flush=True)
    print(toll)
    assert max(toll.lost) <= PARTITIONS[scene.recipe]
    assert scene.begun() - begun_before == toll.runs * scene.files + sum(toll.lost)
    return toll


def _start(scene: Scene, workspace: Path, options: dict[str, object]) -> subprocess.Popen[str]:
    given = [scene.sources, str(workspace), str(scene.marks), options | {"recipe": scene.recipe}]
    started = subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert started.stdout is not None
    started.stdout.readline()
    return started


def _await_a_moment(
    process: subprocess.Popen[str], scene: Scene, left: int, chance: random.Random
) -> list[str]:
    """Two of three: some way into a decode, where there is one to do. Else: anywhere.

    Returns what the run said meanwhile.
    """
    assert process.stdout is not None
    anywhere = chance.random() < 1 / 3 or not left
    told: list[str] = []
    lines, files = chance.randrange(LINES), chance.randrange(max(left, 1))
    if anywhere:
        for _ in range(lines):
            told.append(process.stdout.readline())
    else:
        enough = scene.begun() + files
        while process.poll() is None and scene.begun() <= enough:
            time.sleep(0.01)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.0, 1.0 if anywhere else 0.3))
    return told


def _family(process: int) -> list[int]:
    """All that descends from a run, but for Ray's agents: these take their time to notice."""
    return [
        i for i in below(process) if not command(i).startswith("ray::") or "Bench" in command(i)
    ]
