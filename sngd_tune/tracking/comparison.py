"""The manifest of a comparison, ``DIR/comparison.json``, and the folders of its cells.

::

    DIR/comparison.json            configuration, targets, and the study of each cell
    DIR/<workload>/<method>/       an ordinary run directory: the search of one method, and its winner on fresh seeds
"""

import dataclasses
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sngd_tune.errors import ConfigurationError, LedgerError
from sngd_tune.records.comparison import Cell, ComparisonConfig
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.tracking.files import make_directory, read_versioned, replace_file
from sngd_tune.tracking.provenance import code_version

__all__ = ["COMPARISON_VERSION", "ComparisonManifest"]

#: Version of ``comparison.json``. One of another version is refused, never guessed at.
COMPARISON_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ComparisonManifest:
    """What is known of a comparison from its first moment on.

    Attributes:
        comparison_id: unique for ever; its run in MLflow is found by it.
        created: UTC, Unix seconds.
        config: as the file described it.
        targets: by label of the workload.
        cells: in the order in which they run.
        code_version: version of sngd_tune that began it.
    """

    NAME: ClassVar[str] = "comparison.json"

    comparison_id: str
    created: float
    config: ComparisonConfig
    targets: dict[str, Target]
    cells: tuple[Cell, ...]
    code_version: str

    @classmethod
    def new(cls, config: ComparisonConfig, targets: dict[str, Target], cells: Sequence[Cell]) -> "ComparisonManifest":
        """The manifest of a comparison that begins now; its cells are told whose part they are."""
        comparison_id = uuid.uuid4().hex
        group = {"id": comparison_id, "name": config.name}
        grouped = tuple(dataclasses.replace(cell, study=_grouped(cell.study, group)) for cell in cells)
        return cls(
            comparison_id=comparison_id,
            created=time.time(),
            config=config,
            targets=targets,
            cells=grouped,
            code_version=code_version(),
        )

    @classmethod
    def present(cls, directory: Path) -> bool:
        """Whether a comparison lies in `directory`."""
        return (directory / cls.NAME).is_file()

    @classmethod
    def check_absent(cls, directory: Path) -> None:
        """Raise ConfigurationError where a comparison lies in `directory` already."""
        if cls.present(directory):
            raise ConfigurationError(
                f"{directory}: a comparison is there already; continue it with `sngd-tune resume {directory}`, or "
                "choose another directory"
            )

    @classmethod
    def read(cls, directory: Path) -> "ComparisonManifest":
        """The manifest in a directory.

        Raises:
            ConfigurationError: none is there.
            SchemaVersionError: another version of sngd_tune wrote it.
            LedgerError: it is damaged.
        """
        path = directory / cls.NAME
        values = read_versioned(path, "comparison", "comparison_version", COMPARISON_VERSION)
        try:
            return cls._from(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"{path}: not a readable manifest ({error}); restore it from a backup") from error

    @classmethod
    def _from(cls, values: dict[str, Any]) -> "ComparisonManifest":
        del values["comparison_version"]
        cells = (
            Cell(workload=each["workload"], method=each["method"], study=StudyConfig.model_validate(each["study"]))
            for each in values.pop("cells")
        )
        return cls(
            config=ComparisonConfig.model_validate(values.pop("config")),
            targets={label: Target(**target) for label, target in values.pop("targets").items()},
            cells=tuple(cells),
            **values,
        )

    def write(self, directory: Path) -> None:
        """Write it into a directory, which is made where it does not exist. Raises LedgerError."""
        make_directory(directory)
        cells = [{**vars(cell), "study": cell.study.model_dump(mode="json", by_alias=True)} for cell in self.cells]
        values = {
            "comparison_version": COMPARISON_VERSION,
            "comparison_id": self.comparison_id,
            "created": self.created,
            "code_version": self.code_version,
            "config": self.config.model_dump(mode="json", by_alias=True),
            "targets": {label: dataclasses.asdict(target) for label, target in self.targets.items()},
            "cells": cells,
        }
        content = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        replace_file(directory / self.NAME, content.encode(), mode=0o600)  # a tracking URI may hold a password


def _grouped(study: StudyConfig, group: dict[str, str]) -> StudyConfig:
    values = study.model_dump(mode="json", by_alias=True)
    return StudyConfig.model_validate({**values, "mlflow": {**values["mlflow"], "group": group}})
