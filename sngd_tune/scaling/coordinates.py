"""Gradients of a model in the coordinates in which a method's step is a plain one.

A step with ``P = C Cᵀ`` is a plain step in the coordinates ``∇ C``. With an SGD base SNGD has ``C = R`` (the step
bound, which scales layers against each other, is left out), with an Adam base ``C = R D``; AdamW has ``C = D``. There
``D = diag(√v̂ + ε)^-½`` is of the second moments; like ``R`` it is taken as it stands, though it was estimated from
gradients as well.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sngd_tune.core.account import matches
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators import join
from sngd_tune.core.optimizer import SNGD
from sngd_tune.reconstruction.layers import ReconstructedLayer
from sngd_tune.settings import FisherSettings

__all__ = ["Adaptive", "Coordinates", "Reconstructed", "coordinates_of", "plain"]

#: Gradients of a model, or of a copy of it, after a backward pass, as one vector.
Coordinates = Callable[[nn.Module], Tensor]


def coordinates_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Coordinates]:
    """By name: ``"plain"``, and ``"own"`` where the method has a preconditioner by now that is one of those above.

    Args:
        model: that the optimizer trains. Of a rebuilt one (the explicit form) there are none: what is plain there is
            the method's own.
        optimizer: of any method.
    """
    if any(isinstance(module, ReconstructedLayer) for module in model.modules()):
        return {}
    own: Coordinates | None = None
    if isinstance(optimizer, torch.optim.SGD):
        own = plain
    elif isinstance(optimizer, SNGD) and "betas" not in optimizer.defaults:
        own = Reconstructed(optimizer.layers)
    elif isinstance(optimizer, SNGD | torch.optim.AdamW | torch.optim.NAdam) and optimizer.state:
        own = Adaptive(model, optimizer, optimizer.layers if isinstance(optimizer, SNGD) else {})
    return {"plain": plain, **({"own": own} if own is not None else {})}


def plain(model: nn.Module) -> Tensor:
    """Gradients as they are; what has none counts as 0 and is left out."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


class Reconstructed:
    """``∇ R`` for layers with a root, and gradients as they are elsewhere.

    Args:
        layers: `SNGD.layers` of the optimizer that trains the model, by the name of the site.
    """

    def __init__(self, layers: Mapping[str, LocalFisher]):
        self._layers = layers

    def __call__(self, model: nn.Module) -> Tensor:
        """The vector, whose squared length is ``⟨∇, P ∇⟩``."""
        return torch.cat([gradient.flatten() for _, gradient in _reconstructed(model, self._layers)])


class Adaptive:
    """``∇ R D``: in the coordinates of the reconstruction, each in the measure of its second moment.

    Args:
        model: the one that is trained, in whose place a copy may be differentiated.
        optimizer: Adam, or SNGD on an Adam base; what it has never moved is left out.
        layers: its local Fisher layers; without any ``R = I``.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, layers: Mapping[str, LocalFisher]):
        self._model, self._optimizer, self._layers = model, optimizer, layers

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Tensor:
        """The vector, whose squared length is ``⟨∇, P ∇⟩``."""
        trained = dict(zip(model.parameters(), self._model.parameters(), strict=True))
        groups = {parameter: group for group in self._optimizer.param_groups for parameter in group["params"]}
        parts = []
        for parameter, gradient in _reconstructed(model, self._layers):
            state = self._optimizer.state.get(trained[parameter], {})
            if state:
                parts.append((gradient * _measure(state, groups[trained[parameter]])).flatten())
        return torch.cat(parts)


def _measure(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """``(√v̂ + ε)^-½``, of the shape of the gradient in the coordinates of the reconstruction."""
    seen = 1 - group["betas"][1] ** float(state["step"])
    return (state["exp_avg_sq"] / seen).sqrt_().add_(group["eps"]).rsqrt_()


@torch.no_grad()
def _reconstructed(model: nn.Module, layers: Mapping[str, LocalFisher]) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each weight with ``∇ R`` of its layer, bias included; then all else with its gradient."""
    seen: set[Tensor] = set()
    for match in matches(model, FisherSettings()) if layers else ():
        gradients = [parameter.grad for parameter in match.parameters]
        if match.name in layers and all(gradient is not None for gradient in gradients):
            fisher = layers[match.name]
            joint = join(match.site.matrices(tuple(gradients))).to(fisher.dtype)  # type: ignore[arg-type]
            yield cast(nn.Parameter, match.parameters[0]), fisher.root.apply(joint)
            seen.update(match.parameters)
    yield from ((p, p.grad) for p in model.parameters() if p not in seen and p.grad is not None)
