"""The map of quotas: every cell in words, strange names as text, sums that conserve."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError
from tests.reports.planted_run import HOSTILE

from reelmill.errors import ConservationError
from reelmill.reports.quota_map import quota_map
from reelmill.reports.schema import Amount, QuotaCell, QuotaGrid, StageReport, Tally


def grid(asked=(None, None)) -> QuotaGrid:
    return QuotaGrid(
        concepts={"0": "luma 40", HOSTILE[0]: HOSTILE[1]},
        motions=["pan_left", HOSTILE[2]],
        asked=list(asked),
        cells=[
            [QuotaCell(into=9, kept=4, asked=4), QuotaCell(into=3, kept=3, asked=8)],
            [QuotaCell(into=0, kept=0), QuotaCell(into=2, kept=0, asked=0)],
        ],
    )


def stage(quotas: QuotaGrid, into: int = 14, kept: int = 7) -> StageReport:
    amounts = [Amount(count=n) for n in (into, kept, into - kept)]
    tally = Tally(into=amounts[0], kept=amounts[1], rejected=amounts[2])
    reasons = [{"reason": "over_quota", "count": into - kept}]
    return StageReport(name="Balance", unit="clip", tally=tally, quotas=quotas, reasons=reasons)


def test_cells_say_kept_of_asked_and_what_is_short():
    html = str(quota_map(stage(grid()), grid()))
    words = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", html)]
    assert words == [
        "4 of 4", "3 of 8 ▾", "7 of 12 ▾",
        "–", "0 of 0", "0 of 0",
        "4 of 4", "3 of 8 ▾", "7 of 12 ▾",
    ]  # fmt: skip
    shades = re.findall(r'class="n (\w+)"', html)
    assert shades == ["h5", "h2", "h3", "quiet", "h0", "h0", "h5", "h2", "h3"]
    assert html.count('scope="row"') == 3
    assert html.count('scope="col"') == 4
    assert "<script" not in html
    assert "<style" not in html


def test_a_quota_of_a_whole_concept_stands_in_its_last_cell():
    plain = QuotaGrid(
        concepts={"0": "", "1": ""},
        motions=["pan_left", "static"],
        asked=[5, 5],
        cells=[[QuotaCell(into=9, kept=5), QuotaCell(into=0, kept=0)],
               [QuotaCell(into=1, kept=1), QuotaCell(into=3, kept=1)]],
    )  # fmt: skip
    html = str(quota_map(stage(plain, 13, 7), plain))
    words = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", html)]
    assert words == ["5", "–", "5 of 5", "1", "1", "2 of 5 ▾", "6", "1", "7 of 10 ▾"]


def test_fewer_than_may_stay_are_not_short():
    most = grid().model_copy(update={"ceiling": True})
    html = str(quota_map(stage(most), most))
    words = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", html)]
    assert words[:3] == ["4 of 9", "3 of 3", "7 of 12"]
    assert "▾" not in html
    assert "at most 8 of each kind may stay" in html


def test_a_map_that_does_not_add_up_is_a_defect():
    with pytest.raises(ConservationError, match="its quotas hold 14 units and 7 kept, but 15 came"):
        stage(grid(), 15)
    with pytest.raises(ValidationError, match="as many as its motions"):
        QuotaGrid(concepts={"0": ""}, motions=["a"], asked=[None], cells=[[]])
