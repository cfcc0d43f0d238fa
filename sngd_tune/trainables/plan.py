"""`TrialPlan`: what all trials of a study share."""

from dataclasses import dataclass
from typing import Any

from sngd_tune.records.study import NoiseConfig
from sngd_tune.storage import Place

__all__ = ["TrialPlan"]


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a study share.

    Attributes:
        workload: registered name or ``module:attribute``.
        import_path: folder from which the user's module is imported; None: where Ray has put it on the node.
        epochs: of a training, at most.
        seconds: of a training, at most.
        epoch_examples: training examples of an epoch; None: all of them.
        checkpoints: where trials keep them; `checkpoints.CheckpointStore` says how.
        checkpoint_seconds: least time between two checkpoints of a trial.
        threads: CPU threads of torch per process, ≥ 1.
        gpus: of a process, ≥ 0; below 1 it shares one.
        decisions: epochs, or seconds of training where the early stopper counts those, at which it may stop a trial.
        decided_by: ``"epoch"`` or ``"training_seconds"``.
        gate: where a new process waits for the others (`sngd_tune.gate`).
        noise: when the gradient noise scale is measured; None: never.
    """

    workload: str
    import_path: str | None
    epochs: int
    seconds: float | None
    epoch_examples: int | None
    checkpoints: Place
    checkpoint_seconds: float
    threads: int
    gpus: float
    decisions: tuple[float, ...]
    decided_by: str
    gate: Any
    noise: NoiseConfig | None = None
