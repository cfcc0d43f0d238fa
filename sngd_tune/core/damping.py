"""The damping ``λ``: its base value, and policies that multiply it while training goes on.

``λ = factor · (relative · mean(diag G) + absolute)``; with ``relative_damping`` 0 it is constant, with
``absolute_damping`` 0 proportional to the trace. ``"fixed"`` leaves the factor at 1. ``"levenberg_marquardt"`` moves it
by how well the quadratic model predicts what a step gains (Martens and Grosse 2015, section 6.5; Moré 1978).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sngd_tune.core.bases import Update
from sngd_tune.core.operators import join
from sngd_tune.errors import SettingsError
from sngd_tune.settings import FisherSettings

__all__ = ["Adaptation", "Damped", "LevenbergMarquardt", "QuadraticModel", "Reduction", "base_damping"]


def base_damping(mean_diagonal: Tensor, settings: FisherSettings) -> Tensor:
    """``relative · mean(diag G) + absolute``, of the shape of `mean_diagonal`."""
    return settings.relative_damping * mean_diagonal + settings.absolute_damping


@dataclass(frozen=True)
class Reduction:
    """What a step gained.

    Attributes:
        predicted: by the quadratic model, in units of the loss.
        actual: the loss before the step less the loss after it, on the same batch.
    """

    predicted: float
    actual: float


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Martens and Grosse's rule: the factor shrinks while the model is right, and grows where it promised too much.

    Attributes:
        interval: steps between looks, each of which evaluates the closure once more.
        rate: ω: the factor is multiplied by ``ω^±interval``.
        trust: ratios of actual to predicted reduction below which the factor grows, and above which it shrinks.
        bounds: of the factor.
    """

    interval: int = 5
    rate: float = 19 / 20
    trust: tuple[float, float] = (0.25, 0.75)
    bounds: tuple[float, float] = (1e-4, 1e4)

    def due(self, step: int) -> bool:
        """Whether the gain of `step` is measured; the warm-up (negative steps) moves nothing."""
        return step >= 0 and step % self.interval == 0

    def adapt(self, factor: float, reduction: Reduction) -> float:
        """The factor for the steps to come.

        A model that predicts no gain (momentum may carry a step uphill) is judged by the sign of the actual one, and a
        loss that is not finite is the worst of losses.
        """
        actual = reduction.actual if math.isfinite(reduction.actual) else -math.inf
        promised = max(reduction.predicted, 0.0)
        if actual < self.trust[0] * promised:
            factor /= self.rate**self.interval
        elif actual > self.trust[1] * promised:
            factor *= self.rate**self.interval
        return min(max(factor, self.bounds[0]), self.bounds[1])


class QuadraticModel:
    """``M(Δ) = ⟨∇, Δ⟩ + ½ Σ Δ (G + λI) Δᵀ`` around the parameters as they are when it is made.

    ``Δ (G + λI) Δᵀ`` is ``‖Δ R⁻ᵀ‖²``, so the root is all that is needed. Plain parameters have ``R = I``, the metric
    in which the base optimizer moves them.

    Args:
        updates: every parameter that the step moves, with its gradient.
    """

    def __init__(self, updates: Sequence[Update]):
        self._updates = updates
        self._before = [tuple(p.detach().clone() for p in update.parameters) for update in updates]

    def reduction(self) -> float:
        """``−M(Δ)`` for the way the parameters have gone since. The gradients have to be those of before."""
        parts = [self._change(update, before) for update, before in zip(self._updates, self._before, strict=True)]
        return -float(torch.stack(parts).sum())

    @staticmethod
    def _change(update: Update, before: Sequence[Tensor]) -> Tensor:
        changes = tuple(p.detach() - old for p, old in zip(update.parameters, before, strict=True))
        gradient, moved = update.gradient, join(update.matrices(changes))
        moved = moved.to(gradient.dtype)
        return ((gradient * moved).sum() + update.squared_length(moved) / 2).double()


class Damped(Protocol):
    """What the policy has to know of a local Fisher layer."""

    settings: FisherSettings
    damping_factor: float

    @property
    def step(self) -> int:
        """The coming step."""


class Adaptation:
    """The factor that the layers under ``"levenberg_marquardt"`` share.

    It is kept in the layers, with their counters, so that checkpoints hold it.

    Args:
        layers: of the model; those under another policy are left alone.
        policy: the rule.
    """

    def __init__(self, layers: Sequence[Damped], policy: LevenbergMarquardt = LevenbergMarquardt()):
        self._layers = [layer for layer in layers if layer.settings.damping_policy == "levenberg_marquardt"]
        self._policy = policy
        #: Of the last step that was measured, in this process.
        self.reduction: Reduction | None = None

    @property
    def active(self) -> bool:
        """Whether there is a layer under the policy."""
        return bool(self._layers)

    def require(self, closure: object) -> None:
        """Refuse a step without a closure where one is needed (SettingsError)."""
        if self.active and closure is None:
            raise SettingsError(
                "damping_policy='levenberg_marquardt': must have the loss after a step, so step() needs a closure that"
                " evaluates the model and returns the loss; try optimizer.step(closure), or damping_policy='fixed'"
            )

    def model(self, updates: Sequence[Update]) -> QuadraticModel | None:
        """The prediction for the step that is about to be taken, where its gain is measured."""
        due = self.active and self._policy.due(self._layers[0].step - 1)  # the schedule has closed it
        return QuadraticModel(updates) if due else None

    def adapt(self, model: QuadraticModel, loss: float, evaluate: Callable[[], float]) -> None:
        """Move the factor by what the step gained.

        Args:
            model: as `model` gave it before the step.
            loss: before the step.
            evaluate: the loss after it; may overwrite the gradients.
        """
        predicted = model.reduction()
        self.reduction = Reduction(predicted, loss - evaluate())
        factor = self._policy.adapt(self._layers[0].damping_factor, self.reduction)
        for layer in self._layers:
            layer.damping_factor = factor
