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
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from sngd_tune.core.bounds import BOUNDS, StepBound, kl_scale
from sngd_tune.core.layers.base import Site
from sngd_tune.core.operators import Parts, RootOperator, join, take_apart
from sngd_tune.errors import SettingsError
from sngd_tune.settings import FisherSettings

#: Kinds of devices with a fused Adam.
_FUSED = ("cpu", "cuda")

__all__ = ["BASES", "AdamWBase", "Base", "SgdBase", "Update", "make_base"]

Group = Mapping[str, Any]
States = MutableMapping[Tensor, dict[str, Any]]


@dataclass(slots=True)
class Update:
    """One layer, or one plain parameter, on its way through a step.

    Attributes:
        parameters: weight and, if there is one, bias; or the plain parameter alone.
        gradients: theirs as matrices, ``([*lead, d_out, d_in], [*lead, d_out])``, in the precision of the root; of a
            plain parameter as it is.
        length: norm of all of them together.
        root: of the layer; None for a plain parameter.
        site: where the layer is; None for a plain parameter.
        settings: of the layer; None for a plain parameter.
        bounded: the natural gradient, where it had to be bounded together with those of other layers.
    """

    parameters: Parts
    gradients: Parts
    length: float
    root: RootOperator | None = None
    site: Site | None = None
    settings: FisherSettings | None = None
    bounded: Parts | None = None

    @property
    def bound(self) -> StepBound:
        """The step bound that the layer asks for."""
        return BOUNDS[self.settings.step_bound if self.settings is not None else "none"]

    @property
    def kl_bound(self) -> float:
        """The bound of the trust region; infinite where there is none."""
        return self.settings.kl_bound if self.settings is not None else math.inf

    @property
    def gradient(self) -> Tensor:
        """The gradients in one matrix, ``[*lead, d_out, d]``; a copy where there are two."""
        return self.gradients[0] if self.site is None else join(self.gradients)

    def reconstructed(self) -> Tensor:
        """``∇_W′ = ∇ R``, shaped as `gradient`; the gradient itself for a plain parameter."""
        if self.root is None:
            return self.gradient
        return self.root.apply(self.gradient) if len(self.gradients) == 1 else self.root.apply_(self.gradient)

    def natural(self) -> Parts:
        """``∇ (G + λI)⁻¹``; the gradient itself for a plain parameter."""
        return self.gradients if self.root is None else self.root.natural(self.gradients)

    def accumulate(self, into: Parts, momentum: float) -> None:
        """``into ← momentum · into + natural gradient``, bounded, in place."""
        if self.bounded is None and self.root is not None:
            self.root.accumulate(self.gradients, into, momentum, self.length if self.bound.graft else None)
            return
        for kept, each in zip(into, self.gradients if self.bounded is None else self.bounded, strict=True):
            kept.mul_(momentum).add_(each)

    def matrices(self, parts: Parts) -> Parts:
        """Tensors shaped as the parameters in the shapes of the gradients."""
        return parts if self.site is None else self.site.matrices(parts)

    def shaped(self, matrices: Parts) -> Parts:
        """Inverse of `matrices`; views where the layer's parameters allow it."""
        return matrices if self.site is None else self.site.shaped(matrices, self.parameters)

    def squared_length(self, displacement: Tensor) -> Tensor:
        """``Δ (G + λI) Δᵀ = ‖Δ R⁻ᵀ‖²`` of a displacement ``Δ`` shaped as `gradient`, ``[]``; ``R = I`` if plain."""
        moved = displacement if self.root is None else self.root.solve_transpose(displacement)
        return moved.square().sum()


class Base(ABC):
    """A first-order method in the coordinates of the reconstruction."""

    #: As `make_base` takes it.
    name: ClassVar[str]
    #: Learning rate where none is given.
    default_lr: ClassVar[float]
    #: What a parameter group holds for it beside ``lr`` and ``weight_decay``, with the values where none are given.
    hyperparameters: ClassVar[Mapping[str, Any]]
    #: Whether a step is as long as the natural gradient.
    scales_with_gradients: ClassVar[bool]

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

    name = "sgd"
    default_lr = 0.1
    hyperparameters: ClassVar[Mapping[str, Any]] = {"momentum": 0.9, "nesterov": False}
    scales_with_gradients = True

    def bound(self, steps: Sequence[tuple[Update, float]]) -> None:
        together = [(update, lr) for update, lr in steps if update.bound.joint]
        natural = [update.natural() for update, _ in together]
        products = [
            lr**2 * torch.stack([(g * n).sum() for g, n in zip(update.gradients, direction, strict=True)]).sum()
            for (update, lr), direction in zip(together, natural, strict=True)
        ]
        scales = kl_scale(products, [update.kl_bound for update, _ in together])
        for (update, _), direction, scale in zip(together, natural, scales, strict=True):
            update.bounded = tuple(each * scale for each in direction)

    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        momentum, nesterov = group["momentum"], group["nesterov"]
        directions: list[Tensor] = []
        for update in updates:
            pairs = zip(update.parameters, update.gradients, strict=True)
            velocity = tuple(_velocity(states, parameter, like, keep=momentum > 0) for parameter, like in pairs)
            before = [each * -momentum for each in velocity] if nesterov and momentum else None
            update.accumulate(velocity, momentum)
            if before is not None:
                # With v ← μ v + n, Nesterov's n + μ v is (1 + μ) v less the old μ v.
                velocity = tuple(b.add_(v, alpha=1 + momentum) for b, v in zip(before, velocity, strict=True))
            directions += update.shaped(velocity)
        return directions

    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        """Nothing to do: the momentum is a displacement of ``W``."""


def _velocity(states: States, parameter: Tensor, like: Tensor, keep: bool) -> Tensor:
    """What the natural gradients of a parameter are added to: its momentum, or zeros."""
    if not keep:
        return torch.zeros_like(like)
    state = states[parameter]
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(like, memory_format=torch.contiguous_format)
    velocity: Tensor = state["momentum_buffer"]
    return velocity


class AdamWBase(Base):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on ``W′``.

    Its steps are bounded by ``lr`` in each coordinate, so the step bounds of the settings do not apply.
    """

    name = "adamw"
    default_lr = 1e-3
    hyperparameters: ClassVar[Mapping[str, Any]] = {"betas": (0.9, 0.999), "eps": 1e-8}
    scales_with_gradients = False

    def directions(self, updates: Sequence[Update], states: States, group: Group) -> list[Tensor]:
        # In one piece: the fused kernel goes by addresses alone.
        gradients = [update.reconstructed().contiguous() for update in updates]
        moments = [_moments(states[update.parameters[0]], g) for update, g in zip(updates, gradients, strict=True)]
        directions: list[Tensor] = []
        for update, direction in zip(updates, _adam(gradients, moments, group["betas"], group["eps"]), strict=True):
            joint = direction if update.root is None else update.root.apply_transpose_(direction)
            directions += update.shaped(take_apart(joint, len(update.parameters)))
        return directions

    def rebase(self, state: dict[str, Any], old: RootOperator, new: RootOperator) -> None:
        if "exp_avg" in state:
            state["exp_avg"] = new.apply(old.solve(state["exp_avg"])).contiguous()


def _moments(state: dict[str, Any], gradient: Tensor) -> dict[str, Any]:
    """The state of a parameter, with its steps counted."""
    if "step" not in state:
        state.update(step=0, exp_avg=torch.zeros_like(gradient), exp_avg_sq=torch.zeros_like(gradient))
    state["step"] += 1
    return state


def _adam(
    gradients: Sequence[Tensor], moments: Sequence[Mapping[str, Any]], betas: tuple[float, float], eps: float
) -> list[Tensor]:
    """Adam's directions ``m̂ / (√v̂ + ε)``.

    By torch's own fused kernel, on parameters that start at 0: one pass over all tensors, where single operations would
    take eight over each (of a 784-80-80-80-10 network 92 µs instead of 310, in a step of a millisecond).
    """
    found = [torch.zeros_like(gradient) for gradient in gradients]
    alike: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for i, gradient in enumerate(gradients):
        alike.setdefault((gradient.dtype, gradient.device), []).append(i)
    for (_, device), places in alike.items():
        chosen, fused = [moments[i] for i in places], device.type in _FUSED
        steps = {
            state["step"]: torch.tensor(float(state["step"]), device=device if fused else "cpu") for state in chosen
        }
        update = torch._fused_adamw_ if fused else _single_adam
        update(
            [found[i] for i in places], [gradients[i] for i in places], [state["exp_avg"] for state in chosen],
            [state["exp_avg_sq"] for state in chosen], [], [steps[state["step"]] for state in chosen],
            amsgrad=False, beta1=betas[0], beta2=betas[1], lr=1.0, weight_decay=0.0, eps=eps, maximize=True,
        )  # fmt: skip
    return found


def _single_adam(parameters: list[Tensor], *lists: list[Tensor], **arguments: Any) -> None:
    """The same on a device without the kernel."""
    gradients, averages, squares, _, steps = lists
    before = [step - 1 for step in steps]  # torch counts itself
    adamw(parameters, gradients, averages, squares, [], before, foreach=False, **arguments)


#: The default first: untuned it trains most kinds of models better than the other does (``bench convergence``).
BASES: dict[str, type[Base]] = {base.name: base for base in (AdamWBase, SgdBase)}


def make_base(name: str) -> Base:
    """The base of that name (SettingsError for an unknown one)."""
    if name not in BASES:
        known = ", ".join(BASES)
        raise SettingsError(
            f"base={name!r}: must be one of {known}; any other torch optimizer works with reconstruct()"
        )
    return BASES[name]()


def choose_base(base: str | None, given: Mapping[str, Any]) -> tuple[Base, dict[str, Any]]:
    """A base with its hyperparameters.

    Args:
        base: its name; None: the first in `BASES` that has all that was given.
        given: hyperparameters by name, of any base; None for those that were not given.

    Raises:
        SettingsError: an unknown base, or hyperparameters that it has not.
    """
    values = {name: value for name, value in given.items() if value is not None}
    fitting = [name for name, each in BASES.items() if values.keys() <= each.hyperparameters.keys()]
    chosen = make_base(base if base is not None else next(iter(fitting), next(iter(BASES))))
    for name, value in values.items():
        if name not in chosen.hyperparameters:
            owner = next(other for other, each in BASES.items() if name in each.hyperparameters)
            has = " and ".join(chosen.hyperparameters)
            raise SettingsError(f"{name}={value!r}: must be left out beside {has}; try base={owner!r}")
    return chosen, {**chosen.hyperparameters, **values}
