"""Loss and accuracy of a model on examples that it is not trained on."""

import torch
from torch import Tensor, nn

from sngd_tune.core.distributed import Ranks
from sngd_tune.workloads.workload import Workload

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(
    model: nn.Module, workload: Workload, data: tuple[Tensor, Tensor], ranks: Ranks
) -> tuple[float, float | None]:
    """Mean loss over all examples, and the share that is right (None where the task has no accuracy).

    Args:
        model: the same on all ranks; left in evaluation mode.
        workload: its loss, and how many examples are evaluated at once.
        data: inputs ``[n, ...]`` and targets ``[n, ...]``, the same on all ranks.
        ranks: each evaluates some of the batches, and all have the result.
    """
    model.eval()
    examples, device = len(data[0]), data[0].device
    loss, correct = 0.0, 0.0
    has_accuracy = False
    batches = list(zip(*(each.split(workload.evaluation_batch) for each in data), strict=True))
    for x, y in batches[ranks.rank :: ranks.size]:
        outputs = model(x)
        loss += float(workload.loss(outputs, y)) * len(x)
        right = workload.correct(outputs, y)
        if right is not None:
            has_accuracy = True
            correct += float(right)
    loss, correct = ranks.sum([loss, correct], device)
    return loss / examples, correct / examples if has_accuracy else None
