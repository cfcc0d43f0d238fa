import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from sngd_tune.records.attempts import Attempts, Lost, Report, attempts_of, together
from sngd_tune.records.energy import Energy
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from tests.report.synthetic import epoch, record, study


def reports(attempt: int, seconds: Sequence[float], first: int = 1, watts: float | None = 10.0) -> list[Report]:
    """Epochs from `first` on, each with the seconds since the start of the trial."""
    energies = [None if watts is None else Energy(watts * each, "nvml") for each in seconds]
    pairs = zip(seconds, energies, strict=True)
    return [Report(attempt, first + i, each, energy) for i, (each, energy) in enumerate(pairs)]


def found(told: Sequence[Report], epochs: int, attempt: int, outcome: Outcome = Outcome.COMPLETED) -> Attempts:
    return attempts_of([record(0, epochs=epochs, attempt=attempt, outcome=outcome)], {"0000": told})


def test_a_trial_that_was_never_cut_off_lost_nothing() -> None:
    assert found(reports(0, [1.0, 2.0]), epochs=2, attempt=0) == Attempts(begun=1)


def test_what_was_trained_beyond_the_checkpoint_is_lost() -> None:
    told = [*reports(0, [1.0, 2.0, 3.0, 4.0]), *reports(1, [3.5, 4.5, 5.5], first=3)]
    assert found(told, epochs=5, attempt=1) == Attempts(begun=2, cut_off=1, lost=(Lost(2.0, Energy(20.0, "nvml")),))


def test_each_gap_counts_once_and_without_a_checkpoint_all_is_lost() -> None:
    told = [*reports(0, [1.0, 2.0, 3.0]), *reports(1, [2.5], first=2), *reports(2, [1.1, 2.1])]
    assert [each.seconds for each in found(told, epochs=2, attempt=2).lost] == [2.0, 2.5]


def test_epochs_that_a_checkpoint_tells_again_were_not_trained_again() -> None:
    told = [*reports(0, [1.0, 2.0, 3.0]), *reports(1, [2.0, 3.0, 4.0], first=2)]
    assert found(told, epochs=4, attempt=1).lost == ()


def test_an_attempt_that_began_anew_and_told_nothing_lost_what_came_before() -> None:
    told = reports(0, [1.0, 2.0])
    lost = found(told, epochs=0, attempt=1, outcome=Outcome.LOST)
    assert lost == Attempts(begun=2, cut_off=2, lost=(Lost(2.0, Energy(20.0, "nvml")),))


@pytest.mark.parametrize("watts", [None, 10.0])
def test_energy_that_was_not_told_stays_unknown(watts: float | None) -> None:
    told = [*reports(0, [1.0], watts=None), *reports(0, [2.0], first=2, watts=watts), *reports(1, [2.5], first=2)]
    assert found(told, epochs=2, attempt=1).lost == (Lost(1.0, None),)


def test_studies_are_counted_together() -> None:
    one = found([*reports(0, [1.0]), *reports(1, [1.5])], epochs=1, attempt=1)
    assert together([one, one, Attempts(begun=3)]) == Attempts(begun=7, cut_off=2, lost=one.lost * 2)


def test_the_ledger_keeps_what_attempts_reported_that_others_trained_again(tmp_path: Path) -> None:
    """Two epochs, a process that dies in the third, and two more from the checkpoint after the first."""
    ledger, state = Ledger.create(tmp_path / "study", study()), record(0)

    def told(attempt: int, numbers: Sequence[int], speed: float) -> TrialRecord:
        now = dataclasses.replace(state, attempt=attempt, epochs=numbers[-1], updated=float(attempt))
        epochs = [
            dataclasses.replace(epoch(n, 1.0, speed), energy_joules=10.0 * n * speed, energy_source="nvml")
            for n in numbers
        ]
        ledger.write_epochs(now, epochs, [float(n) for n in numbers])
        ledger.write_trial(now)
        return now

    told(0, [1, 2], speed=1.0)
    ledger.write_trial(dataclasses.replace(told(1, [2, 3], speed=1.1), outcome=Outcome.COMPLETED, updated=9.0))
    found = attempts_of(ledger.trials(), ledger.reports())
    assert (found.begun, found.cut_off, found.lost) == (2, 1, (Lost(1.0, Energy(10.0, "nvml")),))
    assert [each.training_seconds for each in ledger.epochs_by_trial()["0000"]] == [1.0, 2.2, pytest.approx(3.3)]
