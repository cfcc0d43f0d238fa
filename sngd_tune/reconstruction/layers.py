"""The module that takes the place of a model's own, with its weights behind local Fisher layers."""

import operator
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.local_fisher import LocalFisher, make_local_fisher
from sngd_tune.core.operators import join, take_apart

__all__ = ["ReconstructedLayer", "seen_layers"]

#: Layers that have run forward in training: what the optimizer hook looks through. Weak, so that models can go.
seen_layers: "weakref.WeakSet[ReconstructedLayer]" = weakref.WeakSet()


class ReconstructedLayer(nn.Module):
    """A layer with parameters ``W′`` in the place of ``W``: the same function, other coordinates.

    ``W′ (Rᵀ a)`` is evaluated as ``(W′ Rᵀ) a``: the weight is smaller than the inputs are, a convolution needs no
    patches, and the layer's own forward, whatever it is, runs on ``W = W′ Rᵀ``.

    Attributes:
        module: the layer itself, without the parameters that `weights` replace.
        weights: one ``W′: [*lead, d_out, d]`` for each site, the bias its last column.
        fishers: the local Fisher layers, one for each of `weights`.
    """

    def __init__(self, found: Sequence[Match], seed: int):
        super().__init__()
        self.module, self._kind = found[0].module, found[0].kind
        self._sites = tuple(match.site for match in found)
        self._places = tuple(match.place for match in found)
        parameters = [match.parameters for match in found]
        # What the parameters were: shapes, to go back to, and places.
        self._like = tuple(tuple(torch.empty_like(p, device="meta") for p in parts) for parts in parameters)
        self.fishers = nn.ModuleList(make_local_fisher(match, seed + i) for i, match in enumerate(found))
        joint = [join(match.site.matrices(parts)) for match, parts in zip(found, parameters, strict=True)]
        self.weights = nn.ParameterList(nn.Parameter(W.detach().clone()) for W in joint)  # R is the identity so far
        for site, parts in zip(self._sites, parameters, strict=True):
            for path, parameter in zip(site.parameters, parts, strict=True):
                owner, name = _owner(self.module, path)
                del owner._parameters[name]
                setattr(owner, name, parameter.detach())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own forward."""
        observed = self.training and torch.is_grad_enabled()
        if observed:
            # Here and not in the constructor: a copy or an unpickled layer has to be found as well.
            self._show()
        self._set(fisher.root.apply_transpose(W) for fisher, W in self.layers())
        try:
            if observed and any(fisher.observing for fisher, _ in self.layers()):
                return self._observed(args, kwargs)
            return self.module(*args, **kwargs)
        finally:
            self._set(None)

    def layers(self) -> Iterator[tuple[LocalFisher, nn.Parameter]]:
        """Each local Fisher layer with its ``W′``."""
        return zip(self.fishers, self.weights, strict=True)  # type: ignore[arg-type]

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        """The layer itself again, with ``W = W′ Rᵀ`` as its parameters."""
        for i, (fisher, W) in enumerate(self.layers()):
            for path, part in zip(self._sites[i].parameters, self._parts(i, fisher.root.apply_transpose(W)), strict=True):
                owner, name = _owner(self.module, path)
                delattr(owner, name)
                owner.register_parameter(name, nn.Parameter(part.contiguous()))
        return self.module

    def _observed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._kind.watch(self.module) as record:
            output = self.module(*args, **kwargs)
        with torch.no_grad():
            seen = self._kind.seen(self.module, args, kwargs, output, record)
        for place, (fisher, _) in zip(self._places, self.layers(), strict=True):
            if fisher.observing:
                fisher.observe(seen[place])
        return output

    def _set(self, weights: Iterator[Tensor] | None) -> None:
        """Give the module its weights, or take them out of the graph again, which no copy could hold."""
        if weights is not None:
            for i, W in enumerate(weights):
                for path, part in zip(self._sites[i].parameters, self._parts(i, W), strict=True):
                    owner, name = _owner(self.module, path)
                    setattr(owner, name, part)
            return
        for site in self._sites:
            for path in site.parameters:
                owner, name = _owner(self.module, path)
                setattr(owner, name, getattr(owner, name).detach())

    def _parts(self, i: int, W: Tensor) -> tuple[Tensor, ...]:
        like = self._like[i]
        return self._sites[i].shaped(take_apart(W, len(like)), like)

    @torch.compiler.disable
    def _show(self) -> None:
        seen_layers.add(self)

    def extra_repr(self) -> str:
        """The sites, as `print(model)` shows them."""
        return ", ".join(path for site in self._sites for path in site.parameters)


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds the parameter at `path`, and its name there."""
    parent, _, name = path.rpartition(".")
    return (operator.attrgetter(parent)(module) if parent else module), name
