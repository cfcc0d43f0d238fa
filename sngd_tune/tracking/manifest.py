"""The manifest of a study, ``DIR/study.json``: who wrote the ledger, and with which configuration."""

import dataclasses
import json
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sngd_tune.errors import ConfigurationError, LedgerError, SchemaVersionError
from sngd_tune.records.machine import Machine
from sngd_tune.records.study import StudyConfig
from sngd_tune.redaction import redact
from sngd_tune.tracking.files import read_versioned, replace_file
from sngd_tune.tracking.provenance import code_version, git_commit, package_versions, this_machine
from sngd_tune.tracking.schema import LEDGER_VERSION

__all__ = ["Manifest"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is known of a study from its first moment on.

    Attributes:
        ledger_version: version of the ledger's schema.
        study_id: unique for ever; the mirror in MLflow is found by it.
        created: UTC, Unix seconds.
        config: the resolved study configuration as plain values.
        code_version: version of sngd_tune that created the study.
        git_commit: commit of sngd_tune's own repository, where it ran from one.
        versions: of Python and of the packages that decide a result.
        machine: where the study began; None in ledgers of before it was recorded.
    """

    NAME: ClassVar[str] = "study.json"
    KIND: ClassVar[str] = "study"
    ID: ClassVar[str] = "study_id"
    COPY: ClassVar[str] = ".study.json"

    ledger_version: int
    study_id: str
    created: float
    config: dict[str, Any]
    code_version: str
    git_commit: str | None
    versions: dict[str, str]
    machine: Machine | None = None

    @classmethod
    def new(cls, config: StudyConfig) -> "Manifest":
        """The manifest of a study that begins now."""
        return cls(
            ledger_version=LEDGER_VERSION,
            study_id=uuid.uuid4().hex,
            created=time.time(),
            config=config.model_dump(mode="json", by_alias=True),
            code_version=code_version(),
            git_commit=git_commit(),
            versions=package_versions(),
            machine=this_machine(),
        )

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """The manifest in a run directory.

        Raises:
            ConfigurationError: none is there.
            SchemaVersionError: another version of sngd_tune wrote it.
            LedgerError: it is damaged, and so is its copy.
        """
        try:
            return cls._read(directory / cls.NAME)
        except LedgerError as error:
            if isinstance(error, SchemaVersionError) or not (directory / cls.COPY).exists():
                raise
            manifest = cls._read(directory / cls.COPY)
            _log.warning("%s: damaged; taken from its copy, %s", directory / cls.NAME, cls.COPY)
            manifest.write(directory)
            return manifest

    @classmethod
    def _read(cls, path: Path) -> "Manifest":
        values = read_versioned(path, "study", "ledger_version", LEDGER_VERSION)
        try:
            return cls(**{**values, "machine": _machine(values.get("machine"))})
        except (KeyError, TypeError) as error:
            raise LedgerError(f"{path}: not a readable manifest ({error}); restore it from a backup") from error

    def write(self, directory: Path) -> None:
        """Write it, and its copy. Raises LedgerError."""
        for name in (self.COPY, self.NAME):  # a study is there where the second one is
            replace_file(directory / name, self.to_json().encode(), mode=0o600 if self.secret else 0o644)

    @property
    def secret(self) -> bool:
        """Whether the configuration holds a password, which only the owner may read."""
        return self.to_json() != self.public_json()

    @classmethod
    def present(cls, directory: Path) -> bool:
        """Whether a study lies in `directory`."""
        return (directory / cls.NAME).exists()

    @classmethod
    def check_absent(cls, directory: Path) -> None:
        """Raise ConfigurationError where a study lies in `directory` already."""
        if cls.present(directory):
            raise ConfigurationError(
                f"{directory}: a study is there already; continue it with `sngd-tune resume {directory}`, or choose "
                "another directory"
            )

    def public_json(self) -> str:
        """The content of the file with passwords in URLs replaced."""
        return redact(self.to_json())

    def study_config(self) -> StudyConfig:
        """The configuration as the validated value."""
        try:
            return StudyConfig.model_validate(self.config)
        except ValueError as error:
            raise LedgerError(f"{self.NAME}: its configuration is not valid any more: {error}") from error

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def _machine(values: dict[str, Any] | None) -> Machine | None:
    return None if values is None else Machine(**{**values, "gpus": tuple(values["gpus"])})
