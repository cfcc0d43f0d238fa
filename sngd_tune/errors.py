"""The exception tree of sngd_tune.

::

    SngdTuneError
    ├── ConfigurationError        bad input, found before anything starts (exit code 2)
    │   └── SettingsError         a FisherSettings value out of range (also a ValueError)
    ├── FisherError               numerics of the local Fisher layers
    │   ├── RootError             G + λI has no usable root
    │   └── NonFiniteError        NaN or infinity reached the statistics or the gradient
    ├── ReconstructionError       a model or an optimizer that cannot be rebuilt, and why
    ├── LedgerError               the ledger cannot be read or written
    │   └── SchemaVersionError    written by another schema version
    ├── StudyStorageError         Optuna's store went away in the middle of a search; the ledger has every trial
    ├── StudyHeldError            another live process holds the run directory (exit code 2)
    ├── PreemptedError            a trial's node will be taken away; it runs again elsewhere
    ├── GpuMemoryError            a GPU's memory is held by others than the trial that has it
    └── MissingDependencyError    an optional extra is not installed; names the pip line
"""

__all__ = [
    "ConfigurationError",
    "FisherError",
    "GpuMemoryError",
    "LedgerError",
    "MissingDependencyError",
    "NonFiniteError",
    "PreemptedError",
    "ReconstructionError",
    "RootError",
    "SchemaVersionError",
    "SettingsError",
    "SngdTuneError",
    "StudyHeldError",
    "StudyStorageError",
]


class SngdTuneError(Exception):
    """Base of every error that sngd_tune raises on purpose."""


class ConfigurationError(SngdTuneError):
    """Bad input, found before anything was started."""


class SettingsError(ConfigurationError, ValueError):
    """A setting out of its range; the message names the value, the rule and the remedy."""


class FisherError(SngdTuneError):
    """The numerics of a local Fisher layer failed."""


class RootError(FisherError):
    """No usable root of (G + λI)⁻¹ could be computed."""


class NonFiniteError(FisherError):
    """NaN or infinity reached the Fisher statistics or the gradient of a layer."""


class ReconstructionError(SngdTuneError):
    """A model or an optimizer state cannot be reconstructed."""


class LedgerError(SngdTuneError):
    """The ledger cannot be read or written."""


class SchemaVersionError(LedgerError):
    """A run directory was written by another schema version."""


class StudyStorageError(SngdTuneError):
    """Optuna's store went away in the middle of a search; every trial is in the ledger, and the study can go on."""


class StudyHeldError(SngdTuneError):
    """Another live process holds the run directory."""


class PreemptedError(SngdTuneError):
    """A trial leaves a node that will be taken away; another node goes on from its checkpoint."""


class GpuMemoryError(SngdTuneError):
    """What a trial may take of its GPU is held by other processes, which the message names; it is not to blame."""


class MissingDependencyError(SngdTuneError, ImportError):
    """An optional dependency is missing; the message holds the pip line that adds it."""
