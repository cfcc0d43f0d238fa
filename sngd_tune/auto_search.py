"""A search around a selection, and what earlier runs give to it: their best trials, or the selection itself."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sngd_tune.auto import NAME
from sngd_tune.errors import ConfigurationError, ReconstructionError
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.auto import auto_study, explain
from sngd_tune.search.warm_start import warm_start
from sngd_tune.search.writing import write_study
from sngd_tune.selection.file import load
from sngd_tune.selection.transfer import transfer
from sngd_tune.tracking.client import default_tracking_uri
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.workloads.registry import find_workload, load_data

__all__ = ["Plan", "Sources", "search_around", "transferred"]

#: Of a training whose length is given in steps: as many looks at it.
_LOOKS = 10
_FILE, _STUDY = "study.yaml", "study"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training, as a study has it.

    Attributes:
        workload: registered name or ``module:attribute``.
        data_dir: the user's data directory.
        batch_size: examples of a batch.
        epochs: passes over the training set; None: `steps` says how long it is.
        steps: the same in steps.
        seed: of the study.
        mlflow: whether trials are shown in MLflow.
        tracking_uri: of it; None: the store beside the directory of the selection.
    """

    workload: str
    data_dir: Path | None
    batch_size: int
    epochs: int | None
    steps: int | None
    seed: int
    mlflow: bool
    tracking_uri: str | None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ConfigurationError(f"epochs={self.epochs!r}: cannot go with steps={self.steps!r}; give one of them")

    def check(self) -> None:
        """Raise ConfigurationError where the length is not said, which a study has to know."""
        if self.epochs is None and self.steps is None:
            raise ConfigurationError("--search: needs the length of each training; add --epochs or --steps")

    def study(self, directory: Path) -> StudyConfig:
        """What a study has beside its space; its runs are in MLflow where the selection in `directory` is."""
        self.check()
        length: dict[str, Any] = {"epochs": self.epochs}
        if self.epochs is None:
            assert self.steps is not None  # checked
            length = {"epochs": _LOOKS, "epoch_examples": -(-self.steps * self.batch_size // _LOOKS)}
        uri = self.tracking_uri or default_tracking_uri(directory)
        return StudyConfig.model_validate(
            {
                "schema": 1,
                "name": re.sub(r"[^A-Za-z0-9_.-]", "_", f"auto-{self.workload}")[:100],
                "workload": self.workload,
                "data_dir": str(self.data_dir) if self.data_dir else None,
                **length,
                "fixed": {"batch_size": self.batch_size},
                "space": {},
                "search": {"seed": self.seed},
                "confirm": {"baseline": False},  # its default would be the selection, too, at another learning rate
                "mlflow": {"enabled": self.mlflow, "tracking_uri": uri, "experiment": self.workload},
            }
        )


@dataclass(frozen=True)
class Sources:
    """Earlier runs to start from.

    Attributes:
        selection: directory of a selection that is carried over; None: there is none.
        studies: run directories whose best trials become starting points.
    """

    selection: Path | None
    studies: tuple[Path, ...]

    @classmethod
    def of(cls, directories: Sequence[Path]) -> "Sources":
        """Told apart by what is in them.

        Raises:
            ConfigurationError: one has neither a study nor a selection, or there are several selections.
        """
        studies = tuple(each for each in directories if Manifest.present(each))
        selections = [each for each in directories if each not in studies]
        for each in selections:
            if not (each / NAME).is_file():
                raise ConfigurationError(
                    f"{each}: neither a study nor a selection is there (no {Manifest.NAME}, no {NAME}); check the path"
                )
        if len(selections) > 1:
            raise ConfigurationError(
                f"{', '.join(map(str, selections))}: are {len(selections)} selections, and one can be carried over;"
                " name one of them"
            )
        return cls(selections[0] if selections else None, studies)


def transferred(source: Path, plan: Plan) -> SelectionRecord:
    """The selection in a directory, carried over to a workload (`selection.transfer`).

    Raises:
        ConfigurationError: it cannot be read, or the workload, its data or its model is not as it must be.
    """
    record = load(source / NAME)
    workload, splits = find_workload(plan.workload), load_data(plan.workload, plan.data_dir)
    batches = -(-len(splits.train) // plan.batch_size)  # of a pass, the last one smaller
    steps = plan.steps if plan.epochs is None else plan.epochs * batches
    with torch.random.fork_rng([]):
        model = workload.model()
    try:
        found = transfer(record, model, batch_size=len(splits.train) / batches, steps=steps).record
    except ReconstructionError as error:
        raise ConfigurationError(f"workload={plan.workload!r}: {error}") from error
    return dataclasses.replace(found, subject=plan.workload)


def search_around(
    record: SelectionRecord, plan: Plan, trials: int, earlier: Sequence[Path], directory: Path
) -> tuple[StudyConfig, Path, tuple[str, ...]]:
    """The study around a selection, written into the directory of the selection as ``study.yaml``.

    Args:
        record: of the selection.
        plan: of the trainings.
        trials: of the search.
        earlier: run directories of studies to start from.
        directory: of the selection.

    Returns:
        the study, the run directory that is meant for it, and what is to be said about its starting points.

    Raises:
        ConfigurationError: the study cannot be made, an earlier one has no completed trial, or the file cannot be
            written.
        LedgerError: an earlier study cannot be read.
    """
    around = auto_study(record, plan.study(directory.absolute()), trials)
    started = warm_start(around, [Ledger.open(each).trials() for each in earlier])
    comments = [*explain(record), *started.notes, "", f"sngd-tune run {_FILE}"]
    # Where the runs go is said where a study is run, and may hold a password.
    mlflow = started.study.mlflow.model_copy(update={"tracking_uri": None})
    write_study(started.study.model_copy(update={"mlflow": mlflow}), directory / _FILE, comments)
    return started.study, directory / _STUDY, started.notes
