"""What an optimizer moves together: weight and bias of a layer behind one root, or a plain parameter by itself."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sngd_tune.core.account import Match
from sngd_tune.core.bases import Update
from sngd_tune.core.layers.base import Site
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators import Parts

__all__ = ["Trained", "portions", "trained_by"]

#: Numbers from which on no more updates join a portion.
_PORTION = 2**20


@dataclass(frozen=True, slots=True)
class Trained:
    """Parameters that move together.

    Attributes:
        name: of the layer, or of the parameter.
        group: number of their parameter group.
        parameters: weight and, if there is one, bias; or the plain parameter alone.
        fisher: of the layer; None for a plain parameter.
        site: where the layer is; None for a plain parameter.
    """

    name: str
    group: int
    parameters: Parts
    fisher: LocalFisher | None = None
    site: Site | None = None

    @property
    def gradients(self) -> Parts | None:
        """As torch has them; one that is missing beside another counts as 0, and None says that all are."""
        found = [parameter.grad for parameter in self.parameters]
        missing = sum([gradient is None for gradient in found])
        if missing == len(found):
            return None
        if not missing:
            return tuple(found)  # type: ignore[arg-type]  # none is None
        return tuple(torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True))

    def update(self, gradients: Parts, norms: Sequence[float]) -> Update:
        """Their part in a step, from `gradients` and the norm of each."""
        if self.fisher is None or self.site is None:
            return Update(self.parameters, gradients, norms[0])
        dtype = self.fisher.dtype
        matrices = tuple([g if g.dtype == dtype else g.to(dtype) for g in self.site.matrices(gradients)])
        return Update(self.parameters, matrices, math.hypot(*norms), self.fisher.root, self.site, self.fisher.settings)


def trained_by(
    groups: Iterable[Mapping[str, Any]],
    found: Iterable[Match],
    layers: Mapping[str, LocalFisher],
    names: Mapping[Tensor, str],
) -> list[Trained]:
    """All that these parameter groups train, in their order; a layer stands where its weight does.

    Args:
        groups: as torch keeps them.
        found: the sites with local Fisher layers.
        layers: these, by the name of the site.
        names: of the parameters.
    """
    of_weight = {match.parameters[0]: match for match in found}
    biases = {bias for match in of_weight.values() for bias in match.parameters[1:]}
    trained = []
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            match = of_weight.get(parameter)
            if match is not None:
                layer = layers[match.name], match.site
                trained.append(Trained(match.name or "model", number, match.parameters, *layer))
            elif parameter not in biases:
                trained.append(Trained(names[parameter], number, (parameter,)))
    return trained


def portions(updates: Iterable[Update]) -> Iterator[list[Update]]:
    """Updates that are made together, in order: small ones, by one call of torch's kernels, and each large one alone.

    So temporaries stay few. (Of a network of 1,024 units all at once took 15 ms instead of 8: memory that is given back
    to the system has to be mapped anew.)
    """
    portion: list[Update] = []
    for update in updates:
        portion.append(update)
        if sum(gradient.numel() for each in portion for gradient in each.gradients) >= _PORTION:
            yield portion
            portion = []
    if portion:
        yield portion
