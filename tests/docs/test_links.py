"""Links of the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_to_files(page: Path):
    targets = [t for t in LINK.findall(page.read_text()) if "://" not in t]
    broken = [t for t in targets if not (page.parent / t.split("#")[0]).exists()]
    assert broken == []


def test_the_tree_of_the_readme_names_every_top_folder():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    told = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    there = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    made = {"src", "build", "dist", "demo"} | {name for name in there if name.startswith(".")}
    assert there - made - told == set()
