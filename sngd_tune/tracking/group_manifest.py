"""`GroupManifest`: the manifest of a directory that holds several studies, such as a comparison."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from sngd_tune.errors import ConfigurationError, LedgerError
from sngd_tune.records.study import StudyConfig
from sngd_tune.tracking.files import make_directory, read_versioned, replace_file

__all__ = ["GroupManifest", "with_data"]


class GroupManifest:
    """A JSON file of one version, which says what the directory is of. Subclasses are frozen dataclasses.

    Attributes:
        NAME: of the file.
        KIND: what the directory is of, such as ``"comparison"``, for messages.
        ID: the attribute by which it is told from others of its kind.
        KEY: of the version in the file.
        VERSION: what it has to be; a file of another one is refused, never guessed at.
    """

    NAME: ClassVar[str]
    KIND: ClassVar[str]
    ID: ClassVar[str]
    KEY: ClassVar[str]
    VERSION: ClassVar[int] = 1

    @classmethod
    def present(cls, directory: Path) -> bool:
        """Whether such a directory is there."""
        return (directory / cls.NAME).is_file()

    @classmethod
    def check_absent(cls, directory: Path) -> None:
        """Raise ConfigurationError where one lies in `directory` already."""
        if cls.present(directory):
            raise ConfigurationError(
                f"{directory}: a {cls.KIND} is there already; continue it with `sngd-tune resume {directory}`, or "
                "choose another directory"
            )

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The manifest in a directory.

        Raises:
            ConfigurationError: none is there.
            SchemaVersionError: another version of sngd_tune wrote it.
            LedgerError: it is damaged.
        """
        path = directory / cls.NAME
        values = read_versioned(path, cls.KIND, cls.KEY, cls.VERSION)
        try:
            return cls._from({key: value for key, value in values.items() if key != cls.KEY})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"{path}: not a readable manifest ({error}); restore it from a backup") from error

    def write(self, directory: Path) -> None:
        """Write it into a directory, which is made where it does not exist. Raises LedgerError."""
        make_directory(directory)
        content = json.dumps({self.KEY: self.VERSION, **self._values()}, indent=2, ensure_ascii=False) + "\n"
        replace_file(directory / self.NAME, content.encode(), mode=0o600)  # a tracking URI may hold a password

    def folders(self, directory: Path) -> list[Path]:
        """The run directories of its studies, inside its own."""
        raise NotImplementedError

    def with_data(self, data_dir: Path | None) -> Self:
        """The same with the data sets in another folder; None: where they were. Nothing is written."""
        raise NotImplementedError

    @classmethod
    def _from(cls, values: dict[str, Any]) -> Self:
        """Inverse of `_values`."""
        raise NotImplementedError

    def _values(self) -> dict[str, Any]:
        """Plain values only."""
        raise NotImplementedError


def with_data(study: StudyConfig, data_dir: Path | None) -> StudyConfig:
    """The study with its data sets in another folder; None: where they were."""
    return study if data_dir is None else study.model_copy(update={"data_dir": str(data_dir)})
