"""The manifest of a scaling study, ``DIR/scaling-plan.json``, and the folders of its variants.

::

    DIR/scaling-plan.json     configuration, target, all points, and the study of each variant
    DIR/<variant>/            an ordinary run directory: the trainings of the points that share a model and workers
    DIR/scaling.json          what came out; made again from the ledgers at any time
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
from sngd_tune.records.scaling import PlannedPoint, ScalingConfig, Variant
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.target import Target
from sngd_tune.tracking.files import make_directory, read_versioned, replace_file
from sngd_tune.tracking.provenance import code_version

__all__ = ["SCALING_VERSION", "ScalingManifest"]

#: Version of ``scaling-plan.json``. One of another version is refused, never guessed at.
SCALING_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ScalingManifest:
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

    @classmethod
    def present(cls, directory: Path) -> bool:
        """Whether a scaling study lies in `directory`."""
        return (directory / cls.NAME).is_file()

    @classmethod
    def check_absent(cls, directory: Path) -> None:
        """Raise ConfigurationError where a scaling study lies in `directory` already."""
        if cls.present(directory):
            raise ConfigurationError(
                f"{directory}: a scaling study is there already; continue it with `sngd-tune resume {directory}`, or "
                "choose another directory"
            )

    @classmethod
    def read(cls, directory: Path) -> "ScalingManifest":
        """The manifest in a directory.

        Raises:
            ConfigurationError: none is there.
            SchemaVersionError: another version of sngd_tune wrote it.
            LedgerError: it is damaged.
        """
        path = directory / cls.NAME
        values = read_versioned(path, "scaling study", "scaling_version", SCALING_VERSION)
        try:
            return cls._from(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"{path}: not a readable manifest ({error}); restore it from a backup") from error

    @classmethod
    def _from(cls, values: dict[str, Any]) -> "ScalingManifest":
        del values["scaling_version"]
        target = values.pop("target")
        return cls(
            config=ScalingConfig.model_validate(values.pop("config")),
            target=Target(**target) if target is not None else None,
            points=tuple(PlannedPoint(**{**each, "moved": tuple(each["moved"])}) for each in values.pop("points")),
            variants=tuple(_variant(each) for each in values.pop("variants")),
            **values,
        )

    def write(self, directory: Path) -> None:
        """Write it into a directory, which is made where it does not exist. Raises LedgerError."""
        make_directory(directory)
        variants = [
            {**vars(each), "study": each.study.model_dump(mode="json", by_alias=True)} for each in self.variants
        ]
        values = {
            "scaling_version": SCALING_VERSION,
            "scaling_id": self.scaling_id,
            "created": self.created,
            "code_version": self.code_version,
            "config": self.config.model_dump(mode="json", by_alias=True),
            "target": dataclasses.asdict(self.target) if self.target is not None else None,
            "points": [dataclasses.asdict(each) for each in self.points],
            "variants": variants,
        }
        content = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        replace_file(directory / self.NAME, content.encode(), mode=0o600)  # a tracking URI may hold a password


def _variant(values: dict[str, Any]) -> Variant:
    study = StudyConfig.model_validate(values["study"])
    return Variant(**{**values, "study": study, "points": tuple(values["points"])})
