"""Trials that two workers train together: as one process would, and what goes wrong in one of them ends both."""

import time
from pathlib import Path

import pytest
import ray

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from tests.examples.faults import DIVERGES, RAISES, SLOW
from tests.studies import FAULTS, NOISE, Witness, epochs, outcomes, run, study, trial_processes
from tests.training_ranks import Digits, config
from tests.training_ranks import run as train_here

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]

TWO = {"workers": 2}


def test_the_ledger_holds_what_one_process_comes_to_and_stopped_trials_free_their_workers(tmp_path: Path) -> None:
    """Of four trials asha stops those that are no better than the first."""
    rates = [0.1, 1e-3, 1e-9, 1e-8]
    asked = study(
        workload="tests.training_ranks:Digits",
        fixed={"batch_size": 50, "base": "sgd", "fisher_interval": 10, "statistics_interval": 5},
        space={"lr": {"low": 1e-9, "high": 0.2, "log": True}},
        start=[{"lr": lr} for lr in rates],
        search={"trials": 4, "resources": TWO, "scheduler": {"name": "asha", "reduction_factor": 2}},
    )
    _, ledger = run(asked, tmp_path)
    assert list(outcomes(ledger).values()) == ["completed", "stopped_early", "stopped_early", "stopped_early"]
    for record in ledger.trials():
        expected, _ = train_here(config(3, base="sgd", lr=record.parameters["lr"], seed=record.seed), Digits())
        for _, _, metrics in ledger.epoch_metrics(record.trial):
            assert_alike(metrics, expected[metrics.epoch - 1])
    assert free_cpus() == 2


def free_cpus() -> float:
    """Ray's count, which follows what has ended within moments."""
    end = time.monotonic() + 20
    while (free := ray.available_resources().get("CPU", 0.0)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    return float(free)


def assert_alike(metrics: EpochMetrics, expected: EpochMetrics) -> None:
    values = metrics.scalars()
    for name, value in expected.scalars().items():
        if not any(word in name for word in NOISE) and not name.startswith("test"):
            assert values[name] == pytest.approx(value, rel=1e-6), name


class RankKiller(Witness):
    """Kills one of the two workers of trial 0002 after the first epoch of its first attempt."""

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        super().epoch_finished(record, metrics)
        if (record.trial, record.attempt, metrics.epoch) == ("0002", 0, 1):
            trial_processes(actor="Rank")[0].kill()


@pytest.fixture(scope="module")
def faulty(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, RankKiller]:
    """A study whose trials go wrong in one of their workers, each in its way, and what it told."""
    sizes, witness = [RAISES, DIVERGES, SLOW], RankKiller()
    asked = study(
        workload=f"{FAULTS}:FaultyOnOneRank",
        fixed={"fisher_interval": 5},
        space={"lr": {"low": 0.01, "high": 0.2}, "batch_size": {"choices": sizes}},
        start=[{"batch_size": size} for size in sizes],
        search={"trials": 3, "resources": TWO, "checkpoint_seconds": 0.0},
    )
    return run(asked, tmp_path_factory.mktemp("faulty"), [witness])[1], witness


def test_what_one_worker_raises_is_the_outcome_and_the_next_trial_trains(faulty: tuple[Ledger, RankKiller]) -> None:
    raised, diverged, _ = faulty[0].trials()
    assert (raised.outcome, raised.attempt, raised.epochs) == (Outcome.ERROR, 0, 1)
    assert "RuntimeError: the workload [of this test] raises on one rank" in (raised.error or "")
    assert (diverged.outcome, diverged.attempt) == (Outcome.DIVERGED, 0)


def test_a_trial_that_lost_a_worker_goes_on_from_its_checkpoint(faulty: tuple[Ledger, RankKiller]) -> None:
    ledger, witness = faulty
    *_, lost = ledger.trials()
    assert (lost.outcome, lost.attempt) == (Outcome.COMPLETED, 1)
    assert epochs(ledger, lost.trial) == [1, 2, 3]
    assert [epoch for trial, epoch in witness.epochs if trial == lost.trial] == [1, 2, 3]  # none of them twice
