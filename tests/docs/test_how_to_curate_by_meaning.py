"""The page's recipes are recipes, and its taxonomy is one."""

from __future__ import annotations

import re
from pathlib import Path

from reelmill.curation.caption.taxonomy import Taxonomy
from reelmill.curation.models.catalogue import CATALOGUE
from reelmill.curation.recipe import load_yaml
from reelmill.curation.recipes import KNOWN

PAGE = Path(__file__).parents[2] / "docs" / "how-to-curate-by-meaning.md"


def test_what_the_page_shows_can_be_read(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    path = tmp_path / "x.yaml"
    for block in blocks:
        if block.startswith("- name"):
            path.write_text(block)
            assert Taxonomy.read(path).match("A puppy eats a hot dog") == {"animal/dog": ["puppy"]}
        else:
            path.write_text(f"kind: video\nstages:\n{block}")
            assert load_yaml(path, KNOWN).stages


def test_weights_are_called_as_the_page_has_them():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows
    assert set(rows) <= set(CATALOGUE)
