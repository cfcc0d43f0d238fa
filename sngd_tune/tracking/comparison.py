"""The manifest of a comparison, ``DIR/comparison.json``, and the folders of its cells.

::

    DIR/comparison.json            configuration, targets, and the study of each cell
    DIR/<workload>/<method>/       an ordinary run directory: the search of one method, and its winner on fresh seeds
"""

import dataclasses
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sngd_tune.records.comparison import Cell, ComparisonConfig
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.tracking.group_manifest import GroupManifest, with_data
from sngd_tune.tracking.provenance import code_version

__all__ = ["ComparisonManifest"]


@dataclass(frozen=True, kw_only=True)
class ComparisonManifest(GroupManifest):
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
    KIND: ClassVar[str] = "comparison"
    ID: ClassVar[str] = "comparison_id"
    KEY: ClassVar[str] = "comparison_version"

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

    def folders(self, directory: Path) -> list[Path]:
        return [cell.directory(directory) for cell in self.cells]

    def with_data(self, data_dir: Path | None) -> "ComparisonManifest":
        cells = tuple(dataclasses.replace(cell, study=with_data(cell.study, data_dir)) for cell in self.cells)
        return dataclasses.replace(self, cells=cells)

    @classmethod
    def _from(cls, values: dict[str, Any]) -> "ComparisonManifest":
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

    def _values(self) -> dict[str, Any]:
        cells = [{**vars(cell), "study": cell.study.model_dump(mode="json", by_alias=True)} for cell in self.cells]
        return {
            "comparison_id": self.comparison_id,
            "created": self.created,
            "code_version": self.code_version,
            "config": self.config.model_dump(mode="json", by_alias=True),
            "targets": {label: dataclasses.asdict(target) for label, target in self.targets.items()},
            "cells": cells,
        }


def _grouped(study: StudyConfig, group: dict[str, str]) -> StudyConfig:
    values = study.model_dump(mode="json", by_alias=True)
    return StudyConfig.model_validate({**values, "mlflow": {**values["mlflow"], "group": group}})
