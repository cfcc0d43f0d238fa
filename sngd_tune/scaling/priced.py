"""What a model that no training was run on would take on this machine, by the cost model of auto-selection.

Beside the laws, which carry measurements of other sizes over, this looks at the size itself: bytes are told from
shapes, and a step is put together from operations that are timed on this device (`selection.cost`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sngd_tune.core.account import matches
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import PARAMETERS
from sngd_tune.records.strict import Scalar
from sngd_tune.records.trial import TrialConfig
from sngd_tune.selection.cost import REFERENCE, CostModel
from sngd_tune.selection.cost.cache import default_cache
from sngd_tune.selection.observation import observe
from sngd_tune.workloads.registry import find_workload, load_data, scaled_name
from sngd_tune.workloads.workload import Split, Workload

__all__ = ["PricedStep", "SizedTrial", "price_step", "sized_trial"]

_BATCHES = 4  # that plain steps are timed on
_SECONDS = 1.0  # that they may take


@dataclass(frozen=True)
class SizedTrial:
    """A trial of a method on a workload of other sizes."""

    trial: TrialConfig
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class PricedStep:
    """Seconds of a step on this machine.

    Attributes:
        seconds: with the method.
        sgd: with plain SGD.
        measured: whether every operation was timed at full size; else the largest are told from smaller ones.
    """

    seconds: float
    sgd: float
    measured: bool


def sized_trial(workload: str, parameters: Mapping[str, Scalar], sizes: Mapping[str, float]) -> SizedTrial:
    """The trial with these values of the axes; those that are neither of the workload nor of a trial change nothing.

    Args:
        workload: as `find_workload` takes it.
        parameters: of the method, flat.
        sizes: by axis.

    Raises:
        ConfigurationError: an unknown workload, a value out of range, or a size that is not a whole number.
    """
    axes = find_workload(workload).axes
    chosen = {axis: _whole(axis, value) for axis, value in sizes.items() if axis in axes}
    values = {axis: _like(parameters.get(axis), value) for axis, value in sizes.items() if axis in PARAMETERS}
    name = scaled_name(workload, chosen)
    trial = TrialConfig.from_flat({**parameters, **values}, workload=name, epochs=1, seed=0)
    return SizedTrial(trial, find_workload(name))


def price_step(sized: SizedTrial, data_dir: Path | None) -> PricedStep:
    """Time what a step is made of, on this machine's CPU and in this process's threads.

    Raises:
        ConfigurationError: the data is missing, or the method is one that the cost model has no price of.
        SngdTuneError: as `CostModel.step`.
    """
    trial, workload = sized.trial, sized.workload
    base = _base(trial)
    batches = _batches(load_data(trial.workload, data_dir).train, trial.batch_size)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return workload.loss(network(batch[0]), batch[1])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        model, costs = workload.model().train(), CostModel(cache=default_cache())
        plain = costs.plain(model, loss, batches, _SECONDS)
        if trial.fisher is None:
            return PricedStep(seconds=plain.seconds(base), sgd=plain.seconds("sgd"), measured=True)
        found = matches(model, REFERENCE)
        _, seen = observe(model, found, lambda: loss(model, batches[0]))
        settings = {match.name: match.settings for match in matches(model, trial.fisher)}
        step = costs.step(plain, found, seen, settings, base)
    return PricedStep(seconds=step.seconds, sgd=step.sgd, measured=step.measured)


def _base(trial: TrialConfig) -> str:
    """The torch optimizer that the cost model knows it by."""
    method, base = trial.optimizer.method, trial.optimizer.base
    if method == "sngd" and trial.optimizer.form != "explicit":
        return str(base)
    if method in ("sgd", "adamw"):
        return method
    raise ConfigurationError(f"optimizer={method!r}: has no price; the cost model knows fused sngd, adamw and sgd")


def _batches(train: Split, size: int) -> Sequence[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).numpy()
    drawn = [order.take(range(size * k, size * (k + 1)), mode="wrap") for k in range(_BATCHES)]
    return [(torch.from_numpy(train.inputs[index]), torch.from_numpy(train.targets[index])) for index in drawn]


def _whole(axis: str, value: float) -> int:
    if value != int(value):
        raise ConfigurationError(f"{axis}={value:g}: must be a whole number; try {round(value)}")
    return int(value)


def _like(before: Scalar | None, value: float) -> float | int:
    """A whole number stays one, as parameters are typed."""
    return int(value) if value == int(value) and not isinstance(before, float) else value
