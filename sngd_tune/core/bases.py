"""Base optimizers of the fused form: what is done with gradients in the coordinates of ``W′``.

A base gets all updates of a parameter group at once and returns directions: each parameter moves by ``−lr`` times its
own. What a base keeps between steps lives in the torch optimizer's state.

State that is a displacement (SGD's momentum) is kept in the coordinates of ``W``, where a refresh leaves it as it is;
state that is a gradient (Adam's first moment) is carried over by `rebase`. Adam's second moment has no exact image in
rotated coordinates and stays, as in SOAP (Vyas et al. 2024).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sngd_tune.core.bounds import kl_scale
from sngd_tune.core.layers.base import Site
from sngd_tune.core.operators import Parts, RootOperator, join, take_apart
from sngd_tune.errors import SettingsError
from sngd_tune.settings import FisherSettings

__all__ = ["BASES", "AdamWBase", "Base", "SgdBase", "Update", "make_base"]

Group = Mapping[str, Any]
States = MutableMapping[Tensor, dict[str, Any]]


@dataclass(slots=True)
class Update:
    """One layer, or one plain parameter, on its way through a step.

    Attributes:
        parameters: weight and, if there is one, bias; or the plain parameter alone.
        gradients: theirs, in the precision of the root.
        root: of the layer; None for a plain parameter.
        site: where the layer is; None for a plain parameter.
        settings: of the layer; None for a plain parameter.
    """

    parameters: Parts
    gradients: Parts
    root: RootOperator | None = None
    site: Site | None = None
    settings: FisherSettings | None = None

    @property
    def bound(self) -> str:
        """The step bound that the layer asks for."""
        return self.settings.step_bound if self.settings is not None else "none"


class Base(ABC):
    """A first-order method in the coordinates of the reconstruction."""

    #: Learning rate where none is given.
    default_lr: float

    @abstractmethod
    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        """The directions in the coordinates of ``W``, one for each parameter of each update, in order."""

    @abstractmethod
    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        """Carry the state of a layer's weight over a refresh of its root."""


class SgdBase(Base):
    """SGD with momentum, Nesterov's on demand (Sutskever et al. 2013, in torch's form); the step bounds act here."""

    default_lr = 0.1

    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        momentum, nesterov = group["momentum"], group["nesterov"] and group["momentum"] > 0
        trusted = self._trusted(updates, group["lr"])
        directions: list[Tensor] = []
        for i, update in enumerate(updates):
            into = _buffers(update, states, keep=momentum > 0)
            if nesterov:
                natural = tuple(map(torch.zeros_like, into))
                self._accumulate(update, trusted.get(i), natural, 0.0)
                torch._foreach_mul_(into, momentum)
                torch._foreach_add_(into, natural)
                directions += torch._foreach_add(natural, into, alpha=momentum)
            else:
                self._accumulate(update, trusted.get(i), into, momentum)
                directions += into
        return directions

    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        """Nothing to do: the momentum is a displacement of ``W``."""

    @staticmethod
    def _accumulate(update: Update, trusted: Parts | None, into: Parts, momentum: float) -> None:
        """``into ← momentum · into + natural gradient``, the one scaled for the trust region where there is one."""
        root, site = update.root, update.site
        if trusted is None and root is not None and site is not None:
            into, gradients = site.matrices(into), site.matrices(update.gradients)
            root.accumulate(gradients, into, momentum, graft=update.bound == "graft")
        else:
            torch._foreach_mul_(into, momentum)
            torch._foreach_add_(into, update.gradients if trusted is None else trusted)

    @staticmethod
    def _trusted(updates: Sequence[Update], lr: float) -> dict[int, Parts]:
        """Natural gradients of the layers that ask for the trust region, by their place among the updates."""
        natural = {
            i: u.site.shaped(u.root.natural(u.site.matrices(u.gradients)), u.gradients)
            for i, u in enumerate(updates)
            if u.root is not None and u.site is not None and u.bound == "kl"
        }
        if not natural:
            return {}
        products = [lr**2 * _inner(updates[i].gradients, parts) for i, parts in natural.items()]
        bounds = [settings.kl_bound for i in natural if (settings := updates[i].settings) is not None]
        scales = kl_scale(products, bounds)
        scaled = zip(natural.items(), scales, strict=True)
        return {i: tuple(part * scale for part in parts) for (i, parts), scale in scaled}


def _buffers(update: Update, states: States, keep: bool) -> Parts:
    """What the natural gradients of an update are added to: its momentum, or zeros."""
    if not keep:
        return tuple(torch.zeros_like(g, memory_format=torch.contiguous_format) for g in update.gradients)
    for parameter, gradient in zip(update.parameters, update.gradients, strict=True):
        if "momentum_buffer" not in states[parameter]:
            # Contiguous, whatever the gradient is: the matrix form of a buffer must be a view.
            buffer = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
            states[parameter]["momentum_buffer"] = buffer
    return tuple(states[parameter]["momentum_buffer"] for parameter in update.parameters)


class AdamWBase(Base):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on ``W′``.

    Its steps are bounded by ``lr`` in each coordinate, so the step bounds of the settings do not apply.
    """

    default_lr = 1e-3

    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        return [part for update in updates for part in self._direction(update, states[update.parameters[0]], group)]

    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        if "exp_avg" in state:
            state["exp_avg"] = new.apply(old.solve(state["exp_avg"])).contiguous()

    @staticmethod
    def _direction(update: Update, state: dict[str, Any], group: Group) -> Parts:
        root, site = update.root, update.site
        if root is None or site is None:
            return (_adam(update.gradients[0], state, group["betas"], group["eps"]),)
        gradient = root.apply(join(site.matrices(update.gradients)))
        direction = root.apply_transpose(_adam(gradient, state, group["betas"], group["eps"]))
        return site.shaped(take_apart(direction, len(update.parameters)), update.parameters)


def _adam(gradient: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    beta1, beta2 = betas
    if "step" not in state:
        state.update(step=0, exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(gradient))
    state["step"] += 1
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (state["exp_avg_sq"].sqrt() / (1 - beta2 ** state["step"]) ** 0.5).add_(eps)
    return (state["exp_avg"] / (1 - beta1 ** state["step"])).div_(denominator)


def _inner(left: Parts, right: Parts) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()


BASES: dict[str, type[Base]] = {"sgd": SgdBase, "adamw": AdamWBase}


def make_base(name: str) -> Base:
    """The base of that name (SettingsError for an unknown one)."""
    if name not in BASES:
        known = ", ".join(BASES)
        raise SettingsError(
            f"base={name!r}: must be one of {known}; any other torch optimizer works with reconstruct()"
        )
    return BASES[name]()
