"""Every command of the documentation: all are parsed, and those of these pages are run in order."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.prefect_server import MARK, Postgres, bearing, free_port, postgres_programs
from tests.s3_server import point_to, s3_server

from reelmill.cli import app
from reelmill.datasets.corpus.corpus import make_corpus

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(?:bash)?\n(.*?)^```", re.DOTALL | re.MULTILINE)


def lines(page: Path) -> list[str]:
    """Calls of reelmill in a page: in its blocks and indented lines, continued lines joined."""
    text = page.read_text()
    found = []
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found += [part.strip() for part in line.split("#")[0].split(";")]
    indented = re.findall(r"^    (reelmill .*)$", text, re.MULTILINE)
    calls = [line for line in [*found, *indented] if line.startswith("reelmill ")]
    return [line.split(" > ")[0].split(" 2>")[0] for line in calls]


def parse(words: list[str]) -> str:
    """What the command line says against it; nothing is run. Empty: nothing."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="reelmill")
    try:
        while hasattr(command, "resolve_command"):
            command.parse_args(context, list(words))
            words = [*context._protected_args, *context.args]
            if not words:  # a group that is a command too, such as `train`
                return "" if command.invoke_without_command else f"{context.info_name}: what?"
            name, command, words = command.resolve_command(context, words)
            context = command.context_class(command, info_name=name, parent=context)
        command.parse_args(context, list(words))
    except Exception as error:
        # Typer's own copy of click is not to be imported; --help ends by an exception too.
        return (
            "" if type(error).__name__ == "Exit" else getattr(error, "message", "") or repr(error)
        )
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_page_is_one(page: Path):
    wrong = {line: parse(shlex.split(line)[1:]) for line in lines(page)}
    assert {line: why for line, why in wrong.items() if why} == {}


def test_every_command_has_a_subject():
    assert sum(len(lines(page)) for page in PAGES) > 50
    assert "No such option" in parse(["curate", "media", "-w", "work", "--no-such-option"])
    assert "No such command" in parse(["recipe", "shaw"])
    assert "issing" in parse(["curate", "-w", "work"])


def test_the_references_are_what_the_code_says(tmp_path: Path):
    runpy.run_path(str(ROOT / "docs" / "generate.py"))["main"](tmp_path)
    for name in ("stages.md", "flows.md"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), (
            f"docs/{name} is not what the code says: run `python docs/generate.py`"
        )


def script(page: str) -> str:
    """The shell commands of a page. A server is interrupted after some seconds, as by Ctrl-C."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.S | re.M)
    assert blocks
    text = "\n".join(blocks)
    return text.replace(
        "reelmill report serve", "timeout --preserve-status -s INT 6 reelmill report serve"
    )


def run(text: str, folder: Path, **more: str) -> str:
    """In one shell that stops at the first error; what it said."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "REELMILL_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean | {"PATH": path, "COLUMNS": "200", "DO_NOT_TRACK": "1"} | more
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", text], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Traceback" not in done.stdout, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some good films."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return sorted(folder.glob("clean_*.mp4"))


def bring(films: list[Path], folder: Path) -> None:
    (folder / "media").mkdir()
    for film in films:
        shutil.copy(film, folder / "media")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_three_tutorials(tmp_path: Path):
    run(script("tutorial-data.md"), tmp_path)
    assert list(tmp_path.glob("work/runs/*/diff-*.html"))
    told = run(script("tutorial-review.md"), tmp_path)
    assert "http://127.0.0.1:" in told
    assert "approved by A. Reviewer" in told
    run(script("tutorial-training.md"), tmp_path)
    assert (tmp_path / "clip.mp4").stat().st_size > 0
    assert (tmp_path / "work/checkpoints/demo/training.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_how_to_write_a_recipe(films: list[Path], tmp_path: Path):
    page = (ROOT / "docs/how-to-write-a-recipe.md").read_text()
    (recipe,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "short.yaml").write_text(recipe)
    bring(films, tmp_path)
    told = run(script("how-to-write-a-recipe.md"), tmp_path)
    assert "measured 0 anew" in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_how_to_use_ray(films: list[Path], tmp_path: Path):
    bring(films, tmp_path)
    text = script("how-to-use-ray.md").replace("6399", str(free_port()))
    # The last line would end every Ray process of this machine, not only ours.
    text, last = text.replace("ray stop", "ray stop --help"), text.strip().splitlines()[-1]
    assert last == "ray stop"
    mark = f"mark-{uuid.uuid4().hex}"
    try:
        own = {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0", MARK: mark}
        run(text, tmp_path, **own)
    finally:
        for pid in bearing(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_how_to_use_s3(films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import s3fs

    with s3_server() as server:
        point_to(server, monkeypatch)
        store = s3fs.S3FileSystem(client_kwargs={"endpoint_url": server})
        store.mkdir("films")
        for path in films:
            store.put(str(path), f"films/raw/{path.name}")
        run(script("how-to-use-s3.md"), tmp_path)


@pytest.mark.slow
def test_how_to_import_wan(tmp_path: Path):
    import diffusers

    model = diffusers.WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=24,
        ffn_dim=96, num_layers=3, freq_dim=256,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "wan")
    run(script("how-to-import-wan.md"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(postgres_programs() is None, reason="no PostgreSQL on this machine")
def test_how_to_serve_flows(tmp_path: Path):
    database, port = Postgres(), free_port()
    text = script("how-to-serve-flows.md")
    text = text.replace("prefect@127.0.0.1:5432/prefect", database.url.partition("//")[2])
    text = text.replace("4200", str(port))
    worker = "prefect worker start --pool reelmill-cpu"
    text = text.replace(f"\n{worker}\n", f"\ntimeout -s INT 15 {worker} || true\n")
    home = {"PREFECT_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    try:
        told = run(text, ROOT, **home)
    finally:
        for path in (tmp_path / "home").glob("server.pid"):  # where the page was not gone through
            os.kill(int(path.read_text()), signal.SIGTERM)
        database.stop()
    assert "curate/nightly" in told or "nightly" in told or "0 3 * * *" in told
    assert "heartbeat stopped" in told
