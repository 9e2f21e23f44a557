"""truth.json: what is no truth is refused by name."""

from __future__ import annotations

import pytest

from reelmill.datasets.corpus.truth import read_truth
from reelmill.errors import SourceError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ('{"version": 2}', "version"),
        ('{"version": 1, "seed": 0, "files": 3}', "size: Field required"),
    ],
)
def test_truth_of_another_shape_is_refused(tmp_path, text, said):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(SourceError, match=said):
        read_truth(tmp_path)


def test_no_truth_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"truth\.json"):
        read_truth(tmp_path)
