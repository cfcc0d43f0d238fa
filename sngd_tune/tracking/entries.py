"""What records look like in MLflow: names, values, tags, statuses. Pure; the writing is `mirror`'s."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.metrics import EpochMetrics, direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord

__all__ = [
    "MARK",
    "SYSTEM",
    "epoch_metrics",
    "milliseconds",
    "parameters",
    "run_name",
    "run_status",
    "study_metrics",
    "study_note",
    "study_status",
    "trial_tags",
]

#: The metric that is sent last and marks an epoch as complete. It is always finite.
MARK = "epoch"

#: How names of metrics begin that MLflow shows under *System metrics*.
SYSTEM = "system/"

#: Sections of MLflow's charts, which it sorts by name, with what has no section last: so the learning curves come
#: first, then ``layer/…``, and not below all layers. What is named nowhere here has its own name.
_SECTIONS = {
    "curves": ("training_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy"),
    "norms": ("gradient_norm", "update_norm"),
    "speed": (
        "training_seconds",
        "epoch_seconds",
        "forward_backward_seconds",
        "statistics_seconds",
        "refresh_seconds",
        "update_seconds",
        "communication_seconds",
        "examples_per_second",
        "peak_memory_bytes",
        "refreshes",
        "steps",
    ),
}
_SECTION_OF = {
    **{name: f"{section}/{name}" for section, names in _SECTIONS.items() for name in names},
    "energy_joules": "energy/joules",  # the trial's tag ``energy_source`` says where from
}

_FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-. :/]")

#: What stands in MLflow for the signs in a parameter of single layers: ``rank at encoder.:any``. No two names become
#: one, as neither blanks nor colons are in them, and none of the words begins another.
_SIGNS = str.maketrans({"@": " at ", "*": ":any", "?": ":one", "[": ":of", "]": ":end", "!": ":not"})
_MAX_TAG = 5000


def epoch_metrics(metrics: EpochMetrics) -> dict[str, float]:
    """The numbers of an epoch by MLflow name, `MARK` last.

    NaN and infinity stay out: MLflow's store turns infinity into 1.8e308, which flattens every chart. The trial's
    outcome tag says ``diverged`` instead, and the ledger keeps the values.
    """
    scalars = metrics.scalars().items()
    values = {_name(_SECTION_OF.get(key, key)): float(value) for key, value in scalars if math.isfinite(value)}
    system = {f"{SYSTEM}{name}": value for name, value in metrics.system.items()}
    return {**{key: value for key, value in values.items() if key != MARK}, **system, MARK: float(metrics.epoch)}


def study_metrics(objective: str, records: Sequence[TrialRecord]) -> dict[str, float]:
    """What the parent run shows: the best trial's objective, and the mean test metrics of each confirmed candidate."""
    best = next(iter(rank(records, objective)), None)
    values = {f"study/best_{objective}": best.objectives[objective]} if best is not None else {}
    confirmed = [record for record in records if record.phase == "confirm" and record.outcome is Outcome.COMPLETED]
    for candidate in dict.fromkeys(record.candidate for record in confirmed):
        for metric in ("test_loss", "test_accuracy"):
            found = [getattr(record, metric) for record in confirmed if record.candidate == candidate]
            if None not in found:
                values[f"study/{candidate}_{metric}"] = statistics.fmean(found)
    return {key: value for key, value in values.items() if value is not None and math.isfinite(value)}


def study_note(config: StudyConfig) -> str:
    """The parent run's description (Markdown)."""
    objectives = " and ".join(f"`{name}` ({direction(name)})" for name in config.objectives)
    each = f", each on {config.search.seeds} seeds," if config.search.seeds > 1 else ""
    return (
        f"Search of {config.search.trials} trials{each} on `{config.workload}` by {objectives}.\n\n"
        "Child runs: those that begin with a number are the search; `confirm-best-…` and `confirm-default-…` train its "
        "winner and the untuned default again on fresh seeds. Figures and `best.yaml` are under *Artifacts*."
    )


def run_name(record: TrialRecord) -> str:
    """``0007 block32+adamw``: short, for legends and a narrow column; confirmations say enough with their names."""
    values = record.parameters
    if record.phase != "search":
        return record.trial
    optimizer = values.get("optimizer", "sngd")
    if optimizer != "sngd":
        return f"{record.trial} {optimizer}"
    kept = f"rank{values['rank']}" if "rank" in values else f"{_granularity(values)}{values.get('block', '')}"
    return f"{record.trial} {kept}+{values.get('base', 'sgd')}"


def trial_tags(record: TrialRecord) -> dict[str, str]:
    """The tags by which trials are filtered in MLflow's table."""
    parameters = record.parameters
    tags = {
        "role": "trial",
        "study": record.study,
        "workload": record.workload,
        "phase": record.phase,
        "candidate": record.candidate,
        "outcome": str(record.outcome),
        "attempt": str(record.attempt),
        "seed": str(record.seed),
        "optimizer": str(parameters.get("optimizer", "sngd")),
        "granularity": _granularity(parameters),
        "code_version": record.code_version,
        "host": record.host,
        "energy_source": record.energy_source or "",
        "error": (record.error or "")[-_MAX_TAG:],
    }
    return {key: value for key, value in tags.items() if value}


def parameters(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    return {_name(key.translate(_SIGNS)): str(value) for key, value in values.items()}


def run_status(outcome: Outcome) -> str:
    """MLflow's status of a run with this outcome."""
    if outcome is Outcome.RUNNING:
        return "RUNNING"
    if outcome is Outcome.INTERRUPTED:
        return "KILLED"
    return "FAILED" if outcome.failed else "FINISHED"


def study_status(outcomes: set[Outcome]) -> str:
    """MLflow's status of the parent run, given the outcomes that its trials have."""
    if Outcome.RUNNING in outcomes:
        return "RUNNING"
    return "KILLED" if Outcome.INTERRUPTED in outcomes else "FINISHED"


def milliseconds(seconds: float) -> int:
    """A time as MLflow stores it."""
    return round(seconds * 1000)


def _granularity(parameters: Mapping[str, Any]) -> str:
    if parameters.get("optimizer", "sngd") != "sngd":
        return "none"
    return str(parameters.get("granularity", "input"))


def _name(key: str) -> str:
    """A name that MLflow accepts; it reads names as paths, in which a root module's empty name leaves a hole."""
    return "/".join(_FORBIDDEN.sub("_", part) or "model" for part in key.split("/"))
