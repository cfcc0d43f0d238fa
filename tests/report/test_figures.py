from pathlib import Path

import pytest

from sngd_tune.errors import LedgerError
from sngd_tune.records.outcome import Outcome
from sngd_tune.report.figures import write_figures
from sngd_tune.tracking.ledger import Ledger
from tests.report.synthetic import record, study, write_study


def test_a_study_gets_its_three_figures(tmp_path: Path) -> None:
    ledger = write_study(tmp_path / "study")
    paths = write_figures(ledger.directory)
    assert [path.name for path in paths] == ["learning_curves.png", "best_so_far.png", "slices.png"]
    for path in paths:
        assert path.parent == ledger.directory / "figures"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_a_study_that_maximizes_is_drawn(tmp_path: Path) -> None:
    ledger = write_study(tmp_path / "study", objectives=["validation_accuracy"])
    assert write_figures(ledger.directory)  # its trials have no such objective: curves alone


def test_a_study_without_trials_has_no_figures(tmp_path: Path) -> None:
    assert write_figures(Ledger.create(tmp_path / "study", study()).directory) == []


def test_nothing_but_failures_is_no_reason_to_fail(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", study())
    for number in range(3):
        ledger.write_trial(record(number, outcome=Outcome.ERROR, parameters={"lr": 0.1}))
    assert write_figures(ledger.directory) == []


def test_one_completed_trial_is_enough_for_progress(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study", study())
    done = record(0, outcome=Outcome.COMPLETED, objectives={"validation_loss": 0.5}, started=1.0, ended=2.0)
    ledger.write_trial(done)
    assert [path.name for path in write_figures(ledger.directory)] == ["best_so_far.png"]


def test_figures_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    ledger = write_study(tmp_path / "study", trials=4)
    (ledger.directory / "figures").write_text("in the way")
    with pytest.raises(LedgerError, match=r"learning_curves\.png: cannot be written"):
        write_figures(ledger.directory)
