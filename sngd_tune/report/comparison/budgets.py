"""Whether the budgets of a comparison were equal: what was allotted, and what was used of it."""

import json
from collections.abc import Callable
from typing import Any

from sngd_tune.records.study import StudyConfig
from sngd_tune.report.comparison.runs import WorkloadResults, confirmations

__all__ = ["budget_notes"]

#: A training ends in the step in which its seconds are over; one this much longer had more than the others.
_TOLERANCE = 1.1

_ALLOTTED: dict[str, Callable[[StudyConfig], Any]] = {
    "trials of the search": lambda config: config.search.trials,
    "seconds of a training": lambda config: config.seconds,
    "epochs of a training": lambda config: config.epochs,
    "examples between evaluations": lambda config: config.epoch_examples,
    "objectives": lambda config: list(config.objectives),
    "samplers": lambda config: config.search.sampler,
    "seeds of the search": lambda config: config.search.seed,
    "early stoppers": lambda config: config.scheduler.model_dump(mode="json"),
}


def budget_notes(results: WorkloadResults) -> list[str]:
    """A sentence for each thing that methods were not given alike; empty where budgets were equal."""
    return [*_allotted(results), *_limit(results), *_overrun(results), *_seeds(results)]


def _allotted(results: WorkloadResults) -> list[str]:
    notes = []
    for name, value_of in _ALLOTTED.items():
        values = {method: value_of(each.config) for method, each in results.methods.items()}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            notes.append(f"{name} differ: " + ", ".join(f"{method} {value}" for method, value in values.items()))
    return notes


def _limit(results: WorkloadResults) -> list[str]:
    limits = {each.config.seconds for each in results.methods.values()}
    if len(limits) != 1 or limits == {results.seconds}:
        return []  # where they differ, `_allotted` says so
    found = next(iter(limits))
    return [f"each training was given {'no limit' if found is None else f'{found:g} s'}, not {results.seconds:g} s"]


def _overrun(results: WorkloadResults) -> list[str]:
    notes = []
    for method, each in results.methods.items():
        longest = max((record.training_seconds for record in each.trials), default=0.0)
        if longest > _TOLERANCE * results.seconds:
            notes.append(f"a training of {method} took {longest:.4g} s of the {results.seconds:g} s it was given")
    return notes


def _seeds(results: WorkloadResults) -> list[str]:
    seeds = {
        method: {record.seed for record in confirmations(each, "best")} for method, each in results.methods.items()
    }
    known = {method: found for method, found in seeds.items() if found}
    if len({frozenset(found) for found in known.values()}) <= 1:
        return []
    counts = ", ".join(f"{method} {len(found)}" for method, found in known.items())
    return [f"seeds of the re-trainings differ ({counts}); only those that both methods of a pair have are compared"]
