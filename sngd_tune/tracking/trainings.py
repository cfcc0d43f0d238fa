"""The trainings of a scaling study, as the ledgers of its variants have them."""

from collections.abc import Iterator
from pathlib import Path

from sngd_tune.records.scaling import Variant
from sngd_tune.scaling.measures import Training
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.scaling import ScalingManifest

__all__ = ["trainings", "trainings_of", "variant_ledger"]


def trainings(directory: Path, manifest: ScalingManifest) -> Iterator[Training]:
    """All trainings that have begun.

    Raises:
        LedgerError: a file is damaged.
    """
    for variant in manifest.variants:
        yield from trainings_of(directory, manifest, variant)


def trainings_of(directory: Path, manifest: ScalingManifest, variant: Variant) -> Iterator[Training]:
    """Those of a variant. Raises as `trainings`."""
    ledger = variant_ledger(directory, variant)
    if ledger is not None:
        points = {point.name: point for point in manifest.points}
        epochs = ledger.epochs_by_trial()
        for record in ledger.trials():
            yield Training(points[record.candidate], record, epochs.get(record.trial, []))


def variant_ledger(directory: Path, variant: Variant) -> Ledger | None:
    """The ledger of a variant; None where it has not begun."""
    home = directory / variant.name
    return Ledger.open(home) if Manifest.present(home) else None
