"""What classification workloads have in common: cross entropy and accuracy."""

from torch import Tensor, nn

from sngd_tune.workloads.workload import Workload

__all__ = ["ClassificationWorkload"]


class ClassificationWorkload(Workload):
    """Logits ``[n, classes]`` against labels ``[n]`` (int64)."""

    likelihood = "softmax"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy (nats)."""
        return nn.functional.cross_entropy(outputs, targets)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How many of the largest logits are at the label."""
        return (outputs.argmax(-1) == targets).sum()
