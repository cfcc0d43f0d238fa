"""The module that takes the place of a model's own, with its weights behind local Fisher layers."""

import operator
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.compiling import run_eagerly
from sngd_tune.core.distributed import Ranks
from sngd_tune.core.local_fisher import LocalFisher, make_local_fisher
from sngd_tune.core.observers import show
from sngd_tune.core.operators import join, take_apart
from sngd_tune.core.precision import outside_autocast

__all__ = ["ReconstructedLayer", "live_layers"]

#: What the optimizer hook looks through: all layers of the process. Weak, so that models can go.
live_layers: "weakref.WeakSet[ReconstructedLayer]" = weakref.WeakSet()


class ReconstructedLayer(nn.Module):
    """A layer with parameters ``W′`` in the place of ``W``: the same function, other coordinates.

    ``W′ (Rᵀ a)`` is evaluated as ``(W′ Rᵀ) a``: the weight is smaller than the inputs are, a convolution needs no
    patches, and the layer's own forward, whatever it is, runs on ``W = W′ Rᵀ``.

    Attributes:
        module: the layer itself, without the parameters that `weights` replace.
        weights: one ``W′: [*lead, d_out, d]`` for each site, the bias its last column.
        fishers: the local Fisher layers, one for each of `weights`.
        ranks: the processes that train the model together.

    A forward pass puts ``W`` on `module` and takes it out of the graph again, so one layer serves one thread at a time
    (`nn.DataParallel`, which gives each thread a replica, is refused: a replica's statistics would be lost).
    """

    def __init__(self, found: Sequence[Match], seed: int, ranks: Ranks):
        super().__init__()
        self.ranks = ranks
        self.module, self._kind = found[0].module, found[0].kind
        self._sites = tuple(match.site for match in found)
        self._places = tuple(match.place for match in found)
        parameters = [match.parameters for match in found]
        # What the parameters were: shapes, to go back to, and places.
        self._like = tuple(tuple(torch.empty_like(p, device="meta") for p in parts) for parts in parameters)
        #: Names of the parameters in their order, for each module that loses some to `weights`.
        self._order: dict[str, tuple[str, ...]] = {}
        self.fishers = nn.ModuleList(make_local_fisher(match, seed + i) for i, match in enumerate(found))
        joint = [join(match.site.matrices(parts)) for match, parts in zip(found, parameters, strict=True)]
        self.weights = nn.ParameterList(nn.Parameter(W.detach().clone()) for W in joint)  # R is the identity so far
        for site, parts in zip(self._sites, parameters, strict=True):
            for path, parameter in zip(site.parameters, parts, strict=True):
                owner, name = _owner(self.module, path)
                self._order.setdefault(path.rpartition(".")[0], tuple(owner._parameters))
                del owner._parameters[name]
                setattr(owner, name, parameter.detach())
        self._trained_here = True
        live_layers.add(self)
        self.follow_schedule()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._trained_here = False  # a copy, which may be an average that is never trained
        live_layers.add(self)

    def train(self, mode: bool = True) -> "ReconstructedLayer":
        """As `nn.Module.train`."""
        super().train(mode)
        if self._trained_here:
            self.follow_schedule()
        return self

    def follow_schedule(self) -> None:
        """Say whether the coming forward pass is observed, for which a compiled model has to run eagerly."""
        self._trained_here = True
        run_eagerly(self, self.training and any(fisher.observing for fisher, _ in self.layers()))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own forward."""
        observed = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        self._set(self._weights())
        try:
            if observed and any(fisher.observing for fisher, _ in self.layers()):
                return self._observed(args, kwargs)
            return self.module(*args, **kwargs)
        finally:
            self._set(None)

    def __getattr__(self, name: str) -> Any:
        """What the layer itself has: torch's own modules ask theirs for ``batch_first``, or take ``weight`` past
        `forward`.

        A weight comes as ``W = W′ Rᵀ``, in the graph; submodules hold the weights of this moment, outside of it.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "module" not in self.__dict__.get("_modules", {}):
                raise
        for i, site in enumerate(self._sites):
            if name in site.parameters:
                return self._parts(i, self._weights()[i])[site.parameters.index(name)]
        if name in self.module._modules:
            self._set([W.detach() for W in self._weights()])
        return getattr(self.module, name)

    def layers(self) -> Iterator[tuple[LocalFisher, nn.Parameter]]:
        """Each local Fisher layer with its ``W′``."""
        return zip(self.fishers, self.weights, strict=True)  # type: ignore[arg-type]

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        """The layer itself again, with ``W = W′ Rᵀ`` as its parameters."""
        plain = self._weights()
        for i, (_, W) in enumerate(self.layers()):
            for path, part in zip(self._sites[i].parameters, self._parts(i, plain[i]), strict=True):
                owner, name = _owner(self.module, path)
                delattr(owner, name)
                # Not `register_parameter`, of which recurrent modules would learn nothing.
                setattr(owner, name, nn.Parameter(part.contiguous(), requires_grad=W.requires_grad))
        for path, names in self._order.items():
            owned = self.module.get_submodule(path)._parameters
            for name in names:  # optimizers count parameters: their order has to be that of the model before
                owned[name] = owned.pop(name)
        return self.module

    def _observed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self._kind.watch(self.module) as record:
            output = self.module(*args, **kwargs)
        show(self._kind.seen, (self.module, args, kwargs, output, record), self._places, list(self.fishers))  # type: ignore[arg-type]
        return output

    def _weights(self) -> list[Tensor]:
        """``W = W′ Rᵀ`` of each site, in the precision of ``W′``."""
        with outside_autocast():
            return [fisher.root.apply_transpose(W.to(fisher.dtype)).to(W.dtype) for fisher, W in self.layers()]

    def _set(self, weights: Sequence[Tensor] | None) -> None:
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

    def extra_repr(self) -> str:
        """The sites, as `print(model)` shows them."""
        return ", ".join(path for site in self._sites for path in site.parameters)


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds the parameter at `path`, and its name there."""
    parent, _, name = path.rpartition(".")
    return (operator.attrgetter(parent)(module) if parent else module), name
