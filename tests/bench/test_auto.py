"""What auto-selection is worth beside a plain search: figures in pairs, aims that are told, runs that go on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sngd_tune.bench.auto import PACES, Effort, measure
from sngd_tune.bench.auto_figures import figures, missed
from sngd_tune.cli import app
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from tests.search.studies import SEARCH_SPACES


def record(phase: str, number: int, loss: float | None, seconds: float = 1.0, **test: float) -> TrialRecord:
    return TrialRecord(
        study="small",
        workload="digits_mlp",
        trial=f"{phase}-{number}",
        number=number,
        phase=phase,
        outcome=Outcome.DIVERGED if loss is None else Outcome.COMPLETED,
        objectives={"validation_loss": loss},
        training_seconds=seconds,
        **test,  # type: ignore[arg-type]
    )


def study(losses: list[float | None], searched: int = 2, **test: float) -> list[TrialRecord]:
    """So many trials of a second, and the winner's on each seed."""
    confirmed = [record("confirm", number, loss, **test) for number, loss in enumerate(losses)]
    return [*(record("search", number, 9.0) for number in range(searched)), *reversed(confirmed)]


def test_losses_are_compared_seed_by_seed() -> None:
    """The median of the ratios, and not the ratio of the medians: 1.2 over 1."""
    trials = {
        "plain": study([1.0, 2.0, 4.0], searched=40, test_accuracy=0.5, test_loss=3.0),
        "auto": study([1.2, 1.0, 8.0], test_loss=3.0),
        "searched": study([1.0, 2.0, 2.0], searched=10, test_accuracy=0.75),
    }
    found = figures(trials, 3, probing_seconds=60.0)
    assert found["plain_losses"] == [1.0, 2.0, 4.0]
    assert found["auto_ratios"] == [1.2, 0.5, 2.0]
    assert (found["plain_loss"], found["auto_loss"], found["searched_loss"]) == (2.0, 1.2, 2.0)
    assert (found["auto_ratio"], found["searched_ratio"]) == (1.2, 1.0)
    assert (found["plain_test"], found["auto_test"], found["searched_test"]) == (0.5, 3.0, 0.75)
    assert (found["plain_seconds"], found["auto_seconds"], found["searched_seconds"]) == (40.0, 60.0, 70.0)
    assert missed({"workload": "w", **found}) == [
        "w: auto has 1.200 × the loss of the plain search's winner; the aim is ≤ 1.1 ×"
    ]
    assert missed({"workload": "w", "auto_ratio": 1.1, "searched_ratio": 1.005}) == []


@pytest.mark.parametrize("losses", [[1.0, None], [1.0], []])
def test_what_failed_on_a_seed_misses_its_aim(losses: list[float | None]) -> None:
    found = figures({"plain": study([1.0, 1.0]), "auto": study(losses), "searched": study([0.5, 0.5])}, 2, 60.0)
    assert found["auto_loss"] is found["auto_ratio"] is found["auto_test"] is None
    assert missed({"workload": "w", **found}) == [
        "w: auto has no loss of the plain search's winner; the aim is ≤ 1.1 ×"
    ]


def test_searches_are_compared_after_as_many_seconds() -> None:
    """Probing and one trial of a second: so much earlier the plain search had seen two trials."""
    searches = {"plain": [5.0, None, 4.0, 3.0], "searched": [2.5], "auto": [2.5]}
    trials = {
        kind: [replace(record("search", n, loss), ended=float(n)) for n, loss in enumerate(losses)]
        for kind, losses in searches.items()
    }
    assert figures(trials, 0, probing_seconds=1.0)["equal_seconds_ratio"] == 0.5
    assert figures(trials, 0, probing_seconds=2.0)["equal_seconds_ratio"] == 2.5 / 4
    assert figures({**trials, "searched": []}, 0, probing_seconds=2.0)["equal_seconds_ratio"] is None


def test_every_committed_study_has_its_pace() -> None:
    assert {path.stem for path in SEARCH_SPACES.glob("*.yaml")} == set(PACES)


def test_bad_input_is_found_before_anything_is_run(tmp_path: Path) -> None:
    for name, message in [("digits_mpl", "cannot be read"), ("mnist_mlp", "needs a data directory")]:
        with pytest.raises(ConfigurationError, match=message):
            measure(["digits_mlp", name], SEARCH_SPACES, tmp_path / "runs", None, Effort())
    assert not (tmp_path / "runs").exists()


def bench(directory: Path, *options: object) -> tuple[int, Any, str]:
    """Exit code, rows, messages."""
    sizes = {"--seconds": 0.3, "--plain-trials": 2, "--auto-trials": 2, "--seeds": 2, "--probe-seconds": 5}
    given = [
        *(part for pair in sizes.items() for part in pair),
        "--dir",
        directory,
        "--spaces",
        SEARCH_SPACES,
        *options,
    ]
    command = ["bench", "auto", "--workload", "digits_mlp", "--format", "json", *given]
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)["rows"] if result.stdout else None, result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_workload_from_its_committed_study_to_its_row(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("SNGD_TUNE_DATA", raising=False)
    code, rows, messages = bench(tmp_path / "runs")
    (row,) = rows
    assert (row["workload"], row["seconds"]) == ("digits_mlp", 0.3)
    assert all(0 < loss < 3 for kind in ("plain", "auto", "searched") for loss in row[f"{kind}_losses"])
    assert 0 < row["plain_seconds"] < 2 * 0.5
    assert row["searched_seconds"] > row["auto_seconds"] == row["probing_seconds"] > 0
    assert code == (1 if missed(row) else 0)
    assert all(f"missed: {text}" in messages for text in missed(row))
    # All is done: a second call repeats nothing, and other options are refused.
    again = bench(tmp_path / "runs")
    assert again[:2] == (code, rows)
    assert "trial 0000" not in again[2]
    code, rows, messages = bench(tmp_path / "runs", "--plain-trials", 3)
    assert (code, rows) == (2, None)
    assert "was run with other options; repeat them, or name another --dir" in messages
