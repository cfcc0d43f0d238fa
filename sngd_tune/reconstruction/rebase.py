"""What happens before each step of a torch optimizer that trains reconstructed layers.

Any optimizer will do, and it need not know: torch calls `before_step` before each `Optimizer.step` in the process. For
the layers among its parameters it closes the statistics, refreshes roots where they are due, moves weight, gradient and
optimizer state into the new coordinates, and bounds the step.

Why the state has to move: after a refresh ``W′`` means something else. A displacement (SGD's momentum) moves with
``W′``; a gradient average (Adam's first moment) moves with the gradient; second moments have no exact image and stay.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from sngd_tune.core.bounds import kl_scale
from sngd_tune.core.local_fisher import LocalFisher, gradient_error
from sngd_tune.core.operators import RootOperator
from sngd_tune.errors import ReconstructionError
from sngd_tune.reconstruction.layers import seen_layers

__all__ = ["STATE_RULES", "as_displacement", "as_gradient", "before_step", "unchanged"]

Rule = Callable[[Tensor, RootOperator, RootOperator], Tensor]


def as_displacement(x: Tensor, old: RootOperator, new: RootOperator) -> Tensor:
    """``x R_oldᵀ R_new⁻ᵀ``: the same displacement of ``W``; `x` is ``[d_out, d]``."""
    return new.solve_transpose(old.apply_transpose(x))


def as_gradient(x: Tensor, old: RootOperator, new: RootOperator) -> Tensor:
    """``x R_old⁻¹ R_new``: the same gradient of ``W``; `x` is ``[d_out, d]``."""
    return new.apply(old.solve(x))


def unchanged(x: Tensor, old: RootOperator, new: RootOperator) -> Tensor:
    """Second moments, by coordinate: kept as they are."""
    return x


#: How state tensors of `torch.optim` classes move with a refresh, by their key. Add the keys of an own optimizer.
STATE_RULES: dict[str, Rule] = {
    "momentum_buffer": as_displacement,  # SGD, RMSprop
    "exp_avg": as_gradient,  # Adam, AdamW, NAdam, RAdam, Adamax
    "grad_avg": as_gradient,  # RMSprop, centered
    "exp_avg_sq": unchanged,
    "max_exp_avg_sq": unchanged,
    "exp_inf": unchanged,
    "square_avg": unchanged,
    "acc_delta": unchanged,
    "sum": unchanged,
    "prev": as_gradient,  # Rprop
    "step_size": unchanged,
}


@torch.no_grad()
def before_step(optimizer: Optimizer, *unused: Any) -> None:
    """Close, refresh, re-base and bound, for the reconstructed layers that `optimizer` trains.

    Raises:
        NonFiniteError: statistics or gradient of a layer hold NaN or infinity, found at a refresh.
        RootError: the first root of a layer fails.
        ReconstructionError: the optimizer keeps a state that no rule covers.
    """
    del unused
    owned = list(_owned(optimizer))
    if not owned:
        return
    warming = False
    for fisher, weight, _ in owned:
        advance = fisher.advance()
        warming = warming or advance.warming
        if advance.replaced is not None:
            _rebase(fisher, weight, optimizer, advance.replaced)
    if warming:
        # Every torch optimizer passes over parameters without a gradient: nothing moves, no state is touched.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
    elif isinstance(optimizer, torch.optim.SGD):
        _bound(owned)


def _owned(optimizer: Optimizer) -> Iterator[tuple[LocalFisher, nn.Parameter, dict[str, Any]]]:
    """The local Fisher layers whose ``W′`` the optimizer trains, each with it and its parameter group."""
    by_weight = {weight: fisher for layer in seen_layers for fisher, weight in layer.layers()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in by_weight:
                yield by_weight[parameter], parameter, group


def _rebase(fisher: LocalFisher, weight: nn.Parameter, optimizer: Optimizer, old: RootOperator) -> None:
    new = fisher.root
    if weight.grad is not None:
        if not bool(weight.grad.isfinite().all()):
            raise gradient_error(fisher.name)
        weight.grad.copy_(as_gradient(weight.grad, old, new))
    weight.copy_(as_displacement(weight, old, new))
    for key, value in optimizer.state.get(weight, {}).items():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            if key not in STATE_RULES:
                raise ReconstructionError(
                    f"{type(optimizer).__name__} keeps {key!r}, and how it moves with a refresh is not known;"
                    " add it to sngd_tune.reconstruction.rebase.STATE_RULES (as_displacement, as_gradient or unchanged)"
                )
            value.copy_(STATE_RULES[key](value, old, new))


def _bound(owned: list[tuple[LocalFisher, nn.Parameter, dict[str, Any]]]) -> None:
    """The bounds of `core.bounds` in the coordinates of ``W′``, where ``⟨∇, (G + λI)⁻¹∇⟩`` is ``‖∇_W′‖²``."""
    trusted = []
    for fisher, weight, group in owned:
        gradient, root, bound = weight.grad, fisher.root, fisher.settings.step_bound
        if gradient is None or bound == "none":
            continue
        if bound == "graft":
            natural_norm = torch.linalg.vector_norm(root.apply_transpose(gradient))
            tiny = torch.finfo(natural_norm.dtype).tiny
            gradient.mul_(torch.linalg.vector_norm(root.solve(gradient)) / natural_norm.clamp(min=tiny))
        else:
            trusted.append((gradient, group["lr"], fisher.settings.kl_bound))
    if trusted:
        scales = kl_scale([lr**2 * g.square().sum() for g, lr, _ in trusted], [bound for _, _, bound in trusted])
        for (gradient, _, _), scale in zip(trusted, scales, strict=True):
            gradient.mul_(scale)


register_optimizer_step_pre_hook(before_step)
