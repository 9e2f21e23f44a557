"""Recipes, run records and key records meet mutated files: only our errors come out."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.mutations import ODD, allowed, damaged, every_twist, twisted

from reelmill.curation.key_record import past_components, save_components
from reelmill.curation.recipe import check, load_yaml, to_yaml
from reelmill.curation.recipes import KNOWN, video
from reelmill.curation.run_record import BoundRecord, KindRecord, RunRecord, StageRecord, read_run
from reelmill.datasets.sample import Kind
from reelmill.datasets.workspace import open_workspace

EXAMPLES = [80, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


def fuzz(examples: int, files: st.SearchStrategy[bytes], read: Callable[[bytes], None]) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(files)
    def each(data: bytes) -> None:
        read(data)

    each()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_recipes(tmp_path, examples):
    text = to_yaml(video()).encode()
    plain = json.dumps(yaml.safe_load(text))  # JSON is YAML
    path = tmp_path / "recipe.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        allowed(lambda: check(load_yaml(path, KNOWN)))

    if examples > 100:
        for data in every_twist(plain):
            read(data)
    fuzz(examples, st.one_of(damaged(text), twisted(plain)), read)


@pytest.mark.parametrize("text", ["&a [*a]", "&a {a: *a}", "- " * 3000, "[" * 3000, "!!set {a}"])
def test_recipes_that_turn_on_themselves(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    allowed(lambda: load_yaml(path, KNOWN))


def test_a_recipe_of_aliases_does_not_explode(tmp_path):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*lines, "kind: *a39", "stages: *a39"]))
    allowed(lambda: load_yaml(path, KNOWN))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_run_records(tmp_path, examples):
    place = open_workspace(tmp_path / "w")
    stage = StageRecord(
        name="Blur",
        key="0123456789abcdef",
        level="clip",
        fields={"fps": 4.0},
        bounds={"min": BoundRecord(fact="sharpness", op=">=", value=1.0, reason="blurred")},
        facts={"sharpness": ""},
    )
    kind = KindRecord(recipe="r", segments="ledger/segments/x", stages=(stage,))
    record = RunRecord(
        run="r1", sources=("m",), media="ledger/media/x", decoded="ledger/decoded/x",
        kinds={Kind.VIDEO: kind},
    )  # fmt: skip
    path = place.ledger / "runs" / "r1.json"
    path.parent.mkdir(parents=True)
    text = record.model_dump_json()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        allowed(lambda: read_run(place, "r1").verdicts(place))

    for data in every_twist(text):
        read(data)
    fuzz(examples, st.one_of(damaged(text.encode()), twisted(text)), read)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_key_records(tmp_path, examples):
    place = open_workspace(tmp_path / "w")
    parts = {"stage": "Blur", "version": 1, "fields": {"fps": 4}, "needs": {}, "code": "ab"}
    save_components(place, "Blur", "0123456789abcdef", parts)
    (path,) = (place.ledger / "keys" / "Blur").glob("*.json")
    text = path.read_bytes()

    def read(data: bytes) -> None:
        from reelmill.curation.key_record import changes

        path.write_bytes(data)

        def explain() -> None:
            for old in past_components(place, "Blur").values():
                changes(old, parts)

        allowed(explain)

    for data in every_twist(text):
        read(data)
    fuzz(examples, st.one_of(damaged(text), twisted(text)), read)


@pytest.mark.parametrize("value", ODD)
def test_a_workspace_marker_with_odd_values(tmp_path, value):
    (tmp_path / "workspace.json").write_text(json.dumps({"schema": value}))
    allowed(lambda: open_workspace(tmp_path))
