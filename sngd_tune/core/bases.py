"""Base optimizers of the fused form: what is done with gradients in the coordinates of ``W′``.

A base gets all updates of a parameter group at once and returns directions: each parameter moves by ``−lr`` times its
own. What a base keeps between steps lives in the torch optimizer's state.

State that is a displacement (SGD's momentum) is kept in the coordinates of ``W``, where a refresh leaves it as it is;
state that is a gradient (Adam's first moment) is carried over by `rebase`. Adam's second moment has no exact image in
rotated coordinates and stays, as in SOAP (Vyas et al. 2024).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sngd_tune.core.bounds import BOUNDS, StepBound, kl_scale
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
        gradient: theirs, joined (``[*lead, d_out, d]``), in the precision of the root; of a plain parameter as it is.
        root: of the layer; None for a plain parameter.
        site: where the layer is; None for a plain parameter.
        settings: of the layer; None for a plain parameter.
        bounded: the natural gradient, where it had to be bounded together with those of other layers.
    """

    parameters: Parts
    gradient: Tensor
    root: RootOperator | None = None
    site: Site | None = None
    settings: FisherSettings | None = None
    bounded: Tensor | None = None

    @property
    def bound(self) -> StepBound:
        """The step bound that the layer asks for."""
        return BOUNDS[self.settings.step_bound if self.settings is not None else "none"]

    @property
    def kl_bound(self) -> float:
        """The bound of the trust region; infinite where there is none."""
        return self.settings.kl_bound if self.settings is not None else math.inf

    def natural(self) -> Tensor:
        """``∇ (G + λI)⁻¹``; the gradient itself for a plain parameter."""
        return self.gradient if self.root is None else self.root.precondition(self.gradient)

    def accumulate(self, into: Tensor, momentum: float) -> None:
        """``into ← momentum · into + natural gradient``, bounded, in place."""
        if self.bounded is None and self.root is not None:
            self.bound.accumulate(self.root, self.gradient, into, momentum)
        else:
            into.mul_(momentum).add_(self.gradient if self.bounded is None else self.bounded)

    def joint(self, parts: Parts) -> Tensor:
        """Tensors shaped as the parameters in the shape of the gradient."""
        return parts[0] if self.site is None else join(self.site.matrices(parts))

    def shaped(self, joint: Tensor) -> Parts:
        """Inverse of `joint`; views where the layer's parameters allow it."""
        if self.site is None:
            return (joint,)
        return self.site.shaped(take_apart(joint, len(self.parameters)), self.parameters)

    def squared_length(self, displacement: Tensor) -> Tensor:
        """``Δ (G + λI) Δᵀ = ‖Δ R⁻ᵀ‖²`` of a displacement ``Δ`` shaped as the gradient, ``[]``; ``R = I`` if plain."""
        moved = displacement if self.root is None else self.root.solve_transpose(displacement)
        return moved.square().sum()


class Base(ABC):
    """A first-order method in the coordinates of the reconstruction."""

    #: Learning rate where none is given.
    default_lr: float
    #: What a parameter group holds for it, beside ``lr`` and ``weight_decay``.
    hyperparameters: tuple[str, ...]
    #: Whether a step is as long as the natural gradient.
    scales_with_gradients: bool

    def bound(self, steps: Sequence[tuple[Update, float]]) -> None:
        """Bound the layers' steps as their settings ask, where this is done for all groups at once.

        Args:
            steps: every update of the coming step with its learning rate; `Update.bounded` is set in place.
        """
        del steps  # bases that normalize by coordinate bound their steps themselves

    @abstractmethod
    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        """The directions in the coordinates of ``W``, one for each parameter of each update, in order."""

    @abstractmethod
    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        """Carry the state of a layer's weight over a refresh of its root."""


class SgdBase(Base):
    """SGD with momentum, Nesterov's on demand (Sutskever et al. 2013, in torch's form); the step bounds act here."""

    default_lr = 0.1
    hyperparameters = ("momentum", "nesterov")
    scales_with_gradients = True

    def bound(self, steps: Sequence[tuple[Update, float]]) -> None:
        together = [(update, lr) for update, lr in steps if update.bound.joint]
        natural = [update.natural() for update, _ in together]
        products = [
            lr**2 * (update.gradient * direction).sum()
            for (update, lr), direction in zip(together, natural, strict=True)
        ]
        scales = kl_scale(products, [update.kl_bound for update, _ in together])
        for (update, _), direction, scale in zip(together, natural, scales, strict=True):
            update.bounded = direction * scale

    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        momentum = group["momentum"]
        directions: list[Tensor] = []
        for update in updates:
            velocity = _velocity(update, states[update.parameters[0]], keep=momentum > 0)
            before = velocity * -momentum if group["nesterov"] and momentum else None
            update.accumulate(velocity, momentum)
            # With v ← μ v + n, Nesterov's n + μ v is (1 + μ) v less the old μ v.
            directions += update.shaped(velocity if before is None else before.add_(velocity, alpha=1 + momentum))
        return directions

    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        """Nothing to do: the momentum is a displacement of ``W``."""


def _velocity(update: Update, state: dict[str, Any], keep: bool) -> Tensor:
    """What the natural gradients of an update are added to: its momentum, or zeros."""
    if keep and "momentum_buffer" in state:
        return state["momentum_buffer"]
    zeros = torch.zeros_like(update.gradient)
    if keep:
        state["momentum_buffer"] = zeros
    return zeros


class AdamWBase(Base):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on ``W′``.

    Its steps are bounded by ``lr`` in each coordinate, so the step bounds of the settings do not apply.
    """

    default_lr = 1e-3
    hyperparameters = ("betas", "eps")
    scales_with_gradients = False

    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        return [part for update in updates for part in self._direction(update, states[update.parameters[0]], group)]

    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        if "exp_avg" in state:
            state["exp_avg"] = new.apply(old.solve(state["exp_avg"])).contiguous()

    @staticmethod
    def _direction(update: Update, state: dict[str, Any], group: Group) -> Parts:
        root = update.root
        if root is None:
            return (_adam(update.gradient, state, group["betas"], group["eps"]),)
        direction = _adam(root.apply(update.gradient), state, group["betas"], group["eps"])
        return update.shaped(root.apply_transpose(direction))


def _adam(gradient: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    beta1, beta2 = betas
    if "step" not in state:
        state.update(step=0, exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(gradient))
    state["step"] += 1
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (state["exp_avg_sq"].sqrt() / (1 - beta2 ** state["step"]) ** 0.5).add_(eps)
    return (state["exp_avg"] / (1 - beta1 ** state["step"])).div_(denominator)


BASES: dict[str, type[Base]] = {"sgd": SgdBase, "adamw": AdamWBase}


def make_base(name: str) -> Base:
    """The base of that name (SettingsError for an unknown one)."""
    if name not in BASES:
        known = ", ".join(BASES)
        raise SettingsError(
            f"base={name!r}: must be one of {known}; any other torch optimizer works with reconstruct()"
        )
    return BASES[name]()
