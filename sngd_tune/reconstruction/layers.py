"""The layers that take the place of the model's own, each behind its local Fisher layer."""

import weakref

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.local_fisher import LocalFisher, with_bias_input

__all__ = ["LocalFisherLinear", "seen_layers"]

#: Layers that have run forward in training: what the optimizer hook looks through. Weak, so that models can go.
seen_layers: "weakref.WeakSet[LocalFisherLinear]" = weakref.WeakSet()


class LocalFisherLinear(nn.Module):
    """``s = W′ (Rᵀ a)`` in the place of an `nn.Linear`: the same function, other coordinates.

    Attributes:
        weight: ``W′: [d_out, d]``; where the layer has a bias, the bias is part of it.
        fisher: the local Fisher layer.
    """

    def __init__(self, match: Match, seed: int):
        super().__init__()
        linear = match.module
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.has_bias = linear.bias is not None
        self.fisher = LocalFisher(
            match.d,
            match.settings,
            name=match.name or "model",
            seed=seed,
            dtype=linear.weight.dtype,
            device=linear.weight.device,
        )
        columns = [linear.weight.detach()] + ([linear.bias.detach().unsqueeze(1)] if self.has_bias else [])
        self.weight = nn.Parameter(torch.cat(columns, dim=1))  # R is the identity so far

    def forward(self, x: Tensor) -> Tensor:
        """``W a`` for ``x: [..., in_features]``."""
        a = with_bias_input(x, self.has_bias)
        if self.training and torch.is_grad_enabled():
            # Here and not in the constructor: a copy or an unpickled layer has to be found as well.
            self._show()
            if self.fisher.observing:
                self.fisher.observe(a)
        return nn.functional.linear(self.fisher(a), self.weight)

    @torch.compiler.disable
    def _show(self) -> None:
        seen_layers.add(self)

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """The plain layer again: ``W = W′ Rᵀ``."""
        linear = nn.Linear(
            self.in_features, self.out_features, bias=self.has_bias, device=self.weight.device, dtype=self.weight.dtype
        )
        W = self.fisher.root.apply_transpose(self.weight)
        linear.weight.copy_(W[:, : self.in_features])
        if self.has_bias:
            linear.bias.copy_(W[:, -1])
        return linear.train(self.training)

    def extra_repr(self) -> str:
        """Shape and settings, as `print(model)` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.has_bias}"
