"""Decisions on the comparisons of `tests.report.comparison.cells`, with or without energy."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sngd_tune.energy.cost import Prices
from sngd_tune.records.machine import Machine
from sngd_tune.report.comparison.summary import MethodResults, WorkloadResults, summarize_comparison
from sngd_tune.report.decision.decide import decide
from sngd_tune.report.decision.document import Document, document
from sngd_tune.report.decision.language import Language
from sngd_tune.report.decision.values import Basis, Decision, Terms
from tests.report.comparison.cells import FAST, MISSING, SLOW, method, workload

BASIS = Basis(
    machine=Machine(cpu="a processor", cores=2, memory_bytes=16 * 10**9, gpus=(), system="Linux"),
    hosts=("here",),
    versions={"sngd_tune": "0.1.0"},
    created=1.79e9,
    trials=12,
    trainings=15,
    device_seconds=270.0,
)
TERMS = Terms(prices=Prices(device_hour=3.6, kwh=0.36, currency="EUR"), trainings_per_month=1000.0)
#: Seconds of which some lie below `SLOW` and some above.
MIXED = (1.0, 1.2, 2.5, 2.6, 1.2)


def powered(results: MethodResults, watts: float, source: str = "nvml") -> MethodResults:
    """The same trainings at so many watts."""

    def energy(seconds: float) -> dict[str, Any]:
        return {"energy_joules": watts * seconds, "energy_source": source}

    epochs = {
        trial: [dataclasses.replace(each, **energy(each.training_seconds)) for each in curve]
        for trial, curve in results.epochs.items()
    }
    trials = [dataclasses.replace(each, **energy(each.training_seconds)) for each in results.trials]
    return dataclasses.replace(results, trials=trials, epochs=epochs)


def decision(*results: WorkloadResults, terms: Terms = TERMS, basis: Basis = BASIS) -> Decision:
    return decide(summarize_comparison("trial", "sngd", results), results, basis, terms)


def told(found: Decision, language: str = "en") -> Document:
    return document(found, Language(language))


def won() -> Sequence[WorkloadResults]:
    return [workload(name, sngd=method(FAST), adamw=method(SLOW), sgd=method(MISSING)) for name in ("a", "b")]


def lost() -> Sequence[WorkloadResults]:
    lead = workload("c", sngd=method(FAST), adamw=method(SLOW))
    return [*(workload(name, sngd=method(SLOW), adamw=method(FAST)) for name in ("a", "b")), lead]


def undecided() -> Sequence[WorkloadResults]:
    return [workload(name, sngd=method(MIXED), adamw=method(SLOW)) for name in ("a", "b")]
