"""The state of local Fisher layers, epoch by epoch, as the metrics have it."""

from collections.abc import Mapping

from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.records.metrics import LayerDiagnostics

__all__ = ["Diagnosis"]


class Diagnosis:
    """Of the layers of one model; it keeps their last Fisher matrices, from which drift is measured.

    Args:
        fishers: by module name.
    """

    def __init__(self, fishers: Mapping[str, LocalFisher]):
        self._fishers = fishers
        self._snapshots: dict[str, Snapshot] = {}

    @property
    def refreshes(self) -> int:
        """Root refreshes so far, over all layers."""
        return sum(fisher.refreshes for fisher in self._fishers.values())

    def read(self) -> tuple[LayerDiagnostics, ...]:
        """The state of each layer that has been refreshed; drift is that since the last call."""
        return tuple(self._layer(name, fisher) for name, fisher in self._fishers.items() if fisher.refreshes)

    def _layer(self, name: str, fisher: LocalFisher) -> LayerDiagnostics:
        snapshot, before = fisher.snapshot(), self._snapshots.get(name)
        assert snapshot is not None  # it has been refreshed
        self._snapshots[name] = snapshot
        return LayerDiagnostics(
            layer=name,
            damping=float(fisher.damping.mean()),
            condition_number=snapshot.condition_number(float(fisher.damping.mean())),
            effective_rank=snapshot.effective_rank(),
            drift=snapshot.drift(before) if before is not None else None,
            refreshes=fisher.refreshes,
            root_failures=fisher.root_failures,
        )
