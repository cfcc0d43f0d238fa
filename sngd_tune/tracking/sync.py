"""Replaying what MLflow has missed."""

from pathlib import Path

from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.mirror import Mirror, SyncResult

__all__ = ["sync_study"]


def sync_study(directory: Path | str, tracking_uri: str | None = None) -> SyncResult:
    """Bring MLflow up to the ledger of a study; each record arrives once, however often this is called.

    Args:
        directory: the run directory.
        tracking_uri: MLflow store or server; default: what the study says, else SQLite beside the run directory.

    Raises:
        ConfigurationError: no study is there, or the experiment was deleted in MLflow.
        LedgerError: the ledger is damaged.
        MirrorError: MLflow cannot be reached, or refuses a record.
        MissingDependencyError: MLflow is not installed.
    """
    ledger = Ledger.open(directory)
    return Mirror(ledger.directory, ledger.manifest, tracking_uri).reconcile(ledger)
