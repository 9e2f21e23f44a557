"""Drift: an alarm for what changed, none for what chance does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2
from tests.reports.planted_run import plant

from reelmill.reports.drift import _chi_squared, alarms, shift
from reelmill.reports.histogram import Histogram


def of(values: np.ndarray, **other: object) -> Histogram:
    given = {"low": -4.0, "high": 4.0, "bins": 40} | other
    return Histogram.of("score", values, np.zeros(len(values), bool), **given)


@pytest.mark.parametrize("freedom", [1, 2, 5, 9])
def test_the_point_of_chi_squared_is_scipys(freedom):
    assert _chi_squared(freedom) == pytest.approx(chi2.ppf(0.999, freedom), rel=0.035)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (40, 4000), (500, 500), (20_000, 20_000)])
def test_two_samples_of_one_population_raise_almost_no_alarm(n, m):
    rng = np.random.default_rng(n)
    raised = [
        shift(of(rng.normal(size=n)), of(rng.normal(size=m))).alarming  # type: ignore[union-attr]
        for _ in range(200)
    ]
    assert sum(raised) <= 2


@pytest.mark.parametrize("moved", [1.0, -1.0])
def test_a_population_that_moved_by_a_deviation_is_alarming(moved):
    rng = np.random.default_rng(1)
    found = shift(of(rng.normal(size=300)), of(rng.normal(moved, size=300)))
    assert found is not None
    assert found.alarming
    assert found.psi == pytest.approx(1.0, abs=0.45)  # of unit normals: the shift's square


def test_the_distance_is_scipys():
    rng = np.random.default_rng(2)
    a, b = of(rng.normal(size=500)), of(rng.normal(0.3, 1.2, size=400))
    found = shift(a, b)
    assert found is not None
    assert found.distance == pytest.approx(jensenshannon(a.counts, b.counts, base=2))


def test_few_values_and_other_bins_are_not_compared():
    many = of(np.zeros(100))
    assert shift(many, of(np.zeros(29))) is None
    assert shift(many, of(np.zeros(100), bins=20)) is None


def test_one_value_alone_does_not_drift():
    found = shift(of(np.zeros(100)), of(np.zeros(1000)))
    assert found is not None
    assert (found.psi, found.alarming) == (pytest.approx(0, abs=1e-3), False)


def test_a_run_does_not_drift_from_itself_and_a_share_that_jumped_is_named(tmp_path):
    report = plant(tmp_path, previews=0).report
    assert alarms(report, report) == []
    stage = next(s for s in report.stages if s.unit == "clip" and s.tally.rejected.count > 40)
    half = stage.tally.into.count // 2
    kept = stage.tally.kept.model_copy(update={"count": stage.tally.into.count - half})
    worse = stage.tally.model_copy(
        update={"kept": kept, "rejected": stage.tally.rejected.model_copy(update={"count": half})}
    )
    stages = [s.model_copy(update={"tally": worse}) if s is stage else s for s in report.stages]
    (alarm,) = alarms(report, report.model_copy(update={"stages": stages}))
    assert alarm.stage == stage.slug
    assert "rejected" in alarm.what
    assert "50.0%" in alarm.what
