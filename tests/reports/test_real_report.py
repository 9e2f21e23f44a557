"""The report of a run over real clips, in a browser with no network: figures, sliders, players."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from reelmill.curation.engine import CurateOptions, Curation
from reelmill.reports.page import load
from reelmill.reports.schema import RunReport, StageReport

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.slow, pytest.mark.media, pytest.mark.timeout(1200)]
SMALL = 500_000  # bytes: about thirty of the clips, of all kinds
# No stage that judges clips by other clips: what one bound lets pass is then exact to the end.
RECIPE = """
kind: video
max_failed: 1.0
stages:
  - Probe: {min_width: 100, min_height: 100}
  - Shots: {min_seconds: 0.5}
  - Exposure
  - Blur
  - Motion: {min_motion: 0.002}
  - Blockiness
  - Loudness: {min_volume: -60.0}
  - Cut
"""


class Ran:
    """A workspace over real clips, and runs in it."""

    def __init__(self, folder: Path, media: Path):
        self.folder = folder
        (folder / "mine.yaml").write_text(RECIPE)
        found = [p for p in sorted((media / "general").glob("*.mp4")) if p.stat().st_size < SMALL]
        self.files = tuple(map(str, found))

    def run(self, *overrides: str) -> tuple[RunReport, Path]:
        curation = Curation(
            CurateOptions(
                sources=self.files,
                workspace=self.folder / "work",
                recipe=str(self.folder / "mine.yaml"),
                overrides=overrides,
                measure_all=True,
            )
        )
        for step in curation.steps():
            step.run()
        run = self.folder / "work" / "runs" / curation.result().run
        return load(run), run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Ran:
    return Ran(tmp_path_factory.mktemp("real"), media)


@pytest.fixture(scope="module")
def first(ran: Ran) -> tuple[RunReport, Path]:
    return ran.run()


@pytest.fixture
def page(first: tuple[RunReport, Path]):
    """The report in Chromium, offline; anything on its console is an error."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    said: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = browser.new_context(offline=True)
        shown = context.new_page()
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto((first[1] / "report.html").as_uri())
        yield shown
        browser.close()
    assert said == []


def stage_of(report: RunReport, slug: str) -> StageReport:
    return next(stage for stage in report.stages if stage.slug == slug)


def test_twenty_random_bounds_give_the_counts_of_real_runs(ran: Ran, first, page):
    """The slider's words against a run with `--set` as the slider gives it."""
    assert first[0].totals.clips.into.count > 20
    sliders = page.locator(".slider")
    draw = random.Random(7)
    seen: set[str] = set()
    while len(seen) < 20:
        slider = sliders.nth(draw.randrange(sliders.count()))
        stops = json.loads(slider.get_attribute("data-stops"))
        at = draw.randrange(len(stops["value"]))
        slug = slider.evaluate("node => node.closest('details.stage').id")
        if stops["set"][at] in seen or at == stops["now"] or stops["unit"] != "clip":
            continue
        seen.add(stops["set"][at])
        slider.locator("input").evaluate(
            "(node, at) => { node.value = at; node.dispatchEvent(new Event('input')); }", at
        )
        words = slider.locator("output").inner_text()
        option = slider.locator("code").text_content().removeprefix("--set ")
        passing, of = numbers(re.search(r"([\d,]+) of ([\d,]+) clips pass", words))
        (ends,) = numbers(re.search(r"up to ([\d,]+) reach the shards", words))
        again, _ = ran.run(option)
        stage = stage_of(again, slug)
        name = option.partition("=")[0].partition(".")[2]
        (bound,) = [b for b in stage.bounds if b.field == name]
        (histogram,) = [h for h in stage.histograms if h.fact == bound.fact]
        assert histogram.measured == of, words
        assert histogram.measured - (bound.broken or 0) == passing, (words, bound)
        assert sum(histogram.shipped or []) == ends, (words, option)
        assert all(s.measured == 0 for s in again.stages if s.name != "Cut")


def numbers(found: Any) -> list[int]:
    assert found is not None
    return [int(text.replace(",", "")) for text in found.groups()]


def test_the_figures_are_the_ledgers(first, page):
    report, run = first
    verdicts = run.parents[1] / "ledger" / "verdicts" / f"{run.name}.parquet"
    with duckdb.connect() as database:
        rows = database.execute(
            "select outcome, stage, reason, count(*) from read_parquet($1) where level = 'clip' "
            "group by all", [str(verdicts)],
        ).fetchall()  # fmt: skip
    kept = sum(n for outcome, *_, n in rows if outcome == "kept")
    every = sum(n for *_, n in rows)
    assert page.locator("h1").inner_text() == f"{kept} of {every} clips kept"
    for outcome, stage, reason, count in rows:
        if outcome != "rejected":
            continue
        told = stage_of(report, f"video-{stage}")
        assert {r.reason: r.count for r in told.reasons}[reason] == count
        row = page.locator("#reasons tr", has_text=reason.replace("_", " ")).first
        assert str(count) in [cell.strip() for cell in row.inner_text().split("\t")]
    lost = {stage: sum(n for o, s, _, n in rows if s == stage and o == "rejected") for _, stage, *_
            in rows}  # fmt: skip
    for stage, count in lost.items():
        if count:
            short = page.locator(f"#video-{stage} > summary .short").inner_text()
            assert f"{count} rejected" in short


def test_players_play(first, page):
    player = page.locator("details[open] .panel:visible video").first
    player.scroll_into_view_if_needed()
    player.evaluate("node => { node.muted = true; return node.play(); }")
    page.wait_for_function(
        "node => node.currentTime > 0.1 || node.ended", arg=player.element_handle(), timeout=15_000
    )
    width = player.evaluate("node => node.videoWidth")
    assert width > 0


def test_keys_alone_reach_what_there_is(page):
    """Tab comes to the skip link first; a slider moves by arrow keys; a stage opens by Enter."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    slider = page.locator("details[open] .slider input").first
    before = slider.input_value()
    slider.focus()
    page.keyboard.press("ArrowRight" if before == "0" else "ArrowLeft")
    assert slider.input_value() != before
    closed = page.locator("details.stage:not([open])")
    if closed.count():
        name = closed.first.get_attribute("id")
        closed.first.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator(f"#{name}").get_attribute("open") is not None
