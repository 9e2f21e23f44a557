from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.reports.planted_run import HOSTILE, plant

from reelmill.errors import UsageError
from reelmill.reports.embed import MIME
from reelmill.reports.markup import el, percent, visible
from reelmill.reports.page import BUDGET, load, render, save

VOID = {"input", "img", "br", "meta", "link", "rect", "line", "col"}
TAGS = {
    "a", "b", "bdi", "body", "button", "caption", "code", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "g", "h1", "h2", "h3", "head", "header", "html", "img",
    "input", "label", "legend", "li", "line", "link", "main", "meta", "nav", "ol", "output", "p",
    "pre", "rect", "script", "section", "small", "span", "style", "summary", "svg", "table",
    "tbody", "td", "text", "th", "thead", "title", "tr", "ul", "video", "audio",
}  # fmt: skip


class Page(HTMLParser):
    """Elements and texts as a parser sees them; unbalanced tags are an error."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self.style = ""
        self._open: list[tuple[str, dict]] = []
        self.feed(source)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, found))
        if tag not in VOID or tag in ("rect", "line"):
            self._open.append((tag, found))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        inside, attributes = self._open[-1] if self._open else ("", {})
        if inside == "script":
            key = attributes.get("id", "code")
            self.scripts[key] = self.scripts.get(key, "") + data
        elif inside == "style":
            self.style += data
        else:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return "".join(self.texts)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(planted):
    return Page(render(planted.run_dir).read_text(encoding="utf-8"))


def test_only_our_own_elements_and_no_handlers(page):
    assert {name for name, _ in page.elements} <= TAGS
    for name, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            assert key != "style", name
            if key in ("href", "src", "poster"):
                assert re.match(r"#|data:|[\w%./-]+$", value or ""), (name, key, value)
                assert "javascript" not in value


def test_hostile_strings_are_shown_as_text(page):
    for text in HOSTILE[:3]:
        assert visible(text) in page.text or visible("…" + text[-25:]) in page.text, text
    assert page.text.count("</script><img src=x onerror=alert(2)>.mp4") >= 1
    assert "\u202e" not in page.text
    assert "\\u202egpj.exe\\u0000\\u001b[31m" in page.text
    assert len(page.all("script")) == 2
    assert len(page.all("style")) == 1
    assert len(page.all("body")) == 1


def test_nothing_is_fetched_from_outside(planted, page):
    source = (planted.run_dir / "report.html").read_text(encoding="utf-8")
    for _, attributes in page.elements:
        for key, value in attributes.items():
            if key not in ("title", "alt", "aria-label") and value:
                assert "//" not in value, (key, value)
    assert "//" not in page.style
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval|innerHTML)\b", page.scripts["code"])
    assert source.count("http") == source.count("http-equiv") + source.count("https://evil.example")


def test_policy_lets_only_the_pages_own_code_run(page):
    policy = next(
        a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, code in (("script-src", page.scripts["code"]), ("style-src", page.style)):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    names = [name for name, _ in page.elements]
    assert names.index("head") < names.index("style") < names.index("body")


def test_previews_are_in_the_page_once(planted, page):
    files = json.loads(page.scripts["files"])
    videos = page.all("video")
    assert len(files) == 12
    assert len(videos) > 100
    for attributes in videos:
        assert attributes["preload"] == "none"
        assert attributes["data-src"] in files
        assert files[attributes["data-poster"]].startswith("data:image/jpeg;base64,")
    stored = {base64.b64decode(data.partition(",")[2]) for data in files.values()}
    assert stored == {f.read_bytes() for f in (planted.run_dir / "media").iterdir()}


def test_figures_are_the_reports_own(planted, page):
    totals = planted.report.totals.clips
    assert f"{totals.kept.count} of {totals.into.count} clips kept" in page.text
    for stage in planted.report.stages:
        assert any(a.get("id") == stage.slug for a in page.all("details"))
        for h in stage.histograms:
            if h.measured:
                shown = [a for a in page.all("svg") if f"Histogram of {h.fact}:" in
                         (a.get("aria-label") or "")]  # fmt: skip
                assert len(shown) == 1
    assert "Transcript was not measured" in page.text
    for shard in planted.report.shards:
        assert shard.sha256 in page.text


def test_sliders_hold_recounted_figures(planted, page):
    boxes = [json.loads(a["data-stops"]) for a in page.all("div") if "data-stops" in a]
    assert len(boxes) == 9
    for box in boxes:
        assert len({len(box[k]) for k in ("x", "value", "set", "pass", "ends")}) == 1
        assert box["x"] == sorted(box["x"])
    silence = next(b for b in boxes if b["set"][0].startswith("SilenceRatio.max_ratio="))
    values = [
        row.facts["silence_ratio"]
        for row in planted.came_into("SilenceRatio")
        if row.facts["silence_ratio"] is not None
    ]
    assert silence["of"] == len(values)
    for setting, passing in zip(silence["set"], silence["pass"], strict=True):
        assert passing == sum(v <= float(setting.partition("=")[2]) for v in values)


def test_every_control_has_a_name_and_every_chart_a_table(page):
    labels = {a.get("for") for a in page.all("label")}
    for attributes in page.all("input"):
        assert attributes["id"] in labels
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes in page.all("svg"):
        assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    charts = [a for a in page.all("svg") if a.get("class") == "histogram"]
    assert page.text.count("Numbers") == len(charts)
    for attributes in page.all("a"):
        assert attributes["href"][1:] in ids


def test_the_same_json_gives_the_same_bytes(planted, tmp_path):
    first = render(planted.run_dir).read_bytes()
    assert render(planted.run_dir).read_bytes() == first
    copy = tmp_path / "elsewhere"
    shutil.copytree(planted.run_dir, copy)
    assert render(copy).read_bytes() == first


def test_from_the_json_alone(planted, tmp_path):
    (tmp_path / "run.json").write_bytes((planted.run_dir / "run.json").read_bytes())
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert page.all("video") == []
    assert "no preview" in page.text
    with pytest.raises(UsageError):
        render(tmp_path / "nowhere")


def test_an_unfinished_run_says_so(planted, tmp_path):
    data = json.loads((planted.run_dir / "run.json").read_text())
    data |= {"finished": None, "stages": data["stages"][:3], "shards": [], "over_budget": "9 of 9"}
    (tmp_path / "run.json").write_text(json.dumps(data))
    page = Page(render(tmp_path).read_text(encoding="utf-8"))
    assert "The run did not reach its end" in page.text
    assert "Failure budget exceeded: 9 of 9" in page.text
    assert "No shards were written." in page.text


def test_a_run_of_nothing(planted, tmp_path):
    data = json.loads((planted.run_dir / "run.json").read_text())
    for key in ("stages", "failures", "shards", "notes", "sources"):
        data[key] = []
    data |= {"failures_total": 0, "totals": {}, "recipes": {}}
    (tmp_path / "run.json").write_text(json.dumps(data))
    assert "0 of 0 clips kept" in Page(render(tmp_path).read_text(encoding="utf-8")).text


def _with_big_previews(tmp_path, size):
    planted = plant(tmp_path, clips=120, previews=6)
    for file in (tmp_path / "media").glob("*.mp4"):
        file.write_bytes(file.read_bytes() + os.urandom(size))
    return planted


def test_previews_beyond_the_budget_are_links(tmp_path):
    _with_big_previews(tmp_path, 1_000_000)
    path = render(tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert 3_000_000 < path.stat().st_size <= BUDGET
    linked = {a["src"] for a in page.all("video") if "src" in a}
    assert linked
    assert all((tmp_path / name).is_file() for name in linked)
    assert all("data-poster" in a for a in page.all("video"))
    embedded = json.loads(page.scripts["files"])
    assert len(embedded) + len(linked) == 12


def test_many_strings_stay_within_the_budget(tmp_path):
    planted = plant(tmp_path, clips=120, previews=0)
    stages = []
    for stage in planted.report.stages:
        examples = [
            e.model_copy(update={"facts": {f"f{i}": "<&\"'>" * 200 for i in range(60)},
                                 "detail": "&" * 5_000, "path": "&" * 5_000})
            for e in stage.examples * 3
        ]  # fmt: skip
        stages.append(stage.model_copy(update={"examples": examples[:12]}))
    save(planted.report.model_copy(update={"stages": stages}), tmp_path)
    assert render(tmp_path).stat().st_size <= BUDGET


@pytest.mark.parametrize("trick", ["link", "sort"])
def test_a_preview_that_leads_outside_is_not_shown(tmp_path, trick):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    run_dir = tmp_path / "run"
    planted = plant(run_dir, clips=80, previews=1)
    poster = run_dir / "media" / "0.jpg"
    if trick == "link":
        poster.unlink()
        poster.symlink_to(secret)
    else:
        poster.rename(run_dir / "media" / "0.svg")
        text = (run_dir / "run.json").read_text().replace("media/0.jpg", "media/0.svg")
        (run_dir / "run.json").write_text(text)
    source = render(run_dir).read_text(encoding="utf-8")
    assert base64.b64encode(b"secret").decode() not in source
    assert all("data-poster" not in a and "poster" not in a for a in Page(source).all("video"))
    assert planted.report == load(run_dir) or trick == "sort"
    assert ".svg" not in MIME


def test_markup_escapes_by_construction():
    made = el("p", "<b>", el("i", "&"), title="\"'>", data_x="<")
    assert made == '<p title="&#34;&#39;&gt;" data-x="&lt;">&lt;b&gt;<i>&amp;</i></p>'
    assert percent(999_999, 1_000_000) == ">99.9 %"
    assert percent(1, 1_000_000) == "<0.1 %"
    assert percent(0, 0) == "–"


PROBE = """
<script>
addEventListener("load", () => {
  const seen = [];
  for (const box of document.querySelectorAll(".slider")) {
    const input = box.querySelector("input");
    for (let i = 0; i <= Number(input.max); i++) {
      input.value = i;
      input.dispatchEvent(new Event("input"));
      seen.push(box.querySelector("code").textContent + "|" + box.querySelector("output").textContent);
    }
    box.querySelector(".reset").click();
    seen.push("reset|" + box.querySelector("output").textContent);
  }
  const videos = Array.from(document.querySelectorAll("video"));
  seen.push("players|" + videos.filter((v) => v.src && v.poster).length + " of " + videos.length);
  const node = document.createElement("pre");
  node.id = "probe";
  node.textContent = seen.join("\\n");
  document.body.append(node);
});
</script>
"""  # noqa: E501


def _chromium(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    profile = page.parent / "profile"
    return subprocess.run(
        [
            shutil.which("chromium") or "chromium", "--headless", "--no-sandbox", "--disable-gpu",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={profile}", *flags,
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.slow
def test_in_a_browser_sliders_show_the_counts_and_nothing_complains(planted, tmp_path):
    shutil.copytree(planted.run_dir, tmp_path / "run")
    page = render(tmp_path / "run")
    told = _chromium(page, "--dump-dom")
    assert "CONSOLE" not in told.stderr, told.stderr
    source = page.read_text(encoding="utf-8")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    page.write_text(bare.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    told = _chromium(page, "--dump-dom")
    assert "CONSOLE" not in told.stderr, told.stderr
    dom = Page(told.stdout.strip())
    probe = dom.text[dom.text.index("--set Integrity") :].split("\n")
    lines = [line for line in probe if "|" in line]
    players = next(line for line in lines if line.startswith("players|"))
    found, _, wanted = players.partition("|")[2].partition(" of ")
    assert found == wanted != "0"
    black = [row.facts["black_share"] for row in planted.came_into("Exposure")]
    checked = 0
    for line in lines:
        match = re.match(r"--set Exposure\.max_black=([\d.]+)\|< \S+: ([\d,]+) of", line)
        if match:
            assert int(match[2].replace(",", "")) == sum(v < float(match[1]) for v in black)
            checked += 1
    assert checked == 41
