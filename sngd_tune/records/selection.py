"""What a selection found, as plain values: the probe's figures and the choice, layer by layer.

Written as JSON and YAML, logged to MLflow, read by the report.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sngd_tune.settings import FisherSettings

__all__ = [
    "SELECTION_VERSION",
    "Alternative",
    "LayerChoice",
    "LayerProbe",
    "RatePoint",
    "SelectionRecord",
    "StepTime",
    "pattern_of",
]

#: Version of the JSON and YAML form.
SELECTION_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LayerProbe:
    """What the probe measured of one layer.

    Attributes:
        layer: name of the site.
        module: its class.
        inputs: ``d``, the bias's 1 included.
        outputs: ``d_out``.
        matrices: side by side, each of that shape.
        positions: rows ``a`` per example: 1 where no weight is shared.
        effective_rank: ``tr(G)² / tr(G²)``, in [1, d].
        condition_number: of ``G + 1e-4 · mean(diag G) · I``, ≥ 1.
        retained_trace: share of ``tr G`` by rank, in [0, 1].
        batch_noise: ``E‖G_batch − G‖ / ‖G‖``, ≥ 0.
        least_damping: relative damping below which small eigenvalues of an average over as many batches as training
            uses are mostly sampling error, ≥ 0.
        drift: ``‖G_now − G_then‖ / ‖G_now‖`` beyond sampling noise, by steps in between, ≥ 0.
        retained_gain: share of the gain that a root keeps, by its age in steps, in [0, 1].
        output_effective_rank: that of the gradients' covariance ``B``, in [1, d_out].
        output_gain: expected decrease with the output side whitened, too (``"kron"``), over that with the best of the
            input side alone, ≥ 0; None where inputs are one-hot or nothing is gained.
        progress: expected decrease of the loss in a step at its best length, without a local Fisher layer, ≥ 0.
    """

    layer: str
    module: str
    inputs: int
    outputs: int
    matrices: int
    positions: float
    effective_rank: float
    condition_number: float
    retained_trace: Mapping[int, float]
    batch_noise: float
    least_damping: float
    drift: Mapping[int, float]
    retained_gain: Mapping[int, float]
    output_effective_rank: float
    output_gain: float | None
    progress: float


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What a layer could have had.

    Attributes:
        name: of the granularity with its rank or block, as ``"input rank 16"``.
        relative_damping: the best for it.
        gain: expected decrease over that without a local Fisher layer, at the chosen refresh interval.
        seconds: of a step, amortized over the chosen intervals.
        bytes: kept all the time.
    """

    name: str
    relative_damping: float
    gain: float
    seconds: float
    bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """What a layer got.

    Attributes:
        layer: name of the site.
        settings: of its local Fisher layer; None: it trains without one.
        name: as in `Alternative`; ``"none"`` without one.
        gain: as in `Alternative`.
        seconds: of a step, amortized.
        bytes: kept all the time.
        reason: in words.
        alternatives: that were weighed, the best of each name.
    """

    layer: str
    settings: FisherSettings | None
    name: str
    gain: float
    seconds: float
    bytes: int
    reason: str
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of an optimizer step, forward and backward pass included.

    Attributes:
        sgd: with plain SGD.
        plain: with the plain base optimizer.
        predicted: with the choice, by the cost model.
        measured: with the choice, in the training that found the learning rate (on batches as they came); None where
            it was not.
    """

    sgd: float
    plain: float
    predicted: float
    measured: float | None = None

    @property
    def ratio(self) -> float:
        """Predicted over plain SGD's."""
        return self.predicted / self.sgd


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """A short training with the choice.

    Attributes:
        lr: peak learning rate.
        weight_decay: of it.
        steps: that it had.
        loss: at its end, on batches that it was not trained on; NaN where it diverged.
        step_seconds: of a step in it, on average.
    """

    lr: float
    weight_decay: float
    steps: int
    loss: float
    step_seconds: float


@dataclass(frozen=True, kw_only=True)
class SelectionRecord:
    """A selection, whole.

    Attributes:
        subject: workload, or class of the model.
        batch_size: examples of a batch, on average.
        optimizer: arguments of `SNGD` beside model and settings.
        lr_schedule: under which `optimizer`'s learning rate was found.
        layers: the choice.
        probes: the figures.
        step: times.
        step_budget: largest allowed step over plain SGD's; None: the best decrease per second was sought.
        memory_budget: bytes; None: no limit.
        gain: expected decrease of a step over that of the plain network.
        bound: what no choice within the budget exceeds; equal to `gain` where the choice is exact.
        rates: short trainings that found the learning rate.
        seconds: that the selection took.
        device: in words.
    """

    subject: str
    batch_size: float
    optimizer: Mapping[str, Any]
    lr_schedule: str
    layers: tuple[LayerChoice, ...]
    probes: tuple[LayerProbe, ...]
    step: StepTime
    step_budget: float | None
    memory_budget: int | None
    gain: float
    bound: float
    rates: tuple[RatePoint, ...] = field(default=())
    seconds: float = 0.0
    device: str = ""

    @property
    def settings(self) -> dict[str, FisherSettings]:
        """By pattern of the layer (`pattern_of`), as `SNGD` takes them."""
        return {pattern_of(choice.layer): choice.settings for choice in self.layers if choice.settings is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the version."""
        return {"schema": SELECTION_VERSION, **asdict(self)}


def pattern_of(layer: str) -> str:
    """The pattern that matches the name of this layer alone (`fnmatch`, as `SNGD` reads names).

    >>> pattern_of("blocks.0"), pattern_of("a[0]")
    ('blocks.0', 'a[[]0]')
    """
    return re.sub(r"[*?\[]", r"[\g<0>]", layer)
