"""A run planted row by row, so that every figure of its report can be recounted from the rows."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np

from reelmill.reports.page import save
from reelmill.reports.schema import (
    MAX_FAILURES,
    Amount,
    BoundReport,
    Example,
    FailureReport,
    Histogram,
    NoValues,
    Preview,
    Provenance,
    ReasonCount,
    RecipeText,
    RunReport,
    ShardReport,
    StageReport,
    Tally,
    Totals,
    WeightUsed,
)

OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
HOSTILE = [
    '"><script>alert(1)</script>.mp4',
    "</script><img src=x onerror=alert(2)>.mp4",
    "</style><style>body{display:none}</style>",
    "javascript:alert(3)//https://evil.example/a.png",
    "\u202egpj.exe\u0000\u001b[31m",
    "a&lt;b&amp;c' onmouseover='alert(4)",
    "\udcff\udcfe undecodable",
    "{{7*7}} ${7*7} <!-- --> ]]>",
    "長い名前" * 120,
]


@dataclass(frozen=True)
class Rule:
    """A stage of the planted recipe: one fact, one or two bounds."""

    name: str
    fact: str
    doc: str
    bounds: tuple[tuple[str, str, float | None, str], ...]  # field, op, value, reason
    low: float
    high: float
    log: bool = False
    unit: str = ""
    shape: str = "FrameStage"
    paper: str = "3.4"
    what: str = ""


ASSET_RULES = (
    Rule("Integrity", "missing_frames", "Compares expected with decoded frames.",
         (("max_missing", "<=", 0.02, "frames_missing"),), 0, 0.1, shape="AssetStage",
         what="share of frames that the container promises but the decoder does not give"),
)  # fmt: skip
CLIP_RULES = (
    Rule("Shots", "length", "Finds hard cuts and fades with PySceneDetect's detectors.",
         (("min_length", ">=", 2.0, "too_short"), ("max_length", "<=", 15.0, "too_long")),
         0, 20, unit="s", what="length of a clip"),
    Rule("Exposure", "black_share", "Measures how much of a clip is black or blown out.",
         (("max_black", "<", 0.3, "too_dark"),), 0, 1, what="share of black pixels"),
    Rule("Blur", "sharpness", "Measures the variance of the Laplacian.",
         (("min_sharpness", ">=", 35.0, "blurred"),), 1, 10000, log=True,
         what="variance of the Laplacian, median over frames"),
    Rule("Motion", "motion", "Measures dense optical flow per frame.",
         (("min_motion", ">", 0.35, "too_still"), ("max_motion", "<=", None, "too_fast")),
         0, 12, unit="px", what="mean flow per frame"),
    Rule("SilenceRatio", "silence_ratio", "Measures the share of a clip without voice.",
         (("max_ratio", "<=", 0.7, "silent"),), 0, 1, shape="AudioStage",
         what="share of time that is silent"),
    Rule("Mos", "mos", "Predicts the mean opinion score of speech with DNSMOS.",
         (("min_mos", ">=", 2.2, "poor_sound"),), 1, 5, shape="ClipStage",
         what="overall quality, 1 to 5"),
    Rule("Transcript", "word_confidence", "Transcribes speech with WhisperX.",
         (("min_confidence", ">=", None, "unclear_speech"),), 0, 1, shape="ClipStage"),
)  # fmt: skip


@dataclass
class Row:
    """One clip. facts: None where there is no value. ended: the stage that ended it, or ''."""

    id: str
    path: str
    seconds: float
    bytes: int
    facts: dict[str, float | None]
    fails_at: str = ""
    ended: str = ""
    outcome: str = "kept"
    reason: str = ""
    value: float | None = None
    bound: str = ""
    broken: set[str] = field(default_factory=set)


@dataclass
class Planted:
    report: RunReport
    rows: list[Row]
    run_dir: Path

    def came_into(self, name: str) -> list[Row]:
        """Clips that reached a clip stage and did not fail in it."""
        order = [rule.name for rule in CLIP_RULES]
        here = order.index(name)
        return [
            row
            for row in self.rows
            if (not row.ended or order.index(row.ended) >= here)
            and not (row.ended == name and row.outcome == "failed")
        ]


def amount(rows: list[Row]) -> Amount:
    return Amount(
        count=len(rows), seconds=sum(r.seconds for r in rows), bytes=sum(r.bytes for r in rows)
    )


def _rows(count: int, rng: np.random.Generator) -> list[Row]:
    rows = []
    for i in range(count):
        length = float(rng.gamma(3, 2.2))
        speech = rng.random() < 0.6
        facts: dict[str, float | None] = {
            "length": length,
            "black_share": float(rng.beta(1, 9) if rng.random() < 0.93 else rng.beta(6, 2)),
            "sharpness": float(10 ** rng.normal(2.4, 0.6)),
            "motion": float(round(rng.gamma(1.3, 1.6), 2)),
            "silence_ratio": float(round(rng.beta(1.2, 3), 2)) if rng.random() < 0.9 else None,
            "mos": float(rng.normal(3.1, 0.6)) if speech else None,
            "word_confidence": None,
        }
        name = HOSTILE[i % len(HOSTILE)] if i % 9 == 0 else f"footage/day_{i % 7}/take_{i:04}.mp4"
        rows.append(
            Row(f"{i * 2654435761 % 2**64:016x}_{i * 1000}_{i * 1000 + int(length * 1e6)}", name,
                length, int(length * rng.integers(60_000, 400_000)), facts,
                fails_at="Blur" if i % 97 == 5 else "")
        )  # fmt: skip
    return rows


def _decide(rows: list[Row]) -> None:
    for row in rows:
        for rule in CLIP_RULES:
            if row.fails_at == rule.name and not row.ended:
                row.ended, row.outcome, row.reason = rule.name, "failed", "corrupt"
            value = row.facts[rule.fact]
            for bound_field, op, bound, reason in rule.bounds:
                if value is None or bound is None or OPS[op](value, bound):
                    continue
                row.broken.add(f"{rule.name}.{bound_field}")
                if not row.ended:
                    row.ended, row.outcome, row.reason = rule.name, "rejected", reason
                    row.value, row.bound = value, f"{rule.fact} {op} {bound:g}"


def _preview_files(folder: Path, count: int, rng: np.random.Generator) -> list[Preview]:
    """Real small films and their posters."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for i in range(count):
        base = rng.integers(30, 220, (90, 160, 3), dtype=np.uint8) // 4 + np.asarray(
            [40 + 20 * i, 120, 200 - 18 * i], np.uint8
        ).clip(0, 190)
        with av.open(str(folder / f"{i}.mp4"), "w") as film:
            stream = film.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
            stream.options = {"crf": "36"}
            for t in range(8):
                picture = np.roll(base, 8 * t, axis=1).astype(np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            film.mux(stream.encode(None))
        with av.open(str(folder / f"{i}.jpg"), "w", format="image2") as still:
            stream = still.add_stream("mjpeg", rate=1)
            stream.width, stream.height, stream.pix_fmt = 160, 90, "yuvj420p"
            still.mux(stream.encode(av.VideoFrame.from_ndarray(base.astype(np.uint8), "rgb24")))
            still.mux(stream.encode(None))
        name = folder.name
        made.append(Preview(poster=f"{name}/{i}.jpg", player=f"{name}/{i}.mp4"))
    return made


def _example(row: Row, group: str, previews: list[Preview], i: int) -> Example:
    return Example(
        id=row.id, path=row.path, outcome=row.outcome, group=group, reason=row.reason,
        value=row.value, bound=row.bound, start=1.5, end=1.5 + row.seconds,
        detail=HOSTILE[i % len(HOSTILE)] if row.outcome == "failed" else "",
        preview=previews[i % len(previews)] if previews and row.outcome != "failed" else Preview(),
        facts={**row.facts, "caption": HOSTILE[i % len(HOSTILE)]},
    )  # fmt: skip


def _examples(rule: Rule, here: list[Row], previews: list[Preview]) -> list[Example]:
    rejected = [r for r in here if r.ended == rule.name and r.outcome == "rejected"]
    failed = [r for r in here if r.ended == rule.name and r.outcome == "failed"]
    passed = [r for r in here if r.ended != rule.name]
    bound = rule.bounds[0][2]
    near = sorted(
        (r for r in here if bound is not None and r.facts[rule.fact] is not None),
        key=lambda r: abs(r.facts[rule.fact] - bound),
    )
    found = []
    for group, rows in (
        ("kept", passed[:8]), ("rejected", rejected[:8]), ("borderline", near[:8]),
        ("failed", failed[:8]),
    ):  # fmt: skip
        cards = [_example(r, group, previews, i) for i, r in enumerate(rows)]
        if group == "borderline":
            told = {"bound": f"{rule.fact} {rule.bounds[0][1]} {bound:g}"} if bound else {}
            cards = [
                c
                if c.outcome == "rejected"
                else c.model_copy(update={**told, "value": c.facts[rule.fact]})
                for c in cards
            ]
        found += cards
    return found


def _stage(rule: Rule, rows: list[Row], previews: list[Preview]) -> StageReport:
    order = [r.name for r in CLIP_RULES]
    at = order.index(rule.name)
    here = [r for r in rows if not r.ended or order.index(r.ended) >= at]
    rejected = [r for r in here if r.ended == rule.name and r.outcome == "rejected"]
    failed = [r for r in here if r.ended == rule.name and r.outcome == "failed"]
    kept = [r for r in here if r.ended != rule.name]
    through = [r for r in here if r not in failed]
    with_value = [r for r in through if r.facts[rule.fact] is not None]
    none = len(through) - len(with_value)
    absent = rule.name == "Transcript"
    own = {f"{rule.name}.{b[0]}" for b in rule.bounds}
    histogram = Histogram.of(
        rule.fact,
        np.asarray([r.facts[rule.fact] for r in with_value], dtype=float),
        np.asarray([r.ended == rule.name for r in with_value], dtype=bool),
        low=rule.low, high=rule.high, log=rule.log, op=rule.bounds[0][1], unit=rule.unit,
        what=rule.what,
        shipped=np.asarray([not r.ended for r in with_value], dtype=bool),
        only=np.asarray(
            [r.ended == rule.name and r.broken <= own and not r.fails_at for r in with_value],
            dtype=bool,
        ),
        not_applicable=0 if absent else none, not_measured=none if absent else 0,
    )  # fmt: skip
    reasons = []
    for reason in dict.fromkeys(b[3] for b in rule.bounds):
        mine = [r for r in rejected if r.reason == reason]
        if mine:
            only = sum(len(r.broken) == 1 and not r.fails_at for r in mine)
            reasons.append(
                ReasonCount(reason=reason, only=only, **amount(mine).model_dump())
            )  # fmt: skip
    bounds = [
        BoundReport(
            field=name, fact=rule.fact, op=op, value=value, reason=reason,
            broken=None if value is None
            else sum(not OPS[op](r.facts[rule.fact], value) for r in with_value),
        )
        for name, op, value, reason in rule.bounds
    ]  # fmt: skip
    return StageReport(
        name=rule.name, recipe="video", shape=rule.shape, unit="clip", doc=rule.doc,
        paper=rule.paper, fields={"height": 90, "backend": "opencv"}, bounds=bounds,
        tally=Tally(
            into=amount(here), kept=amount(kept), rejected=amount(rejected), failed=amount(failed)
        ),
        cost_seconds=0.021 * len(here), measured=len(here) - len(here) // 3,
        reused=len(here) // 3,
        no_value=NoValues(
            not_applicable=0 if absent else none, not_measured=none if absent else 0
        ),
        reasons=reasons, histograms=[histogram], examples=_examples(rule, here, previews),
    )  # fmt: skip


def _asset_stage(assets: int, rng: np.random.Generator, media: Amount) -> StageReport:
    rule = ASSET_RULES[0]
    values = np.concatenate([rng.exponential(0.002, assets - 2), [0.05, 0.3]])
    rejected = values > 0.02
    lost = int(rejected.sum())
    into = Amount(
        count=assets + 1, seconds=media.seconds + 40 * (lost + 1), bytes=media.bytes + 7_000
    )
    bad = Amount(count=lost, seconds=40.0 * lost, bytes=5_000)
    failed = Amount(count=1, seconds=40.0, bytes=2_000)
    kept = Amount(count=assets - lost, seconds=media.seconds, bytes=media.bytes)
    return StageReport(
        name=rule.name, recipe="video", shape=rule.shape, unit="asset", doc=rule.doc,
        bounds=[BoundReport(field="max_missing", fact=rule.fact, op="<=", value=0.02,
                            reason="frames_missing", broken=lost)],
        tally=Tally(into=into, kept=kept, rejected=bad, failed=failed),
        cost_seconds=4.0, measured=assets,
        reasons=[ReasonCount(reason="frames_missing", only=lost, **bad.model_dump())],
        histograms=[Histogram.of(rule.fact, values, rejected, low=rule.low, high=rule.high,
                                 bins=20, op="<=", what=rule.what)],
    )  # fmt: skip


def plant(run_dir: Path, *, clips: int = 640, previews: int = 6, seed: int = 0) -> Planted:
    """A finished video run of `clips` clips from 60 assets, saved in run_dir."""
    rng = np.random.default_rng(seed)
    rows = _rows(clips, rng)
    _decide(rows)
    files = _preview_files(run_dir / "media", previews, rng) if previews else []
    stages = [
        _asset_stage(60, rng, amount(rows)),
        *(_stage(rule, rows, files) for rule in CLIP_RULES),
    ]
    by = {o: amount([r for r in rows if r.outcome == o]) for o in ("kept", "rejected", "failed")}
    assets = stages[0].tally
    started = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    report = RunReport(
        run="20260301-120000-a1b2", started=started, finished=started + timedelta(seconds=754),
        seconds=754.2,
        recipes={"video": RecipeText(yaml="kind: video\nstages:\n  - Shots: {min_length: 2.0}\n",
                                     hash="ab" * 32)},
        provenance=Provenance(
            version="0.1.0", commit="1f2e3d4c", python="3.11.2", platform="Linux x86_64, 2 CPUs",
            command="reelmill curate footage --workspace W --allow-missing",
            libraries={"torch": "2.11.0", "av": "18.0.0", "opencv": "5.0.0"},
            weights=[WeightUsed(name="dnsmos", sha256="cd" * 32, licence="MIT", bundled=True,
                                stage="Mos"),
                     WeightUsed(name="whisper-tiny", licence="MIT", absent=True,
                                stage="Transcript")],
        ),
        sources=["footage", HOSTILE[0]],
        totals=Totals(files=assets, assets=assets,
                      clips=Tally(into=amount(rows), **by)),
        stages=stages,
        failures=[FailureReport(path=r.path, clip=r.id, stage=r.ended, cause="corrupt",
                                message=f"cannot decode {r.path}") for r in rows
                  if r.outcome == "failed"][:MAX_FAILURES],
        failures_total=by["failed"].count + 1,
        shards=[ShardReport(file=f"shards/video/video-{i:05}.tar", sha256=f"{i:02x}" * 32,
                            bytes=10_485_760 + i, samples=120) for i in range(4)],
        notes=["Transcript was not measured: its weights whisper-tiny are absent.", HOSTILE[1]],
    )  # fmt: skip
    save(report, run_dir)
    return Planted(report, rows, run_dir)
