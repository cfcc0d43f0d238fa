"""A study around what auto-selection found: few parameters, in ranges that the selection has made small.

Searched are what a probe of some seconds cannot see to the end: the learning rate, weight decay, Adam's second decay,
one factor for all dampings, and, for the layers with most at stake (`search.stakes`), rank or granularity. All else is
fixed to the selection, and the selection itself is the first trial.
"""

import math
from collections.abc import Mapping
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import split
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.records.study import SpaceEntry, StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.checks import find_problems
from sngd_tune.search.flat import flat, layer_pattern
from sngd_tune.search.stakes import Stake, entries, stakes

__all__ = ["auto_study", "explain"]

#: Around the learning rate: a selection finds it to a factor of two, on trainings that are mostly shorter.
_LR_FACTOR = 4.0
_WEIGHT_DECAY = (1e-3, 0.5)
_DAMPING_SCALE = (0.1, 10.0)
_BETA2 = (0.99, 0.999)
#: Where the selection decays nothing, a logarithmic range cannot hold it.
_DECAYS_AND_NONE = (0.0, 1e-3, 1e-2, 0.1, 0.3)

_Space = dict[str, list[SpaceEntry]]


def auto_study(record: SelectionRecord, base: StudyConfig, trials: int) -> StudyConfig:
    """The study that searches around a selection.

    Args:
        record: of the selection.
        base: gives all but what is searched: name, workload, length, objectives, seeds, early stopper, confirmation,
            mirror, and the batch size where it is fixed there.
        trials: of the search, ≥ 1; the first is the selection itself.

    Raises:
        ConfigurationError: the selection cannot be written as parameters (`search.flat`), or the study breaks a rule
            of studies, which can come from `base` only.
    """
    selected = flat(record)
    if "batch_size" in base.fixed:
        selected["batch_size"] = base.fixed["batch_size"]
    space, start = _training(selected, base)
    layers = [choice.layer for choice in record.layers]
    for stake in stakes(record):
        pattern = layer_pattern(stake.layer, layers)
        found = dict(entries(stake, pattern))
        space |= found
        start |= {name: stake.options[0][split(name)[0]] for name in found if split(name)[0] in stake.options[0]}
    study = base.model_dump(by_alias=True) | {
        "fixed": {name: value for name, value in selected.items() if name not in space},
        "space": space,
        "start": [start],
    }
    study["search"]["trials"] = trials
    return _checked(StudyConfig.model_validate(study))


def explain(record: SelectionRecord) -> list[str]:
    """Where the study of a selection comes from, in lines for people."""
    origin = f"Around the settings selected for {record.subject}, which the first trial has as they are."
    if math.isfinite(record.step.ratio):
        origin += f" Their step was predicted to take {record.step.ratio:.2f} × that of SGD."
    return [origin, *map(_said, stakes(record))]


def _said(stake: Stake) -> str:
    chosen, *others = stake.names
    share = f"{100 * stake.share:.0f} % of the expected decrease"
    return (
        f"Searched in {stake.layer or 'the model'}, {share}: selected was {chosen}; as good may be {', '.join(others)}"
    )


def _training(selected: Mapping[str, Any], base: StudyConfig) -> tuple[_Space, dict[str, Any]]:
    """What is searched whatever the layers, and where it starts."""
    optimizer = TrialConfig.from_flat(selected, workload=base.workload, epochs=base.epochs, seed=0).optimizer
    lr, decay = optimizer.lr, optimizer.weight_decay
    space = {
        "lr": [_log_range(lr / _LR_FACTOR, lr * _LR_FACTOR)],
        "weight_decay": [_decays(decay)],
        "damping_scale": [_log_range(*_DAMPING_SCALE)],
    }
    start = {"lr": lr, "weight_decay": decay, "damping_scale": 1.0}
    if optimizer.base == "adamw":
        space["beta2"] = [SpaceEntry(choices=tuple(sorted({*_BETA2, optimizer.beta2})))]
        start["beta2"] = optimizer.beta2
    return space, start


def _decays(found: float) -> SpaceEntry:
    if found == 0:
        return SpaceEntry(choices=_DECAYS_AND_NONE)
    low, high = _WEIGHT_DECAY
    return _log_range(min(low, found), max(high, found))


def _log_range(low: float, high: float) -> SpaceEntry:
    return SpaceEntry(low=low, high=high, log=True)


def _checked(study: StudyConfig) -> StudyConfig:
    problems = find_problems(study)
    if problems:
        raise ConfigurationError("\n".join(map(str, problems)))
    return study
