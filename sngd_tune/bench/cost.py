"""``sngd-tune bench cost``: the step time that the cost model predicts, over the one that is measured.

The tasks of ``bench step``, and workloads on their data. Every round calibrates a cost model from nothing, predicts a
step under each setting, and then lets each setting, and SGD, train its own copy of the model for one Fisher interval,
by turns: prediction and measurement meet the same machine. A ratio is that of one round, with its quartiles over the
rounds. Intervals are 50 and 25 steps (the defaults), or 10 and 5 where a step is slow; refreshes come at regular
intervals from the first step on.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.bench.interleave import interleave_steps, median_ratio
from sngd_tune.bench.tasks import BLOCK, TASKS, Batch, Learner, Task
from sngd_tune.core.account import Match, matches
from sngd_tune.core.optimizer import SNGD
from sngd_tune.errors import ConfigurationError
from sngd_tune.selection.cost import REFERENCE, CostModel, StepCost
from sngd_tune.selection.observation import observe
from sngd_tune.settings import FisherSettings
from sngd_tune.workloads.registry import find_workload, load_data

__all__ = ["CHOICES", "Choice", "measure"]

_BASELINE = "sgd"
_LR = 1e-16  # of no effect on the price, and none may diverge
_TURN_SECONDS = 0.1
_PLAIN_SECONDS = 0.5  # of each round, for plain steps
_SLOW_SECONDS = 0.01  # of an SGD step, from where intervals are short
_SHORT = 10  # steps


@dataclass(frozen=True)
class Choice:
    """Settings for the layers of any model.

    Attributes:
        base: base optimizer.
        settings: of the layer of a site, the number of which among the model's is given.
    """

    base: str
    settings: Callable[[Match, int], FisherSettings]


def _same(base: str = "adamw", **settings: Any) -> Choice:
    return Choice(base, lambda match, number: FisherSettings(**settings))


def _kron(match: Match, number: int) -> FisherSettings:
    return FisherSettings(granularity="kron") if match.site.gradients else REFERENCE


def _mixed(match: Match, number: int) -> FisherSettings:
    kinds = ({"rank": 4}, {"granularity": "block:64"}, {"root": "cholesky"}, {"granularity": "diagonal"})
    return FisherSettings(**kinds[number % len(kinds)])


#: By name.
CHOICES: dict[str, Choice] = {
    "default": _same(),
    "default on sgd": _same("sgd"),
    "rank 4": _same(rank=4),
    "block:64": _same(granularity="block:64"),
    "input, dense": _same(root="cholesky"),
    "input, dense on sgd": _same("sgd", root="cholesky"),
    "kron": Choice("adamw", _kron),
    "mixed": Choice("adamw", _mixed),
}


@dataclass(frozen=True)
class _Problem:
    """What is trained.

    Attributes:
        model: makes it; the caller seeds.
        loss: of a model on a batch.
        batches: of training.
    """

    model: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    batches: Sequence[Batch]


def measure(
    tasks: Sequence[str],
    workloads: Sequence[str] = (),
    data_dir: Path | None = None,
    rounds: int = 5,
    batch_size: int = 128,
    threads: int = 1,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per task or workload, and choice.

    ``task, setting, threads, interval, predicted_milliseconds, milliseconds, predicted_ratio`` and ``ratio_amortized``
    (over SGD), ``predicted_over_measured, lower_quartile, upper_quartile, calibration_seconds`` (of a round, for all
    choices together), ``extrapolated`` (whether any layer's cost is).

    Args:
        tasks: names from `bench.tasks.TASKS`.
        workloads: registered names, or ``module:attribute``.
        data_dir: the user's data directory.
        rounds: ≥ 1.
        batch_size: examples of a workload's batch.
        threads: CPU threads of torch.
        announce: is told what is measured next.

    Raises:
        ConfigurationError: an unknown task or workload, or data that is not there.
    """
    for name in tasks:
        if name not in TASKS:
            raise ConfigurationError(f"task {name!r}: must be one of {', '.join(TASKS)}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = []
        for name in (*tasks, *workloads):
            announce(name)
            problem = _task(TASKS[name]) if name in tasks else _workload(name, data_dir, batch_size)
            rows += [{"task": name, "threads": threads, **row} for row in _rows(problem, rounds)]
            gc.collect()
        return rows
    finally:
        torch.set_num_threads(before)


def _task(task: Task) -> _Problem:
    return _Problem(task.model, lambda model, batch: Learner.loss(model(batch[0]), batch[1]), task.batches())


def _workload(name: str, data_dir: Path | None, batch_size: int) -> _Problem:
    workload, train = find_workload(name), load_data(name, data_dir).train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    size = min(batch_size, len(train))
    drawn = [order[(size * k) % (len(train) - size + 1) :][:size].numpy() for k in range(BLOCK)]
    batches = [(torch.from_numpy(train.inputs[index]), torch.from_numpy(train.targets[index])) for index in drawn]
    return _Problem(workload.model, lambda model, batch: workload.loss(model(batch[0]), batch[1]), batches)


class _Entrant:
    """A model under an optimizer; each call is one step on the next batch."""

    def __init__(self, problem: _Problem, make: Callable[[nn.Module], torch.optim.Optimizer]):
        torch.manual_seed(0)
        self._model, self._problem, self._batches = problem.model().train(), problem, cycle(problem.batches)
        self._optimizer = make(self._model)

    def __call__(self) -> None:
        self._optimizer.zero_grad()
        self._problem.loss(self._model, next(self._batches)).backward()
        self._optimizer.step()


def _rows(problem: _Problem, rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = problem.model()
    sgd = _Entrant(problem, lambda model: torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9, fused=True))
    quick = _seconds(sgd)
    interval = BLOCK if quick < _SLOW_SECONDS else _SHORT
    settings = {name: _settings(choice, model, interval) for name, choice in CHOICES.items()}
    entrants = {_BASELINE: sgd, **{name: _entrant(problem, name, settings[name]) for name in CHOICES}}
    turn = max(1, min(interval, math.ceil(_TURN_SECONDS / quick)))
    predicted: list[_Prediction] = []
    measured: dict[str, list[float]] = {name: [] for name in entrants}
    for _ in range(rounds):
        predicted.append(_predict(problem, model, settings))
        for name, (block,) in interleave_steps(entrants, 1, interval, turn).items():
            measured[name].append(statistics.fmean(block))
    return [
        {"setting": name, "interval": interval, **_figures(name, predicted, measured[name], measured[_BASELINE])}
        for name in CHOICES
    ]


def _settings(choice: Choice, model: nn.Module, interval: int) -> dict[str, FisherSettings]:
    """By the name of the site; refreshes come at regular intervals from the first step on."""
    regular = {"fisher_interval": interval, "statistics_interval": interval // 2, "warmup_batches": 0}
    return {
        match.name: replace(choice.settings(match, number), refresh_schedule="fixed", **regular)  # type: ignore[arg-type]
        for number, match in enumerate(matches(model, REFERENCE))
    }


def _entrant(problem: _Problem, name: str, settings: Mapping[str, FisherSettings]) -> _Entrant:
    """Warm: its first steps are the one in which all layers refresh, and one as any other."""
    entrant = _Entrant(problem, lambda model: SNGD(model, settings, base=CHOICES[name].base, lr=_LR))
    entrant()
    entrant()
    return entrant


@dataclass(frozen=True)
class _Prediction:
    """Of one round: the step under each choice, and the seconds that it took to tell."""

    steps: Mapping[str, StepCost]
    seconds: float


def _predict(problem: _Problem, model: nn.Module, settings: Mapping[str, Mapping[str, FisherSettings]]) -> _Prediction:
    start = time.perf_counter()
    costs, found = CostModel(), matches(model, REFERENCE)
    _, seen = observe(model, found, lambda: problem.loss(model, problem.batches[0]))
    plain = costs.plain(model, problem.loss, problem.batches, _PLAIN_SECONDS)
    steps = {name: costs.step(plain, found, seen, settings[name], CHOICES[name].base) for name in CHOICES}
    return _Prediction(steps, time.perf_counter() - start)


def _figures(
    name: str, predicted: Sequence[_Prediction], measured: list[float], base: Sequence[float]
) -> dict[str, Any]:
    steps = [each.steps[name] for each in predicted]
    median, lower, upper = median_ratio([step.seconds for step in steps], measured)
    return {
        "predicted_milliseconds": round(statistics.median(step.seconds for step in steps) * 1e3, 3),
        "milliseconds": round(statistics.median(measured) * 1e3, 3),
        "predicted_ratio": round(statistics.median(step.ratio for step in steps), 3),
        "ratio_amortized": round(statistics.median(m / b for m, b in zip(measured, base, strict=True)), 3),
        "predicted_over_measured": round(median, 3),
        "lower_quartile": round(lower, 3),
        "upper_quartile": round(upper, 3),
        "extrapolated": not steps[0].measured,
        "calibration_seconds": round(statistics.median(each.seconds for each in predicted), 2),
    }


def _seconds(step: Callable[[], None]) -> float:
    """Of the fastest of some steps, so that what else the machine does decides nothing."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return min(taken)
