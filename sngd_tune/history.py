"""What the ledger says of earlier runs of a study: what a resumed one starts from."""

from collections.abc import Sequence

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger

__all__ = ["busy_seconds", "past_trials"]


def past_trials(ledger: Ledger) -> list[PastTrial]:
    """The search trials of earlier runs of the study, as the searcher wants them."""
    objectives = ledger.config.objectives
    intermediate: dict[str, dict[int, float]] = {}
    for trial, _, metrics in ledger.epoch_metrics():
        value = getattr(metrics, objectives[0])
        if value is not None:  # an accuracy, of an epoch that diverged
            intermediate.setdefault(trial, {})[metrics.epoch] = value
    return [
        PastTrial(
            trial=record.trial,
            number=record.number,
            parameters=record.parameters,
            seed=record.seed,
            # A driver that was killed left its trials RUNNING: nobody runs them now.
            outcome=Outcome.INTERRUPTED if record.outcome is Outcome.RUNNING else record.outcome,
            values=_values(record, objectives),
            intermediate=intermediate.get(record.trial, {}),
            attempt=record.attempt,
            epochs=record.epochs,
        )
        for record in ledger.trials()
        if record.phase == "search"
    ]


def _values(record: TrialRecord, objectives: Sequence[str]) -> tuple[float, ...] | None:
    values = [value for name in objectives if (value := record.objectives.get(name)) is not None]
    return tuple(values) if record.outcome is Outcome.COMPLETED and len(values) == len(objectives) else None


def busy_seconds(records: Sequence[TrialRecord]) -> float:
    """Wall-clock seconds in which at least one search trial was under way."""
    busy, end = 0.0, 0.0
    spans = sorted((r.started, r.ended or r.updated) for r in records if r.phase == "search")
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy
