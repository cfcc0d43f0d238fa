"""How local Fisher layers stand: values for looking at, taken when asked for, off the training path.

All that a step pays for them is a few counters, and two looks at the clock for each refresh.
"""

from dataclasses import dataclass

from torch import nn

from sngd_tune.core.damping import Reduction
from sngd_tune.core.local_fisher import LocalFisher

__all__ = ["Diagnostics", "LayerDiagnosis", "diagnose", "diagnostics"]


@dataclass(frozen=True, kw_only=True)
class LayerDiagnosis:
    """One local Fisher layer at one moment.

    Attributes:
        name: of the layer in the model.
        granularity: of its settings.
        root: of its settings.
        damping: λ of the last refresh; the mean over matrices side by side. None before the first refresh.
        damping_share: ``λ / (λ + mean(diag G))``, in (0, 1]: near 1 the root is close to a multiple of the identity.
        condition_number: largest over smallest eigenvalue of ``G + λI``, ≥ 1. None before the first refresh.
        effective_rank: ``tr(G)² / tr(G²)``, between 1 and d; None before the first batch.
        drift: ``‖G − G_last‖ / ‖G_last‖`` (Frobenius, estimated) since the last refresh.
        refreshes: roots computed so far.
        root_failures: refreshes that failed and kept the root before.
        refresh_seconds: spent on them by this process (on a GPU: on launching them).
        skipped_batches: that did not enter ``G``, as they held NaN or infinity.
    """

    name: str
    granularity: str
    root: str
    damping: float | None
    damping_share: float | None
    condition_number: float | None
    effective_rank: float | None
    drift: float | None
    refreshes: int
    root_failures: int
    refresh_seconds: float
    skipped_batches: int


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """A whole optimizer, or a whole reconstructed model, at one moment.

    Attributes:
        layers: one for each local Fisher layer, in the order of the model.
        skipped_steps: left out so far, as a gradient held NaN or infinity.
        reduction: predicted and actual, of the last step for which a closure gave both; None where there was none.
    """

    layers: tuple[LayerDiagnosis, ...]
    skipped_steps: int
    reduction: Reduction | None = None


def diagnose(fisher: LocalFisher) -> LayerDiagnosis:
    """One layer; costs the eigenvalues of its ``G``."""
    snapshot = fisher.snapshot()
    damping = float(fisher.damping.mean()) if fisher.refreshes else None
    mean = fisher.mean_diagonal()
    return LayerDiagnosis(
        name=fisher.name,
        granularity=fisher.settings.granularity,
        root=str(fisher.settings.root),
        damping=damping,
        damping_share=damping / (damping + mean) if damping is not None and mean is not None else None,
        condition_number=snapshot.condition_number(damping) if snapshot is not None and damping is not None else None,
        effective_rank=snapshot.effective_rank() if snapshot is not None else None,
        drift=fisher.drift(),
        refreshes=fisher.refreshes,
        root_failures=fisher.root_failures,
        refresh_seconds=fisher.refresh_seconds,
        skipped_batches=fisher.skipped_batches,
    )


def diagnostics(model: nn.Module) -> Diagnostics:
    """A reconstructed model (for the fused form: `SNGD.diagnostics`). Without local Fisher layers it is empty."""
    fishers = [module for module in model.modules() if isinstance(module, LocalFisher)]
    skipped = max((fisher.skipped_steps for fisher in fishers), default=0)
    return Diagnostics(layers=tuple(map(diagnose, fishers)), skipped_steps=skipped)
