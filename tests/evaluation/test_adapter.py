"""Programs that score in their own process: what they may do, and what is made of it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.evaluation.footage import RATE, panning, prompt, write
from tests.media import noise

from reelmill.datasets.media.encode import write_audio
from reelmill.datasets.sample import Status
from reelmill.errors import UsageError
from reelmill.evaluation import adapter as adapters
from reelmill.evaluation.adapter import Adapter, known_adapters, read_adapters, run_adapter
from reelmill.evaluation.adapters.judge import answers, checklist
from reelmill.evaluation.bench import Bench
from reelmill.evaluation.clips import ClipEntry
from reelmill.evaluation.measure import measure
from reelmill.evaluation.metrics.picture import Sharpness

HEAD = """
import json, os, sys, time
rows = [json.loads(line) for line in open(sys.argv[1])]
out = open(sys.argv[2], "w")
def give(**row):
    print(json.dumps(row), file=out, flush=True)
"""
METRIC = {"name": "Taste", "better": "higher", "low": 1, "high": 5, "part": "composition",
          "stream": "video"}  # fmt: skip
ENTRIES = [(ClipEntry(path=f"/x/{i}.mp4", model="m", prompt="a-prompt", seed=i), prompt())
           for i in range(4)]  # fmt: skip


def program(tmp_path: Path, body: str, **fields) -> Adapter:
    script = tmp_path / "score.py"
    script.write_text(HEAD + body)
    return Adapter.model_validate(
        {
            "name": "mine",
            "command": [sys.executable, str(script), "{manifest}", "{scores}"],
            "metrics": [METRIC],
        }
        | fields
    )


def test_scores_are_checked_one_by_one(tmp_path: Path):
    body = """
give(key=rows[0]["key"], metric="Taste", value=4.5)
give(key=rows[0]["key"], metric="Taste", value=1.0)
give(key=rows[1]["key"], metric="Taste", value=None, why="nothing to taste")
give(key=rows[2]["key"], metric="Taste", value=9)
give(key=rows[3]["key"], metric="Taste", value=True)
give(key=rows[3]["key"], metric="Smell", value=2)
out.write('{"key": ')
"""
    found = list(run_adapter(program(tmp_path, body), ENTRIES).values())
    assert found[0].value == 4.5
    assert [o.status for o in found] == [
        Status.MEASURED,
        Status.NOT_APPLICABLE,
        Status.FAILED,
        Status.FAILED,
    ]
    assert found[1].why == "nothing to taste"
    assert "not within 1 to 5" in found[2].why
    assert "no number" in found[3].why


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('no weights here'); sys.exit(3)", "code 3: no weights here"),
        ("time.sleep(60)", "took longer than"),
        ("os.fork() or time.sleep(60)\nsys.exit(4)", "code 4: it said nothing"),
        ("while True: print('x' * 10000)", "wrote more than"),
        ("pass", "gave no score"),
    ],
)
def test_a_program_that_fails_fails_what_it_did_not_score(
    body: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(adapters, "MAX_OUTPUT", 1 << 20)
    first = 'give(key=rows[0]["key"], metric="Taste", value=2)\n'
    patience = 2 if "sleep" in body else 30
    found = run_adapter(program(tmp_path, first + body, timeout_s=patience), ENTRIES)
    statuses = [o.status for o in found.values()]
    assert statuses == [Status.MEASURED, *[Status.FAILED] * 3]
    assert all(told in o.why for o in found.values() if o.why)


def test_what_is_absent_is_not_measured():
    for command in ((), ("/nowhere/python", "x.py")):
        found = run_adapter(
            Adapter.model_validate({"name": "mine", "command": command, "metrics": [METRIC]}),
            ENTRIES,
        )
        assert {o.status for o in found.values()} == {Status.NOT_MEASURED}


def test_a_program_sees_only_the_environment_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SOME_TOKEN", "1")
    monkeypatch.setenv("OTHER_TOKEN", "1")
    body = """
seen = [n for n in ("SOME_TOKEN", "OTHER_TOKEN", "GIVEN") if n in os.environ]
for row in rows: give(key=row["key"], metric="Taste", value=len(seen))
assert seen == ["OTHER_TOKEN", "GIVEN"]
"""
    mine = program(tmp_path, body, env={"GIVEN": "1"}, pass_env=["OTHER_TOKEN"])
    assert {o.value for o in run_adapter(mine, ENTRIES).values()} == {2.0}


def test_known_adapters_cover_what_needs_weights_and_a_file_names_their_command(tmp_path: Path):
    known = {a.name: a for a in known_adapters()}
    assert set(known) == {"dnsmos", "nisqa", "vbench", "fvd", "fad", "clap", "imagebind",
                          "synchformer", "syncnet", "judge", "lips"}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump([{"name": "fvd", "command": ["fvd", "{manifest}"]}]))
    (mine,) = read_adapters(path)
    assert (mine.per, mine.metrics, mine.command[0]) == ("model", known["fvd"].metrics, "fvd")
    for rows, told in (
        ([{"name": "unknown"}], "names no metrics"),
        ([{"name": "fvd"}, {"name": "fvd"}], "given twice"),
        ([{"name": "fvd", "comand": []}], "comand"),
        ([{"name": "x", "metrics": [METRIC | {"part": "charm"}]}], "not of the taxonomy"),
        ("text", "valid tuple"),
    ):
        path.write_text(yaml.safe_dump(rows))
        with pytest.raises(UsageError, match=told):
            read_adapters(path)


def test_weighted_scores_stand_beside_ours_and_are_kept(tmp_path: Path):
    clips = [
        ClipEntry(path=str(write(tmp_path / f"{m}{i}.mkv", panning(i, 0.6, (96, 64)))), model=m,
                  prompt=f"p{i}")
        for m in ("a", "b") for i in range(6)
    ]  # fmt: skip
    bench = Bench(prompts=tuple(prompt(id=f"p{i}") for i in range(6)))
    count = tmp_path / "count"
    body = f"""
open({str(count)!r}, "a").write(f"{{len(rows)}} ")
for row in rows:
    give(key=row["key"], metric="Taste", value=3.0 + (row["model"] == "b") + len(row["prompt"]) / 9)
"""
    one = program(tmp_path, body)
    whole = Adapter(name="set", per="model", metrics=one.metrics).model_copy(
        update={"metrics": (one.metrics[0].model_copy(update={"name": "Whole"}),)}
    )
    made = measure(clips, (Sharpness(),), tmp_path / "out", bench=bench, adapters=(one, whole))
    assert made.summary.comparison("a", "b", "Taste").verdict == "b"
    assert made.summary.comparison("a", "b", "Sharpness").verdict == "tied"
    line = made.summary.line("a", "Whole")
    assert (line.applied, line.not_measured, line.total, line.interval) == (0, 6, 6, None)
    measure(clips[:-1], (Sharpness(),), tmp_path / "out", bench=bench, adapters=(one,))
    again = measure(clips, (Sharpness(),), tmp_path / "out", bench=bench, adapters=(one,))
    assert count.read_text().split() == ["12", "0", "0"]
    assert [s.value for s in again.scores] == [s.value for s in made.scores if s.metric != "Whole"]


def test_a_set_has_one_number(tmp_path: Path):
    body = 'give(model="m", metric="Taste", value=2.5)'
    found = run_adapter(program(tmp_path, body, per="model"), ENTRIES)
    assert {k: o.value for k, o in found.items()} == {("m", "Taste"): 2.5}


def test_dnsmos_rates_noise_low_in_a_process_of_its_own(tmp_path: Path):
    """The nets of the package itself: noise is rated lowest by any version of them."""
    said = prompt(id="said", sound="speech", text="She says: <dialogue>good day</dialogue>.")
    write_audio(tmp_path / "noise.flac", noise(2.0, RATE, amplitude=0.3), RATE)
    write_audio(tmp_path / "none.flac", np.zeros((1, RATE), np.float32), RATE)
    entries = [
        (ClipEntry(path=str(tmp_path / "noise.flac"), model="m", prompt="said"), said),
        (ClipEntry(path=str(tmp_path / "none.flac"), model="m", prompt="said", seed=1), said),
        (ClipEntry(path=str(tmp_path / "noise.flac"), model="m", prompt="a-prompt"), prompt()),
        (ClipEntry(path=str(tmp_path / "gone.flac"), model="m", prompt="said", seed=2), said),
    ]
    (dnsmos,) = (a for a in known_adapters() if a.name == "dnsmos")
    found = run_adapter(dnsmos, entries)
    overall = [found[e.key, "DNSMOSOverall"] for e, _ in entries]
    assert [o.status for o in overall] == [
        Status.MEASURED,
        Status.NOT_APPLICABLE,
        Status.NOT_APPLICABLE,
        Status.FAILED,
    ]
    assert 1 <= overall[0].value < 2


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict]]]:
    """A judge that says yes to all but the last point, after refusing once."""
    asked: list[dict] = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"authorization": self.headers.get("Authorization")})
            if len(asked) == 1:
                self.send_error(503)
                return
            text = body["messages"][0]["content"][0]["text"]
            points = int(text.split("for each of the ")[1].split()[0])
            told = {"answers": [True] * (points - 1) + [False]}
            reply = {"choices": [{"message": {"content": f"Here: {json.dumps(told)}"}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_) -> None: ...

    http = HTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_judge_is_shown_frames_and_a_checklist(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url, asked = server
    monkeypatch.setenv("JUDGE_KEY", "k1")
    asks = prompt(
        text="A sign reads <text>OPEN</text>. A dog barks. <sfx>one bark</sfx>", id="sign"
    )
    path = write(tmp_path / "a.mkv", panning(1, 1.0, (96, 64)))
    entry = ClipEntry(path=str(path), model="m", prompt="sign")
    (judge,) = (a for a in known_adapters() if a.name == "judge")
    command = ["{python}", "-m", "reelmill.evaluation.adapters.judge", "{manifest}", "{scores}",
               "--url", url, "--model", "some-model", "--key-env", "JUDGE_KEY"]  # fmt: skip
    judge = judge.model_copy(update={"command": tuple(command), "pass_env": ("JUDGE_KEY",)})
    found = run_adapter(judge, [(entry, asks)])[entry.key, "JudgeChecklist"]
    assert found.value == pytest.approx(3 / 4), found
    body = asked[-1]
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert (body["model"], body["authorization"], kinds[0]) == ("some-model", "Bearer k1", "text")
    assert kinds.count("image_url") >= 2
    text = body["messages"][0]["content"][0]["text"]
    assert "'OPEN' can be read" in text
    assert "bark</sfx>" not in text
    assert "one bark" not in text


def test_a_judge_must_answer_every_point():
    assert answers('{"answers": [true, false]}', 2) == [True, False]
    for reply in ("yes", '{"answers": [true]}', '{"answers": [1, 0]}', '{"answers": "no"}'):
        with pytest.raises(ValueError, match=r"answer|Expecting"):
            answers(reply, 2)
    assert checklist({"text": "A dog runs.", "cuts": [2.0]})[-1] == "There are 2 different shots."
