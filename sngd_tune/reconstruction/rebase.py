"""What happens before each step of a torch optimizer that trains reconstructed layers.

Any optimizer will do, and it need not know: torch calls `before_step` before each `Optimizer.step` in the process. For
the layers among its parameters it closes the statistics, refreshes roots where they are due, moves weight, gradient and
optimizer state into the new coordinates, and bounds the step.

Why the state has to move: after a refresh ``W′`` means something else. A displacement (SGD's momentum) moves with
``W′``; a gradient average (Adam's first moment) moves with the gradient; second moments have no exact image and stay.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from sngd_tune.core.bounds import BOUNDS, Rebuilt
from sngd_tune.core.distributed import advance_all
from sngd_tune.core.guard import finite_norms
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.precision import outside_autocast
from sngd_tune.core.scaling import unscaled
from sngd_tune.errors import ReconstructionError
from sngd_tune.reconstruction.layers import ReconstructedLayer, live_layers

__all__ = ["REFUSED", "STATE_RULES", "as_displacement", "as_gradient", "before_step", "unchanged"]

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


#: How state tensors of `torch.optim` classes move with a refresh, by their key; ``"Class.key"`` goes before ``"key"``.
#: Add the keys of an own optimizer.
STATE_RULES: dict[str, Rule] = {
    "momentum_buffer": as_displacement,  # SGD, RMSprop
    "ax": as_displacement,  # ASGD: an average of W′ itself
    "exp_avg": as_gradient,  # Adam, AdamW, NAdam, RAdam, Adamax
    "Muon.momentum_buffer": as_gradient,  # an average of gradients, of which the step is no linear image
    "grad_avg": as_gradient,  # RMSprop, centered
    "exp_avg_sq": unchanged,
    "max_exp_avg_sq": unchanged,
    "exp_inf": unchanged,
    "square_avg": unchanged,
    "acc_delta": unchanged,
    "sum": unchanged,
    "prev": as_gradient,  # Rprop
    "step_size": unchanged,  # Rprop
    "row_var": unchanged,  # Adafactor
    "col_var": unchanged,
    "variance": unchanged,
}


#: Classes of `torch.optim` that cannot train ``W′``, and why.
REFUSED: dict[type[Optimizer], str] = {
    torch.optim.LBFGS: "it keeps a history of flattened steps, which no refresh can move",
    torch.optim.SparseAdam: "W′ has dense gradients only",
}


@torch.no_grad()
def before_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Close, refresh, re-base and bound, for the reconstructed layers that `optimizer` trains.

    A closure is evaluated first, so that the gradients are those of this step; `step` gets its loss.
    A step with a gradient that is not finite is skipped whole, and counted: see `core.safety`.

    Returns:
        arguments in the place of `args` and `kwargs`, where there was a closure.

    Raises:
        NonFiniteError: too many steps in a row had to be skipped (`Collector.max_skipped`).
        RootError: the first root of a layer fails.
        ReconstructionError: the optimizer keeps a state that no rule covers, or is one of `REFUSED`.
    """
    owned = list(_owned(optimizer))
    if not owned:
        return None
    for refused, reason in REFUSED.items():
        if isinstance(optimizer, refused):
            raise ReconstructionError(
                f"{type(optimizer).__name__} cannot train a reconstructed model: {reason}; try torch.optim.AdamW"
            )
    replaced = _evaluated(args, kwargs)
    with outside_autocast():
        _before_step(optimizer, owned)
    for layer in {each.layer for each in owned}:
        layer.follow_schedule()
    return replaced


def _evaluated(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of `step` with the closure evaluated; `args` begin with the optimizer."""
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        return None
    with torch.enable_grad():
        loss = closure()
    return args[:1], {**kwargs, "closure": lambda: loss}


def _before_step(optimizer: Optimizer, owned: "list[_Owned]") -> None:
    if not unscaled(optimizer, [each.fisher for each in owned]) or not _is_finite(optimizer, owned):
        _hold(optimizer)
        return
    advance = advance_all([each.fisher for each in owned], owned[0].layer.ranks)
    for i, before in advance.replaced.items():
        _rebase(owned[i].fisher, owned[i].weight, optimizer, before)
    if advance.warming:
        _hold(optimizer)
    elif isinstance(optimizer, torch.optim.SGD):
        _bound(owned)


def _is_finite(optimizer: Optimizer, owned: "list[_Owned]") -> bool:
    fishers = [each.fisher for each in owned]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = {p: p.grad for p in parameters if p.grad is not None}

    def names() -> list[str]:
        known = {each.weight: each.fisher.name for each in owned}
        return [known.get(p, f"plain {tuple(p.shape)}") for p in gradients]

    limit = min(fisher.collector.max_skipped for fisher in fishers)
    return finite_norms(list(gradients.values()), names, fishers, limit, owned[0].layer.ranks) is not None


def _hold(optimizer: Optimizer) -> None:
    """Every torch optimizer passes over parameters without a gradient: nothing moves, no state is touched."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


@dataclass(frozen=True, slots=True)
class _Owned:
    """A ``W′`` that an optimizer trains, with its parameter group and its local Fisher layer."""

    fisher: LocalFisher
    weight: nn.Parameter
    group: dict[str, Any]
    layer: ReconstructedLayer


def _owned(optimizer: Optimizer) -> Iterator[_Owned]:
    by_weight = {weight: (fisher, layer) for layer in list(live_layers) for fisher, weight in layer.layers()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in by_weight:
                fisher, layer = by_weight[parameter]
                yield _Owned(fisher, parameter, group, layer)


def _rebase(fisher: LocalFisher, weight: nn.Parameter, optimizer: Optimizer, old: RootOperator) -> None:
    moved: list[tuple[Tensor, Rule]] = [(weight, as_displacement)]
    if weight.grad is not None:
        moved.append((weight.grad, as_gradient))
    for key, value in optimizer.state.get(weight, {}).items():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            rule = STATE_RULES.get(f"{type(optimizer).__name__}.{key}", STATE_RULES.get(key))
            if rule is None:
                raise ReconstructionError(
                    f"{type(optimizer).__name__} keeps {key!r}, and how it moves with a refresh is not known;"
                    " add it to sngd_tune.reconstruction.rebase.STATE_RULES (as_displacement, as_gradient or unchanged)"
                )
            moved.append((value, rule))
    for tensor, rule in moved:
        tensor.copy_(rule(tensor.to(fisher.dtype), old, fisher.root))


def _bound(owned: list[_Owned]) -> None:
    """Bound the step as the layers' settings ask, those of one bound together."""
    layers: dict[str, list[Rebuilt]] = {}
    wide: list[tuple[Tensor, Tensor]] = []
    for each in owned:
        if each.weight.grad is not None:
            settings, gradient = each.fisher.settings, each.weight.grad.to(each.fisher.dtype)
            wide.append((each.weight.grad, gradient))
            rebuilt = Rebuilt(gradient, each.fisher.root, each.group["lr"], settings.kl_bound)
            layers.setdefault(settings.step_bound, []).append(rebuilt)
    for name, members in layers.items():
        BOUNDS[name].limit(members)
    for narrow, gradient in wide:
        if narrow is not gradient:  # the parameter is of half precision
            narrow.copy_(gradient)


register_optimizer_step_pre_hook(before_step)
