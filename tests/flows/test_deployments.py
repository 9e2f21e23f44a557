"""prefect.yaml says what Prefect understands."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "prefect.yaml"


def deployments() -> list[dict[str, Any]]:
    return yaml.safe_load(FILE.read_text())["deployments"]


def test_every_key_is_one_that_prefect_reads():
    """Prefect leaves out what it does not know, so a typing error would deploy."""
    from prefect.cli.deploy._models import (
        ConcurrencyLimitSpec,
        DeploymentConfig,
        PrefectYamlModel,
        RawScheduleConfig,
        WorkPoolConfig,
    )
    from prefect.cli.deploy._triggers import _initialize_deployment_triggers

    def known(model: type, found: dict[str, Any], extra: frozenset[str] = frozenset()) -> None:
        assert set(found) <= set(model.model_fields) | extra, found

    known(PrefectYamlModel, yaml.safe_load(FILE.read_text()), frozenset({"definitions"}))
    for one in deployments():
        known(DeploymentConfig, one)
        known(WorkPoolConfig, one["work_pool"])
        known(ConcurrencyLimitSpec, one.get("concurrency_limit") or {})
        for schedule in one.get("schedules", []):
            RawScheduleConfig.model_validate(schedule)
            assert schedule["active"] is False
        for trigger in _initialize_deployment_triggers(one["name"], one.get("triggers", [])):
            assert set(trigger.parameters or {}) <= set(parameters(one))
    assert len({one["name"] for one in deployments()}) == len(deployments())


def parameters(one: dict[str, Any]) -> dict[str, Any]:
    """The form of a deployment's flow: the properties of its parameters' schema."""
    from prefect.utilities.callables import parameter_schema

    module, name = one["entrypoint"].split(":")
    schema = parameter_schema(getattr(importlib.import_module(module), name))
    for field in schema.properties.values():
        assert field.get("description"), field
    return schema.properties


@pytest.mark.parametrize("one", deployments(), ids=lambda one: one["name"])
def test_entrypoints_exist_and_take_the_parameters_given(one: dict[str, Any]):
    assert set(one["parameters"]) <= set(parameters(one))
    assert one["description"]


def test_forms_offer_what_there_is_to_choose_from():
    from prefect.utilities.callables import parameter_schema

    from reelmill.flows.approve import approve
    from reelmill.flows.curate import curate
    from reelmill.flows.train import train
    from reelmill.training.curricula import CURRICULA

    for flow, name, choices in (
        (train, "curriculum", CURRICULA),
        (curate, "engine", ("local", "ray")),
        (approve, "decision", ("approve", "reject")),
    ):
        assert set(parameter_schema(flow).properties[name]["enum"]) == set(choices)
    properties = parameter_schema(curate).properties
    assert {"format": "date", "type": "string"} in properties["since"]["anyOf"]
    assert {"exclusiveMinimum": 0, "type": "number"} in properties["timeout"]["anyOf"]


def test_every_flow_is_deployed():
    from prefect import Flow

    found = set()
    for path in sorted((ROOT / "flows").glob("*.py")):
        module = importlib.import_module(f"reelmill.flows.{path.stem}")
        found |= {
            f"{module.__name__}:{name}"
            for name, value in vars(module).items()
            if isinstance(value, Flow) and value.fn.__module__ == module.__name__
        }
    assert found == {one["entrypoint"] for one in deployments()}


def test_what_is_approved_was_made_with_the_bounds_it_has(tmp_path: Path):
    from reelmill.errors import UsageError
    from reelmill.flows.approve import approve

    with pytest.raises(UsageError, match="rejecting"):
        approve.fn(tmp_path, "approve", "R", bounds=["Blur.min_sharpness=0.1"])
