"""Runs the adapters of an evaluation, and keeps what they scored.

OUT/adapters.jsonl   one line per clip (or model) and adapter; scored again only if the clip, its
                     prompt, or the adapter's command, version or metrics changed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelmill.datasets.sample import Status
from reelmill.evaluation.adapter import Adapter, Outcome, run_adapter
from reelmill.evaluation.bench import Prompt
from reelmill.evaluation.clips import ClipEntry

Kept = dict[str, dict[str, Outcome]]  # by digest: outcome of each metric


@dataclass(frozen=True)
class Known:
    """A clip that can be read."""

    entry: ClipEntry
    prompt: Prompt | None
    sha256: str

    @property
    def identity(self) -> list[Any]:
        prompt = self.prompt.digest if self.prompt else ""
        return [self.entry.key, self.sha256, prompt, self.entry.transcript]


def score_all(
    adapters: Sequence[Adapter], clips: Sequence[Known], out: Path
) -> Iterator[tuple[Adapter, Mapping[tuple[str, str], Outcome]]]:
    """Per adapter, outcomes by (key of the clip, or model; metric). out: a folder that exists."""
    path = out / "adapters.jsonl"
    kept = _read(path)
    for adapter in adapters:
        groups: dict[str, list[Known]] = {}
        for clip in clips:
            name = clip.entry.model if adapter.per == "model" else clip.entry.key
            groups.setdefault(name, []).append(clip)
        digests = {name: _digest(adapter, group) for name, group in groups.items()}
        todo = [name for name in groups if digests[name] not in kept]
        made = run_adapter(adapter, [(c.entry, c.prompt) for n in todo for c in groups[n]])
        with path.open("ab") as log:
            if log.tell():
                log.write(b"\n")  # ends a line that was torn
            for name in todo:
                found = {m.name: made[name, m.name] for m in adapter.metrics}
                if all(
                    o.status in (Status.MEASURED, Status.NOT_APPLICABLE) for o in found.values()
                ):
                    rows = {n: [o.value, str(o.status), o.why] for n, o in found.items()}
                    log.write(json.dumps({"key": digests[name], "rows": rows}).encode() + b"\n")
        yield (
            adapter,
            {
                (name, m.name): kept[digests[name]][m.name]
                if name not in todo
                else made[name, m.name]
                for name in groups
                for m in adapter.metrics
            },
        )


def _digest(adapter: Adapter, group: Sequence[Known]) -> str:
    told = [adapter.identity, sorted(map(str, (clip.identity for clip in group)))]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> Kept:
    kept: Kept = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            kept[str(row["key"])] = {
                str(name): Outcome(None if v is None else float(v), Status(status), str(why))
                for name, (v, status, why) in row["rows"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return kept
