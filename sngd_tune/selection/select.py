"""`select_settings`: from a model and its batches to settings of its local Fisher layers."""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sngd_tune.core.account import matches
from sngd_tune.core.memory import available
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.selection import LayerProbe, RatePoint, SelectionRecord, StepTime
from sngd_tune.selection.candidates import candidates
from sngd_tune.selection.choose import Budget, Choice, LayerOptions, choose, layer_options
from sngd_tune.selection.cost import CostModel, default_cache
from sngd_tune.selection.figures import layer_probe
from sngd_tune.selection.pricing import BASE, Pricing
from sngd_tune.selection.probe import Probe, ProbePlan, run_probe
from sngd_tune.selection.rate import SCHEDULE, Race, find_rate
from sngd_tune.selection.source import Batch, Batches, LossFunction
from sngd_tune.settings import FisherSettings

__all__ = ["Selection", "select_settings"]

_HELD_OUT = 16, 64  # batches that a rate is judged by, at least and at most
#: Shares of the time: for the short training of the probe, and for all trainings of the rate.
_PROBE, _RATE = 0.2, 0.3  # the second at the least
_FEWEST, _MOST = 40, 4000  # steps of a training of the rate


class Selection(Mapping[str, FisherSettings]):
    """Settings by pattern of the layer, as `SNGD` and `reconstruct` take them; frozen.

    Attributes:
        record: with the reasons and the figures of the probe.

    Args:
        record: of what it consists.
    """

    def __init__(self, record: SelectionRecord):
        self.record = record
        self._settings = record.settings

    @property
    def optimizer(self) -> dict[str, Any]:
        """Arguments of `SNGD` beside model and settings: base, learning rate, weight decay."""
        return dict(self.record.optimizer)

    def __getitem__(self, pattern: str) -> FisherSettings:
        return self._settings[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    @classmethod
    def load(cls, path: Path | str) -> "Selection":
        """Read what `save` or ``sngd-tune auto`` wrote. Raises ConfigurationError."""
        from sngd_tune.selection.file import load

        return cls(load(path))

    def save(self, path: Path | str) -> None:
        """Write it as YAML, with the lines that use it; whole or not at all. Raises ConfigurationError."""
        from sngd_tune.selection.file import save

        save(self.record, Path(path))


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """What the user allows."""

    step: float | None
    memory: int | None
    steps: int | None
    seconds: float


def select_settings(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Iterable[Batch],
    *,
    step_budget: float | None = None,
    memory_budget: int | None = None,
    validation: Iterable[Batch] | None = None,
    steps: int | None = None,
    seconds: float = 60.0,
    seed: int = 0,
    subject: str | None = None,
    cost: CostModel | None = None,
) -> Selection:
    """Choose granularity, rank, damping and intervals for each layer of a model, and a learning rate, by measuring it.

    A copy of the model is trained for a moment and looked at (`selection.probe`), what each layer could have is judged
    (`selection.gain`) and priced on this device (`selection.cost`), the best for the budget is chosen
    (`selection.choose`), and the learning rate is found by short trainings (`selection.rate`). The model, its gradients
    and torch's random generators stay as they are.

    Args:
        model: as training begins, on its device.
        loss_fn: ``loss_fn(model(inputs), targets)`` gives the mean loss of the batch, a scalar.
        batches: pairs ``(inputs, targets)`` of the size that training has; a DataLoader, a list, or a generator that
            lasts. Inputs are a tensor, or a tuple or a mapping of arguments of the model.
        step_budget: largest step time over that of plain SGD, ≥ 1; None: the best expected decrease per second.
        memory_budget: bytes that local Fisher layers may keep, > 0; None: what is free.
        validation: pairs to judge learning rates by; None: batches that were not trained on.
        steps: that training will have, ≥ 1; None: more than can be tried here.
        seconds: that the selection may take, about; ≥ 5.
        seed: of what is drawn.
        subject: what the model is called in records; None: its class.
        cost: the costs of this device; None: measured, and cached (`selection.cost.default_cache`).

    Raises:
        ConfigurationError: a value out of range, batches that end early or are no pairs, a loss that is no scalar, a
            budget that nothing is within (with the cheapest choice), or a model without room for a copy.
        ReconstructionError: the model has no layer that can get a local Fisher layer.
        NonFiniteError: the loss is NaN or infinite.
    """
    began = time.perf_counter()
    limits = _Limits(step=step_budget, memory=memory_budget, steps=steps, seconds=seconds)
    _check(model, limits)
    device = next(model.parameters()).device
    supply = Batches(batches, device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(seed)
        probe = run_probe(model, loss_fn, supply, ProbePlan(seconds=_PROBE * seconds, seed=seed))
        pricing = Pricing(cost or CostModel(device, cache=default_cache()), probe, model, loss_fn, supply)
        options, probes = _judge(probe, pricing)
        choice, step = _choose(options, pricing, limits)
        record = _record(choice, step, probes, limits, subject or type(model).__name__, probe.batch_size)
        judged_by = supply if validation is None else Batches(validation, device)
        left = max(seconds - (time.perf_counter() - began), _RATE * seconds)
        rates = _rates(model, record.settings, loss_fn, supply, judged_by, record.step.predicted, limits, left, seed)
    best = rates[0]
    optimizer = {"base": BASE, "lr": best.lr, "weight_decay": best.weight_decay}
    step = dataclasses.replace(record.step, measured=best.step_seconds)
    taken = time.perf_counter() - began
    device_name = pricing.device_in_words()
    return Selection(
        dataclasses.replace(record, optimizer=optimizer, step=step, rates=rates, seconds=taken, device=device_name)
    )


def _check(model: nn.Module, limits: _Limits) -> None:
    if limits.seconds < 5:
        raise ConfigurationError(f"seconds={limits.seconds!r}: must be ≥ 5, as a probe takes that long; try 60")
    if limits.steps is not None and limits.steps < 1:
        raise ConfigurationError(f"steps={limits.steps!r}: must be ≥ 1, or None where it is not known")
    Budget(plain=1.0, sgd=1.0, step=limits.step, memory=limits.memory)
    matches(model, FisherSettings())  # says which layers there are where none can have one
    _check_room(model)


def _check_room(model: nn.Module) -> None:
    """Refuse a model of which no copy fits: the probe trains one, with Adam's state and gradients."""
    parameters = list(model.parameters())
    needed = 4 * sum(parameter.nbytes for parameter in parameters)
    free = available(parameters[0].device)
    if free is not None and needed > free:
        raise ConfigurationError(
            f"{type(model).__name__}: probing trains a copy, which takes some {needed / 2**20:.0f} MiB on"
            f" {parameters[0].device}, and {free / 2**20:.0f} MiB are free; free memory there, or probe a narrower"
            " version and carry its settings over (sngd_tune.selection.transfer)"
        )


def _judge(probe: Probe, pricing: Pricing) -> tuple[list[LayerOptions], tuple[LayerProbe, ...]]:
    options, probes = [], []
    for evidence in probe.layers:
        plain, found = candidates(evidence)
        probes.append(layer_probe(evidence, plain, found))
        options.append(layer_options(evidence.match.name, plain, found, pricing.price(evidence)))
    return options, tuple(probes)


def _choose(options: Sequence[LayerOptions], pricing: Pricing, limits: _Limits) -> tuple[Choice, StepTime]:
    """The choice, and its predicted step, which is within the budget.

    What layers have in common (a forward pass is shown to several of them at once) is known of a whole choice only, so
    where it takes a choice beyond the budget, the next one has so much less.
    """
    budget = pricing.budget(limits.step, limits.memory)
    while True:
        choice = choose(options, budget)
        step = pricing.step(choice.layers)
        excess = step.predicted - limits.step * step.sgd if limits.step is not None else 0.0
        if excess <= 0:
            return choice, step
        budget = dataclasses.replace(budget, common=budget.common + excess)


def _record(
    choice: Choice, step: StepTime, probes: tuple[LayerProbe, ...], limits: _Limits, subject: str, batch_size: float
) -> SelectionRecord:
    """All that is known before the learning rate is."""
    return SelectionRecord(
        subject=subject,
        batch_size=batch_size,
        optimizer={"base": BASE},
        lr_schedule=SCHEDULE,
        layers=choice.layers,
        probes=probes,
        step=step,
        step_budget=limits.step,
        memory_budget=limits.memory,
        gain=choice.progress,
        bound=choice.bound,
    )


def _rates(
    model: nn.Module,
    settings: Mapping[str, FisherSettings],
    loss_fn: LossFunction,
    supply: Batches,
    judged_by: Batches,
    step_seconds: float,
    limits: _Limits,
    seconds: float,
    seed: int,
) -> tuple[RatePoint, ...]:
    """Short trainings, the chosen one first; some five fit into the time."""
    affordable = int(seconds / 5 / step_seconds)
    steps = min(max(affordable, _FEWEST), limits.steps or _MOST, _MOST)
    held_out = [judged_by.take() for _ in range(min(max(steps // 10, _HELD_OUT[0]), _HELD_OUT[1]))]
    race = Race(model, settings, loss_fn, supply, held_out, steps, seed)
    rates = find_rate(race, seconds, whole=limits.steps is not None and steps >= limits.steps / 2)
    if math.isnan(rates[0].loss):
        raise ConfigurationError(
            f"{type(model).__name__}: every short training diverged, down to a learning rate of"
            f" {min(point.lr for point in rates):g}; look at the scale of inputs and targets"
        )
    return rates
