"""The manifest of a scaling study, ``DIR/scaling-plan.json``, and the folders of its variants.

::

    DIR/scaling-plan.json     configuration, target, all points, and the study of each variant
    DIR/<variant>/            an ordinary run directory: the trainings of the points that share a model and workers
    DIR/scaling.json          what came out; made again from the ledgers at any time
"""

import dataclasses
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sngd_tune.records.scaling import PlannedPoint, ScalingConfig, Variant
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.tracking.group_manifest import GroupManifest, with_data
from sngd_tune.tracking.provenance import code_version

__all__ = ["ScalingManifest"]


@dataclass(frozen=True, kw_only=True)
class ScalingManifest(GroupManifest):
    """What is known of a scaling study from its first moment on.

    Attributes:
        scaling_id: unique for ever; its run in MLflow is found by it.
        created: UTC, Unix seconds.
        config: as the file described it.
        target: what a training has to reach; None where there is none.
        points: in the order in which they are planned.
        variants: in the order in which they run.
        code_version: version of sngd_tune that began it.
    """

    NAME: ClassVar[str] = "scaling-plan.json"
    KIND: ClassVar[str] = "scaling study"
    ID: ClassVar[str] = "scaling_id"
    KEY: ClassVar[str] = "scaling_version"

    scaling_id: str
    created: float
    config: ScalingConfig
    target: Target | None
    points: tuple[PlannedPoint, ...]
    variants: tuple[Variant, ...]
    code_version: str

    @classmethod
    def new(
        cls,
        config: ScalingConfig,
        target: Target | None,
        points: Sequence[PlannedPoint],
        variants: Sequence[Variant],
    ) -> "ScalingManifest":
        """The manifest of a scaling study that begins now."""
        return cls(
            scaling_id=uuid.uuid4().hex,
            created=time.time(),
            config=config,
            target=target,
            points=tuple(points),
            variants=tuple(variants),
            code_version=code_version(),
        )

    def folders(self, directory: Path) -> list[Path]:
        return [directory / variant.name for variant in self.variants]

    def with_data(self, data_dir: Path | None) -> "ScalingManifest":
        variants = tuple(dataclasses.replace(each, study=with_data(each.study, data_dir)) for each in self.variants)
        return dataclasses.replace(self, variants=variants)

    @classmethod
    def _from(cls, values: dict[str, Any]) -> "ScalingManifest":
        target = values.pop("target")
        return cls(
            config=ScalingConfig.model_validate(values.pop("config")),
            target=Target(**target) if target is not None else None,
            points=tuple(PlannedPoint(**{**each, "moved": tuple(each["moved"])}) for each in values.pop("points")),
            variants=tuple(_variant(each) for each in values.pop("variants")),
            **values,
        )

    def _values(self) -> dict[str, Any]:
        variants = [
            {**vars(each), "study": each.study.model_dump(mode="json", by_alias=True)} for each in self.variants
        ]
        return {
            "scaling_id": self.scaling_id,
            "created": self.created,
            "code_version": self.code_version,
            "config": self.config.model_dump(mode="json", by_alias=True),
            "target": dataclasses.asdict(self.target) if self.target is not None else None,
            "points": [dataclasses.asdict(each) for each in self.points],
            "variants": variants,
        }


def _variant(values: dict[str, Any]) -> Variant:
    study = StudyConfig.model_validate(values["study"])
    return Variant(**{**values, "study": study, "points": tuple(values["points"])})
