"""The largest trials of a study, as the cost model of auto-selection predicts them."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from sngd_tune.core.memory import predicted_memory
from sngd_tune.errors import ReconstructionError
from sngd_tune.records.names import split
from sngd_tune.records.study import SpaceEntry, StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.space import SearchSpace
from sngd_tune.workloads.workload import Workload

__all__ = ["largest_trials", "state_bytes"]

#: Trials drawn from the space.
_SAMPLES = 128
#: Parameters of which the largest value needs the most memory.
_GROWING = ("batch_size", "rank", "block")


def largest_trials(config: StudyConfig, workload: Workload) -> list[TrialConfig]:
    """For each method that the study may draw, the trial whose local Fisher layers and optimizer are predicted largest.

    They are short: two epochs of two steps, the first of which takes statistics alone, and the second refreshes all
    roots. Of data-parallel trials it is the part of one worker.

    Args:
        config: the study.
        workload: its model.
    """
    space, seed = SearchSpace(config), config.search.seed
    with torch.random.fork_rng():
        model = workload.model()
    drawn = [_grown(values, config) for values in (space.defaults(), *space.samples(_SAMPLES, seed))]
    largest: dict[str, tuple[int, TrialConfig]] = {}
    for values in {repr(values): values for values in drawn}.values():
        trial = TrialConfig.from_flat(values, workload=config.workload, epochs=2, seed=seed, test=True)
        size = state_bytes(trial, model)
        if size >= largest.get(trial.optimizer.method, (0, trial))[0]:
            largest[trial.optimizer.method] = size, trial
    workers = config.search.resources.workers
    return [_shortened(trial, -(-trial.batch_size // workers)) for _, trial in largest.values()]


def _grown(values: Mapping[str, Any], config: StudyConfig) -> dict[str, Any]:
    """A trial's values, those that memory grows with at the largest that the study has for them."""
    grown = dict(values)
    for name in grown.keys() & config.space.keys():
        if split(name)[0] in _GROWING:
            grown[name] = max([*_numbers(config.space[name]), grown[name]], key=_as_number)
    if grown.get("optimizer", "sngd") == "sngd":
        grown["warmup_batches"] = 1
    return grown


def _numbers(entries: Iterable[SpaceEntry]) -> list[Any]:
    return [v for entry in entries for v in (*(entry.choices or ()), entry.high) if isinstance(v, int | float)]


def _as_number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else -math.inf


def state_bytes(trial: TrialConfig, model: torch.nn.Module) -> int:
    """Bytes of local Fisher layers, of a refresh, and of the base's momenta, predicted; the model may be a meta one."""
    optimizer = trial.optimizer
    momenta = sum(p.nbytes for p in model.parameters()) * (2 if optimizer.base == "adamw" else 1)
    form = "explicit" if optimizer.form == "explicit" else optimizer.base
    if trial.fisher is None:
        return momenta
    try:
        layers = predicted_memory(model, trial.fisher, form=form).values()
    except ReconstructionError:  # the trial itself will say so
        return momenta
    return momenta + sum(layer.kept for layer in layers) + max(layer.peak for layer in layers)


def _shortened(trial: TrialConfig, batch_size: int) -> TrialConfig:
    return dataclasses.replace(trial, batch_size=batch_size, epoch_examples=2 * batch_size)
