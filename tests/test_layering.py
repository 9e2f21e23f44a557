"""The layout's rules (docs/adr/0001), read from the source itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    {"flows"},
    {"curation", "training", "evaluation"},
    {"datasets", "model"},
    {"reports", "kernels"},
)
FOLDERS = frozenset().union(*LAYERS)
FACE = ROOT / "src" / "reelmill"
MAX_LINES = 450


@cache
def python_files(folder: str) -> tuple[Path, ...]:
    return tuple(sorted((ROOT / folder).rglob("*.py")))


def face_files() -> list[Path]:
    """Files of src/reelmill itself; what it links to is reached by its own folder."""
    return [*FACE.glob("*.py"), *(FACE / "commands").rglob("*.py")]


def sources() -> list[Path]:
    return [file for folder in sorted(FOLDERS) for file in python_files(folder)] + face_files()


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def allowed(folder: str) -> set[str]:
    """Folders that files of `folder` may import from."""
    depth = next(i for i, layer in enumerate(LAYERS) if folder in layer)
    below = set().union(*LAYERS[depth + 1 :]) | {folder}
    return below - {"curation": {"model"}, "model": {"datasets"}}.get(folder, set())


def offences(rule) -> list[str]:
    """`file:line name` of every import in the source for which rule(file, name) is true."""
    return [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for file in sources()
        for line, name in imported(file)
        if rule(file, name)
    ]


def folder_of(file: Path) -> str:
    return "" if file.is_relative_to(FACE) else file.relative_to(ROOT).parts[0]


def test_imports_point_down_only():
    def upward(file: Path, name: str) -> bool:
        parts = name.split(".")
        folder = folder_of(file)
        if not folder or parts[0] != "reelmill" or len(parts) == 1:
            return False
        return parts[1] not in allowed(folder) | {"errors", "__version__"}

    assert offences(upward) == []


def test_errors_and_the_package_import_nothing_of_ours():
    for file in (FACE / "errors.py", FACE / "__init__.py"):
        assert [name for _, name in imported(file) if name.startswith("reelmill")] == []


def test_every_import_of_ours_is_by_its_full_name():
    """`curation.x` and `reelmill.curation.x` would be two modules, with two of each class."""
    files = [*sources(), *python_files("tests"), *python_files("benchmarks")]
    for file in files:
        for line, name in imported(file):
            where = f"{file.relative_to(ROOT)}:{line} {name}"
            assert not name.startswith("."), where
            assert name.split(".")[0] not in FOLDERS, where


def test_only_flows_import_prefect():
    def stray(file: Path, name: str) -> bool:
        return name.split(".")[0] == "prefect" and folder_of(file) != "flows"

    assert offences(stray) == []


def test_only_the_engine_and_parallel_training_import_ray():
    def stray(file: Path, name: str) -> bool:
        engine = file.parent == ROOT / "curation" and file.name.startswith("engine")
        parallel = file == ROOT / "training" / "parallel.py"
        return name.split(".")[0] == "ray" and not engine and not parallel

    assert offences(stray) == []


def test_no_file_is_too_long():
    files = [*sources(), *python_files("tests"), *python_files("benchmarks")]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_no_file_is_a_grab_bag():
    banned = {"utils", "util", "common", "base", "helpers", "misc"}
    assert [str(file) for file in sources() if file.stem in banned] == []
    assert [str(p) for f in FOLDERS for p in (ROOT / f).rglob("*") if p.name in banned] == []


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_top_folders_are_links_without_an_init_file(folder):
    assert not (ROOT / folder / "__init__.py").exists()
    assert (FACE / folder).is_symlink()
    assert (FACE / folder).resolve() == ROOT / folder
    for below in {file.parent for file in python_files(folder)} - {ROOT / folder}:
        assert (below / "__init__.py").is_file(), f"{below} needs an empty __init__.py"


def test_tests_are_no_package():
    assert [str(file) for file in python_files("tests") if file.name == "__init__.py"] == []


def test_no_folder_of_ours_poses_as_an_installed_package():
    """With the root first on the path, as `python -m` and Prefect put it (docs/adr/0001)."""
    code = (
        "import importlib.util, json, sys; sys.path.insert(0, sys.argv[1]);"
        "specs = {n: importlib.util.find_spec(n) for n in sys.argv[2:]};"
        "print(json.dumps({n: s.origin if s else None for n, s in specs.items()}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), *sorted(FOLDERS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    origins = json.loads(run.stdout)
    assert set(origins) == FOLDERS
    ours = {name: o for name, o in origins.items() if o and Path(o).is_relative_to(ROOT / name)}
    assert ours == {}
