"""`Target`: the validation metric that a training has to reach, and where the value comes from."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sngd_tune.records.metrics import EpochMetrics, direction

__all__ = ["Target"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A value to reach, fixed before anything is compared.

    Attributes:
        metric: ``"validation_loss"`` or ``"validation_accuracy"``; its direction is that of `OBJECTIVES`.
        value: in the metric's unit.
        provenance: how the value was found, with the command.
    """

    metric: str
    value: float
    provenance: str

    def __post_init__(self) -> None:
        if self.metric not in ("validation_loss", "validation_accuracy"):
            raise ValueError(f"metric={self.metric!r}: must be 'validation_loss' or 'validation_accuracy'")
        if not math.isfinite(self.value):
            raise ValueError(f"value={self.value!r}: must be finite")

    def reached(self, metrics: EpochMetrics) -> bool:
        """Whether an evaluation is at the target or beyond it."""
        value = getattr(metrics, self.metric)
        if value is None or not math.isfinite(value):
            return False
        return bool(value <= self.value if direction(self.metric) == "minimize" else value >= self.value)

    def first_reached(self, epochs: Iterable[EpochMetrics]) -> EpochMetrics | None:
        """The first of a training's evaluations that is at the target; None where it misses."""
        return next((metrics for metrics in epochs if self.reached(metrics)), None)
