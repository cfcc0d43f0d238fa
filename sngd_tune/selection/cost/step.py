"""What a whole step takes on the user's model and batches: plain, and in the fused form under a reference setting."""

import copy
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.core.account import matches
from sngd_tune.core.bases import BASES
from sngd_tune.core.layers.base import Seen
from sngd_tune.core.observers import Observers
from sngd_tune.core.optimizer import SNGD
from sngd_tune.errors import ConfigurationError
from sngd_tune.selection.cost.timing import now
from sngd_tune.settings import FisherSettings

__all__ = ["REFERENCE", "PlainStep", "StepCost", "time_plain"]

#: From which choices are told.
REFERENCE = FisherSettings()

_LR = 1e-16  # the model stays what it is, even on raw features
_TURN = 0.02  # seconds of one optimizer's steps until it is another's turn: enough of them that the caches are its own
_FEWEST = 2  # turns of each
_NEVER = 1000  # steps: few of those that are timed, and the schedule does not look far ahead

LossFunction = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class PlainStep:
    """Seconds of the parts of a step; medians.

    Attributes:
        passes: forward and backward pass, and the gradients' removal before.
        backward: of these, the backward pass.
        steps: of the torch optimizer that is the base, by its name.
        reference: of `SNGD` under `REFERENCE`, by base, without statistics and refreshes.
        observed: what a step of `SNGD` under `REFERENCE` takes longer for each module whose layers take statistics in
            it; 0 where a step is so slow that it would not show.
        shown: to bring a forward pass into the form in which statistics are taken, by the name of the module.
    """

    passes: float
    backward: float
    steps: Mapping[str, float]
    reference: Mapping[str, float]
    observed: float
    shown: Mapping[str, float]

    def seconds(self, base: str) -> float:
        """A whole step with the plain base optimizer."""
        return self.passes + self.steps[base]


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Seconds of a whole step, on average over the intervals.

    Attributes:
        seconds: predicted, with the local Fisher layers.
        sgd: with plain SGD.
        plain: with the plain base optimizer.
        measured: whether no part is extrapolated.
    """

    seconds: float
    sgd: float
    plain: float
    measured: bool

    @property
    def ratio(self) -> float:
        """Over plain SGD's."""
        return self.seconds / self.sgd


def time_plain(model: nn.Module, loss: LossFunction, batches: Sequence[Any], seconds: float = 1.0) -> PlainStep:
    """Time steps of plain optimizers and of the reference, by turns, on a copy of the model.

    The model, its gradients, its mode and torch's random numbers stay as they are.

    Args:
        model: as training has it.
        loss: gives the mean loss of a model on a batch.
        batches: at least one, on the model's device.
        seconds: that the turns may take together; each optimizer has two at the least.

    Raises:
        ConfigurationError: there is no batch.
        ReconstructionError: no layer of the model can get a local Fisher layer.
    """
    if not batches:
        raise ConfigurationError("batches=[]: must be at least one, as steps are timed on them; pass a few of training")
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        own, other = (copy.deepcopy(model).train() for _ in range(2))
        shown = _shown(own, loss, batches[0], device)
        return _result(_take_turns(_trainees(own, other, loss, batches), seconds), shown)


@dataclass(frozen=True)
class _Parts:
    """Seconds of one step, of the backward pass within the passes, and how many modules took statistics."""

    passes: float
    backward: float
    step: float
    observed: int


class _Trainee:
    """A model with one of its optimizers; each call is one step."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: LossFunction, batches: Sequence[Any]
    ) -> None:
        self._model, self._optimizer, self._loss, self._batches = model, optimizer, loss, cycle(batches)
        self._device = next(model.parameters()).device
        self._layers = optimizer.layers if isinstance(optimizer, SNGD) else {}
        self._modules = {match.name: match.path for match in matches(model, REFERENCE)}

    def __call__(self) -> _Parts:
        batch = next(self._batches)
        observed = {self._modules[name] for name, layer in self._layers.items() if layer.observing}
        start = now(self._device)
        self._optimizer.zero_grad()
        loss = self._loss(self._model, batch)
        forward = now(self._device)
        loss.backward()
        passes = now(self._device)
        self._optimizer.step()
        return _Parts(passes - start, passes - forward, now(self._device) - passes, len(observed))


def _trainees(own: nn.Module, other: nn.Module, loss: LossFunction, batches: Sequence[Any]) -> dict[str, _Trainee]:
    """By name, warm. One model serves all that do not look at it; what takes statistics has another."""
    trainees: dict[str, _Trainee] = {}
    for name, make in _OPTIMIZERS.items():
        model = other if name == _OBSERVING else own
        trainees[name] = _Trainee(model, make(model), loss, batches)
        trainees[name]()  # `SNGD` looks at the model up to its first step
    return trainees


def _take_turns(trainees: Mapping[str, _Trainee], seconds: float) -> dict[str, list[_Parts]]:
    """Their steps: at least two turns of each."""
    warm = trainees["sgd"]()
    turn = max(1, math.ceil(_TURN / (warm.passes + warm.step)))
    taken: dict[str, list[_Parts]] = defaultdict(list)
    start = time.perf_counter()
    while len(taken["sgd"]) < _FEWEST * turn or time.perf_counter() - start < seconds:
        for name, trainee in trainees.items():
            taken[name] += [trainee() for _ in range(turn)]
    return taken


def _result(taken: Mapping[str, Sequence[_Parts]], shown: Mapping[str, float]) -> PlainStep:
    def median(part: str, *names: str) -> float:
        return statistics.median(getattr(parts, part) for name in names for parts in taken[name])

    alike = [name for name in taken if name != _OBSERVING]
    passes, quiet = median("passes", *alike), median("step", _reference("sgd"))
    beyond = [(each.passes + each.step - passes - quiet) / each.observed for each in taken[_OBSERVING] if each.observed]
    return PlainStep(
        passes=passes,
        backward=median("backward", *alike),
        steps={base: median("step", base) for base in BASES},
        reference={base: median("step", _reference(base)) for base in BASES},
        observed=max(0.0, statistics.median(beyond)) if passes < _TURN and beyond else 0.0,
        shown=shown,
    )


def _shown(model: nn.Module, loss: LossFunction, batch: Any, device: torch.device) -> dict[str, float]:
    """Seconds to bring a forward pass into the form in which it is shown, by the name of the module."""
    found = matches(model, REFERENCE)
    clocks = {match.name: _Clock(device) for match in found}
    observers = Observers(found, clocks)
    for _ in range(2):  # the second is warm
        loss(model, batch)
    observers.close()
    first = {match.path: match.name for match in reversed(found)}  # a module's sites are shown together
    return {path: clocks[name].seconds for path, name in first.items()}


class _Clock:
    """Stands where a `LocalFisher` would: what lies between its two calls is the making of what it is shown."""

    observing = True

    def __init__(self, device: torch.device):
        self._device, self._start, self.seconds = device, 0.0, 0.0

    def follow(self, weight: Tensor) -> None:
        self._start = now(self._device)

    def observe(self, seen: Seen) -> None:
        self.seconds = now(self._device) - self._start


#: Its layers take turns, so that their statistics find the caches as in training.
_OBSERVING = "reference on sgd, with statistics"
_OBSERVING_INTERVAL = 10


def _reference(base: str) -> str:
    return f"reference on {base}"


def _sngd(model: nn.Module, base: str, statistics_interval: int = _NEVER) -> SNGD:
    """Under the reference, with a refresh in the first step alone."""
    settings = replace(
        REFERENCE,
        absolute_damping=1e-6,  # so that a layer without inputs has a root
        fisher_interval=_NEVER,
        statistics_interval=statistics_interval,
        warmup_batches=0,
        refresh_schedule="fixed",
    )
    return SNGD(model, settings, base=base, lr=_LR)


_OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9, fused=True),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=_LR, fused=True),
    _reference("sgd"): lambda model: _sngd(model, "sgd"),
    _reference("adamw"): lambda model: _sngd(model, "adamw"),
    _OBSERVING: lambda model: _sngd(model, "sgd", statistics_interval=_OBSERVING_INTERVAL),
}
