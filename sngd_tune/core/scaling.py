"""What `torch.amp.GradScaler` tells an optimizer that unscales by itself, and what that means for the statistics."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.errors import SettingsError

__all__ = ["unscaled"]


def unscaled(
    optimizer: Optimizer, fishers: Iterable[LocalFisher], matters: Callable[[LocalFisher], bool] = lambda fisher: False
) -> bool:
    """Take the scale off the gradients and off what waits for ``G``; False where the scaler has found infinity.

    The scaler sets ``grad_scale`` and ``found_inf`` for optimizers with ``_step_supports_amp_scaling``. A step with
    infinity is left out whole: the schedule stays where it is. (Its inputs, if finite, have entered ``G``, as those
    of any batch.)

    Args:
        optimizer: whose step it is.
        fishers: its local Fisher layers.
        matters: whether the scale of a layer's ``G`` makes a difference, where `GradScaler.unscale_` took it away.

    Raises:
        SettingsError: it does.
    """
    found = getattr(optimizer, "found_inf", None)
    if found is None:
        return True
    fishers = list(fishers)
    if bool(found):
        for fisher in fishers:
            fisher.collector.forget()
        return False
    scale: Tensor | None = getattr(optimizer, "grad_scale", None)
    if scale is not None:
        inverse = scale.double().reciprocal().item()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, inverse)
        for fisher in fishers:
            fisher.collector.scale_pending(inverse)
        optimizer.grad_scale = None  # type: ignore[attr-defined]  # a fused kernel would take it off again
    elif any(matters(fisher) for fisher in fishers if fisher.collector.awaits_training_gradients):
        raise SettingsError(
            "GradScaler.unscale_: must not be called before step() where G is made of the step's gradients, whose"
            " scale it takes; try fisher='sampled', step_bound='graft' (base SGD), root_scale='unit' (base AdamW), or"
            " torch.bfloat16, which needs no GradScaler"
        )
    return True
