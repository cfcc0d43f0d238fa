"""What a study found, as values: counts, budget, ranking, Pareto front, confirmation, failures."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sngd_tune.records.energy import by_source
from sngd_tune.records.metrics import direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import rank
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.statistics import Difference, paired_difference, spread
from sngd_tune.report.values import TEST_METRICS, Budget, Confirmation, Failure
from sngd_tune.tracking.ledger import Ledger

__all__ = ["StudyReport", "budget_of", "study_report", "summarize"]

#: Version of `StudyReport.to_dict`.
REPORT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A study in figures; everything comes from its ledger.

    Attributes:
        study, workload: names.
        objectives: what was optimized, the first of which ranks.
        outcomes: search trials by outcome.
        budget: what was used.
        ranking: completed search trials with a finite objective, best first.
        pareto: trials that no other one beats in every objective, best in the first objective first; empty with one
            objective.
        confirmations: ``best`` first, then ``default``.
        differences: best − default, paired by seed, per test metric; empty without both.
        failures: of both phases.
    """

    study: str
    workload: str
    objectives: tuple[str, ...]
    outcomes: dict[Outcome, int]
    budget: Budget
    ranking: tuple[TrialRecord, ...]
    pareto: tuple[TrialRecord, ...]
    confirmations: tuple[Confirmation, ...]
    differences: tuple[Difference, ...]
    failures: tuple[Failure, ...]

    @property
    def best(self) -> TrialRecord | None:
        """The winner of the search."""
        return self.ranking[0] if self.ranking else None

    def to_dict(self, limit: int | None = None) -> dict[str, Any]:
        """Plain values for JSON (what is not finite becomes None), with at most `limit` trials of the ranking."""
        return _plain(
            {
                "schema": REPORT_VERSION,
                "study": self.study,
                "workload": self.workload,
                "objectives": [{"metric": name, "direction": direction(name)} for name in self.objectives],
                "outcomes": {str(outcome): count for outcome, count in self.outcomes.items()},
                "budget": self.budget,
                "best": [_trial(record) for record in self.ranking[:limit]],
                "pareto": [_trial(record) for record in self.pareto],
                "confirmations": list(self.confirmations),
                "differences": list(self.differences),
                "failures": list(self.failures),
            }
        )


def study_report(directory: Path | str) -> StudyReport:
    """The report of the study in `directory`, finished or not.

    Raises:
        ConfigurationError: no study is there.
        LedgerError: the ledger is damaged, or of another version.
    """
    ledger = Ledger.open(directory)
    return summarize(ledger.config.name, ledger.config.workload, ledger.config.objectives, ledger.trials())


def summarize(study: str, workload: str, objectives: Sequence[str], records: Sequence[TrialRecord]) -> StudyReport:
    """The report of these trials (the latest state of each)."""
    search = [record for record in records if record.phase == "search"]
    confirm = [record for record in records if record.phase == "confirm"]
    ranking = rank(search, objectives[0])
    return StudyReport(
        study=study,
        workload=workload,
        objectives=tuple(objectives),
        outcomes=dict(Counter(record.outcome for record in search)),
        budget=budget_of(records),
        ranking=tuple(ranking),
        pareto=tuple(_pareto(ranking, objectives)) if len(objectives) > 1 else (),
        confirmations=tuple(_confirmations(confirm)),
        differences=tuple(_differences(confirm)),
        failures=tuple(Failure.of(record) for record in records if record.outcome.failed),
    )


def budget_of(records: Sequence[TrialRecord]) -> Budget:
    """What these trials (the latest state of each) have used."""
    search = [record for record in records if record.phase == "search"]
    busy, end = 0.0, 0.0
    for start, stop in sorted((record.started, record.ended or record.updated) for record in records):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return Budget(
        trials=len(search),
        confirmations=len(records) - len(search),
        retries=sum(record.attempt for record in records),
        device_seconds=sum(record.training_seconds for record in records),
        wall_seconds=busy,
        energy=by_source(record.energy for record in records),
        search_energy=by_source(record.energy for record in search),
        unmetered=sum(record.energy is None and record.epochs > 0 for record in records),
    )


def _pareto(ranking: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """The front among the trials of a ranking; one with a missing or non-finite objective is not on it."""
    costs = []
    for record in ranking:
        values = [record.objectives.get(name) for name in objectives]
        if all(value is not None and math.isfinite(value) for value in values):
            signs = [1 if direction(name) == "minimize" else -1 for name in objectives]
            costs.append((record, [sign * value for sign, value in zip(signs, values, strict=True)]))  # type: ignore[operator]
    return [record for record, cost in costs if not any(_dominates(other, cost) for _, other in costs)]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def _confirmations(confirm: Sequence[TrialRecord]) -> list[Confirmation]:
    found = []
    for candidate in ("best", "default"):
        records = [record for record in confirm if record.candidate == candidate and record.outcome.finished]
        completed = [record for record in records if record.outcome is Outcome.COMPLETED]
        spreads = {metric: spread([getattr(record, metric) for record in completed]) for metric in TEST_METRICS}
        if records:
            found.append(
                Confirmation(
                    candidate=candidate,
                    runs=len(completed),
                    failed=len(records) - len(completed),
                    metrics={metric: value for metric, value in spreads.items() if value is not None},
                    training_seconds=spread([record.training_seconds for record in completed]),
                )
            )
    return found


def _differences(confirm: Sequence[TrialRecord]) -> list[Difference]:
    completed = [record for record in confirm if record.outcome is Outcome.COMPLETED]
    found = []
    for metric, higher_is_better in TEST_METRICS.items():
        sides = [
            {record.seed: getattr(record, metric) for record in completed if record.candidate == candidate}
            for candidate in ("best", "default")
        ]
        difference = paired_difference(metric, sides[0], sides[1], higher_is_better=higher_is_better)
        if difference is not None:
            found.append(difference)
    return found


def _trial(record: TrialRecord) -> dict[str, Any]:
    names = ("trial", "number", "objectives", "epochs", "training_seconds", "seed", "parameters")
    return {name: getattr(record, name) for name in names}


def _plain(value: Any) -> Any:
    """Values that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Outcome) else value
