"""Comparison files: YAML to the checked studies of all cells, each a method on a workload."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sngd_tune.records.comparison import Cell, ComparisonConfig, MethodSpace, WorkloadBudget
from sngd_tune.records.study import SCHEMA_VERSION, SchedulerConfig
from sngd_tune.search.document import Document, read_document
from sngd_tune.search.load import check_study
from sngd_tune.search.schema import check_version, read_text, refuse, validated

__all__ = ["is_comparison", "load_comparison"]


def is_comparison(path: str | Path) -> bool:
    """Whether a file has a comparison's key `methods` without a scaling study's `axes`.

    Raises:
        ConfigurationError: it cannot be read.
    """
    data = read_document(read_text(path), str(path)).data
    return isinstance(data, dict) and "methods" in data and "axes" not in data


def load_comparison(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ComparisonConfig, list[Cell]]:
    """A comparison file with overrides such as ``search.trials=8``, and its cells: workload by workload.

    Raises:
        ConfigurationError: the file or one of its methods' cannot be read, or breaks a rule; as `load_study` has it.
    """
    document = _document(Path(path), "a comparison", overrides)
    config = validated(document, ComparisonConfig)
    if isinstance(config, list):
        refuse(document, config)
    spaces = {method: _method(Path(path).parent / file) for method, file in config.methods.items()}
    return config, list(_cells(config, spaces))


def _document(path: Path, kind: str, overrides: Sequence[str] = ()) -> Document:
    document = read_document(read_text(path), str(path), overrides)
    check_version(document, kind)
    return document


def _method(path: Path) -> Document:
    """The document of a method's space; values of the space are checked with each workload's."""
    document = _document(path, "a method's space")
    space = validated(document, MethodSpace)
    if isinstance(space, list):
        refuse(document, space)
    return document


def _cells(config: ComparisonConfig, spaces: Mapping[str, Document]) -> Iterator[Cell]:
    for budget in config.workloads:
        for method in config.methods_of(budget):
            document = spaces[method]
            data = _study(config, budget, method, document.data)
            study = check_study(Document(document.source, data, document.lines, {}))
            yield Cell(workload=budget.label, method=method, study=study)


def _study(config: ComparisonConfig, budget: WorkloadBudget, method: str, space: Mapping[str, Any]) -> dict[str, Any]:
    """The study of a cell as a study file would have it."""
    mlflow = config.mlflow.model_dump() | {"experiment": config.mlflow.experiment or config.name}
    search = config.search.model_dump(exclude={"scheduler"}) | {"scheduler": _scheduler(config, budget)}
    return {
        "schema": SCHEMA_VERSION,
        "name": f"{budget.label}.{method}",
        "workload": budget.workload,
        "data_dir": config.data_dir,
        "epochs": budget.epochs,
        "seconds": budget.seconds,
        "epoch_examples": budget.epoch_examples,
        "validation_examples": budget.validation_examples,
        "objectives": budget.objective,
        "fixed": {**budget.fixed, **space.get("fixed", {})},
        "space": space["space"],
        "start": space.get("start", []),
        "search": search,
        "confirm": {"seeds": 0, "baseline": False},
        "mlflow": mlflow,
    }


def _scheduler(config: ComparisonConfig, budget: WorkloadBudget) -> dict[str, Any]:
    """The early stopper, by seconds of training: at each rung a slow method has had as long as a fast one."""
    scheduler = config.search.scheduler or SchedulerConfig()
    if scheduler.name == "none" or scheduler.grace_seconds is not None:
        return scheduler.model_dump()
    return {**scheduler.model_dump(), "grace_seconds": budget.seconds / scheduler.reduction_factor**2}
