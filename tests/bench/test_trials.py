"""What a study costs beside its trainings: the rows are whole, the figures are of what they say."""

from pathlib import Path

import pytest
import torch

from sngd_tune.bench.trials import Sleeping, measure_sleeping
from sngd_tune.errors import ConfigurationError


def test_a_sleeping_trial_sleeps_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    workload, one = Sleeping(), torch.ones(1, 1)
    assert workload.loss(one, one) == 0
    assert len(naps) == 1
    with torch.no_grad():
        workload.loss(one, one)
    assert len(naps) == 1


@pytest.mark.slow
def test_sleeping_trials_are_measured_over_the_ideal(ray_session: None, tmp_path: Path) -> None:
    (row,) = measure_sleeping(trials=12, concurrent=4, seconds=0.2)
    assert (row["task"], row["trials"], row["concurrent"]) == ("sleeping", 12, 4)
    assert row["ideal_seconds"] == 0.4
    # No trial ends before its time, and four slots cannot be beaten.
    assert row["study_seconds"] >= row["ideal_seconds"] - 0.05
    assert row["overhead"] == pytest.approx(row["study_seconds"] / row["ideal_seconds"] - 1, abs=0.03)
    assert row["start_seconds"] > 0
    assert row["first_ms"] > 0
    assert abs(row["driver_mb"]) < 200


@pytest.mark.parametrize(("trials", "concurrent"), [(8, 4), (13, 4)])
def test_trials_that_make_no_whole_rounds_are_refused(trials: int, concurrent: int) -> None:
    with pytest.raises(ConfigurationError, match=f"trials={trials}: must be a multiple of concurrent=4"):
        measure_sleeping(trials, concurrent)
