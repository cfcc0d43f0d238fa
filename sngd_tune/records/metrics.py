"""What a trial measures each epoch: names, units and directions, each in this one place."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sngd_tune.records.energy import Energy

__all__ = ["OBJECTIVES", "EpochMetrics", "LayerDiagnostics", "direction"]

Direction = Literal["minimize", "maximize"]

#: Metrics a study may optimize, with the direction that is better. Nothing else decides a direction.
OBJECTIVES: dict[str, Direction] = {
    "validation_loss": "minimize",
    "validation_accuracy": "maximize",
    "training_seconds": "minimize",
}


def direction(metric: str) -> Direction:
    """The better direction of an objective metric (KeyError for one that is none)."""
    return OBJECTIVES[metric]


def _measured(unit: str, doc: str, **kwargs: Any) -> Any:
    return dataclasses.field(metadata={"unit": unit, "doc": doc}, **kwargs)


@dataclass(frozen=True, kw_only=True)
class LayerDiagnostics:
    """State of one local Fisher layer at the end of an epoch."""

    layer: str = _measured("name", "module name inside the model")
    damping: float = _measured("activation²", "λ of the last refresh")
    condition_number: float = _measured("1", "largest over smallest eigenvalue of G + λI")
    effective_rank: float = _measured("1", "tr(G)² / tr(G²), between 1 and d_in")
    drift: float | None = _measured("1", "‖G − G_before‖ / ‖G_before‖ over the epoch (Frobenius)", default=None)
    refreshes: int = _measured("count", "root refreshes so far")
    root_failures: int = _measured("count", "refreshes that failed and kept the root before", default=0)


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Everything measured in one epoch. Seconds and joules are training only: evaluation is not counted.

    Where time ends an epoch early, the norms are those of its first step.
    """

    epoch: int = _measured("count", "1 is the first")
    steps: int = _measured("count", "optimizer steps since the start")
    training_loss: float = _measured("loss", "mean over the epoch's batches, before each step")
    validation_loss: float = _measured("loss", "at the end of the epoch")
    validation_accuracy: float | None = _measured("share", "where the task has one", default=None)
    test_loss: float | None = _measured("loss", "only in a confirmation, only after its last epoch", default=None)
    test_accuracy: float | None = _measured("share", "as test_loss", default=None)
    training_seconds: float = _measured("s", "training since the start of the trial")
    epoch_seconds: float = _measured("s", "training in this epoch: the sum of the five parts below")
    forward_backward_seconds: float = _measured("s", "batches, forward and backward passes")
    statistics_seconds: float = _measured("s", "running averages of G")
    refresh_seconds: float = _measured("s", "new roots")
    update_seconds: float = _measured("s", "preconditioning and parameter update")
    communication_seconds: float = _measured(
        "s", "rank 0's waits for gradients, statistics and roots of other ranks that no computing hides", default=0.0
    )
    refreshes: int = _measured("count", "root refreshes in this epoch, over all layers")
    gradient_norm: float = _measured("gradient", "Euclidean norm of the last step's gradient")
    update_norm: float = _measured("parameter", "Euclidean norm of the last step's parameter change")
    peak_memory_bytes: int = _measured("B", "device peak on a GPU, peak resident set size on a CPU")
    examples_per_second: float = _measured("1/s", "training examples over epoch_seconds")
    energy_joules: float | None = _measured("J", "training since the start of the trial, all ranks", default=None)
    energy_source: str | None = _measured("name", "where the joules come from: records.energy.SOURCES", default=None)
    noise_scale: float | None = _measured(
        "examples",
        "gradient noise scale in the method's own coordinates (scaling.noise); infinite: it drowns the gradient",
        default=None,
    )
    noise_scale_low: float | None = _measured("examples", "lower end of its 95 % interval", default=None)
    noise_scale_high: float | None = _measured("examples", "upper end; infinite where it is open", default=None)
    plain_noise_scale: float | None = _measured("examples", "the same of the gradient as it is", default=None)
    plain_noise_scale_low: float | None = _measured("examples", "as noise_scale_low", default=None)
    plain_noise_scale_high: float | None = _measured("examples", "as noise_scale_high", default=None)
    layers: tuple[LayerDiagnostics, ...] = _measured("-", "one entry per local Fisher layer", default=())
    system: Mapping[str, float] = _measured(
        "-", "what the node did meanwhile, by names of MLflow's system metrics", default_factory=dict, hash=False
    )

    @property
    def finite(self) -> bool:
        """False once training has diverged."""
        return math.isfinite(self.training_loss) and math.isfinite(self.validation_loss)

    @property
    def energy(self) -> Energy | None:
        """What training has used since the start of the trial; None where it is not known."""
        if self.energy_joules is None or self.energy_source is None:
            return None
        return Energy(self.energy_joules, self.energy_source)

    def scalars(self) -> dict[str, float | int]:
        """The numbers that are present, by name; layers as ``layer/<name>/<quantity>``."""
        flat: dict[str, float | int] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float):
                flat[field.name] = value
        for layer in self.layers:
            for field in dataclasses.fields(layer):
                value = getattr(layer, field.name)
                if field.name != "layer" and value is not None:
                    flat[f"layer/{layer.layer}/{field.name}"] = value
        return flat

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as a process boundary or a Parquet row wants them; `from_dict` takes them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EpochMetrics":
        """Inverse of `to_dict`."""
        layers = tuple(LayerDiagnostics(**layer) for layer in values.get("layers") or ())
        return cls(**{**values, "layers": layers, "system": dict(values.get("system") or ())})
