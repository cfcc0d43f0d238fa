import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from sngd_tune.bench import cost
from sngd_tune.bench.cost import CHOICES, measure
from sngd_tune.bench.tasks import TASKS, Task
from sngd_tune.cli import app
from sngd_tune.core.account import matches
from sngd_tune.errors import ConfigurationError
from sngd_tune.selection.cost import REFERENCE

FIGURES = {
    "task",
    "threads",
    "setting",
    "interval",
    "predicted_milliseconds",
    "milliseconds",
    "predicted_ratio",
    "ratio_amortized",
    "predicted_over_measured",
    "lower_quartile",
    "upper_quartile",
    "extrapolated",
    "calibration_seconds",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A task of microseconds, two choices, and little time for plain steps."""

    def batch():
        return torch.rand(4, 6), torch.randint(0, 3, (4,))

    task = Task("mnist_mlp", lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), batch)
    monkeypatch.setitem(TASKS, "mnist_mlp", task)
    monkeypatch.setattr(cost, "CHOICES", {name: CHOICES[name] for name in ("default", "mixed")})
    monkeypatch.setattr(cost, "_PLAIN_SECONDS", 0.01)


def test_rows_have_their_figures():
    told = []
    rows = measure(["mnist_mlp"], rounds=2, announce=told.append)
    assert told == ["mnist_mlp"]
    assert [row["setting"] for row in rows] == ["default", "mixed"]
    for row in rows:
        assert set(row) == FIGURES
        assert row["threads"] == 1
        assert row["interval"] == 50
        assert row["extrapolated"] is False
        assert 0 < row["lower_quartile"] <= row["predicted_over_measured"] <= row["upper_quartile"]


def test_threads_are_given_back(monkeypatch):
    monkeypatch.setattr(cost, "_rows", lambda problem, rounds: [{"setting": torch.get_num_threads()}])
    before = torch.get_num_threads()
    assert measure(["mnist_mlp"], threads=before + 1) == [
        {"task": "mnist_mlp", "threads": before + 1, "setting": before + 1}
    ]
    assert torch.get_num_threads() == before


def test_a_slow_step_gets_short_intervals(monkeypatch):
    monkeypatch.setattr(cost, "_SLOW_SECONDS", 0.0)
    assert {row["interval"] for row in measure(["mnist_mlp"], rounds=1)} == {10}


def test_a_workload_is_measured_on_its_own_data():
    (row, _) = measure([], ["tests.examples.moons:Moons"], rounds=1, batch_size=32)
    assert row["task"] == "tests.examples.moons:Moons"
    assert row["milliseconds"] > 0


def test_every_choice_fits_every_task():
    for task in TASKS.values():
        model = task.model()
        for choice in CHOICES.values():
            for name, settings in cost._settings(choice, model, 10).items():
                assert matches(model, {name: settings} if name else settings)
                assert (settings.fisher_interval, settings.statistics_interval) == (10, 5)
    mixed = cost._settings(CHOICES["mixed"], TASKS["transformer"].model(), 10)
    assert len({(s.granularity, s.rank) for s in mixed.values()}) == 4


def test_unknown_names_are_refused():
    with pytest.raises(ConfigurationError, match="task 'mnist': must be one of mnist_mlp, cnn, lstm, transformer"):
        measure(["mnist"])
    with pytest.raises(ConfigurationError, match="mnist_mpl"):
        measure([], ["mnist_mpl"])


def test_the_command_prints_rows():
    result = CliRunner().invoke(app, ["bench", "cost", "--task", "mnist_mlp", "--rounds", "1", "--format", "json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["schema"] == 1
    assert [row["task"] for row in printed["rows"]] == ["mnist_mlp", "mnist_mlp"]
    assert REFERENCE.rank is not None
