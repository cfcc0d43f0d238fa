"""Selections made by hand."""

import dataclasses
import math
from typing import Any

from sngd_tune.records.selection import (
    Alternative,
    LayerChoice,
    LayerProbe,
    RatePoint,
    SelectionRecord,
    StepTime,
)
from sngd_tune.settings import FisherSettings

LOW_RANK = FisherSettings(rank=8, root_scale="unit", relative_damping=0.1, fisher_interval=50, statistics_interval=25)
DENSE = FisherSettings(root="eigh", root_scale="unit", relative_damping=0.01, fisher_interval=200)


def alternatives() -> tuple[Alternative, ...]:
    rows = [("diagonal", 1.2, 1e-5), ("block:32", 1.5, 4e-5), ("input rank 2", 1.4, 2e-5), ("input rank 8", 2.5, 3e-5)]
    rows.append(("input", 2.6, 2e-4))
    return tuple(
        Alternative(name=name, relative_damping=0.1, gain=gain, seconds=seconds, bytes=int(1e9 * seconds))
        for name, gain, seconds in rows
    )


def choice(layer: str = "0", **changes: Any) -> LayerChoice:
    values = {
        "layer": layer,
        "settings": LOW_RANK,
        "name": "input rank 8",
        "gain": 2.5,
        "seconds": 3e-5,
        "bytes": 69_440,
        "reason": "expected decrease × 2.5 for 3.0 % of a step; input has × 2.6 for 20.0 %",
        "alternatives": alternatives(),
    }
    return LayerChoice(**{**values, **changes})


def plain_choice(layer: str, **changes: Any) -> LayerChoice:
    none = {"settings": None, "name": "none", "gain": 1.0, "seconds": 0.0, "bytes": 0, "reason": "nothing gains enough"}
    return choice(layer, **{**none, **changes})


def probe(layer: str = "0", **changes: Any) -> LayerProbe:
    values = {
        "layer": layer,
        "module": "Linear",
        "inputs": 65,
        "outputs": 32,
        "matrices": 1,
        "positions": 1.0,
        "effective_rank": 5.25,
        "condition_number": 4321.0,
        "retained_trace": {1: 0.5, 2: 0.75, 4: 0.875, 8: 0.9375, 16: 1.0},
        "batch_noise": 0.25,
        "least_damping": 0.0625,
        "drift": {10: 0.0, 40: 0.125},
        "retained_gain": {10: 1.0, 40: 0.625},
        "output_effective_rank": 3.5,
        "output_gain": 1.75,
        "progress": 0.01,
    }
    return LayerProbe(**{**values, **changes})


def selection(**changes: Any) -> SelectionRecord:
    """Three layers, the middle one without a local Fisher layer; one short training diverged."""
    values = {
        "subject": "digits_mlp",
        "batch_size": 49.875,
        "optimizer": {"base": "adamw", "lr": 0.02, "weight_decay": 0.01},
        "lr_schedule": "warmup_cosine",
        "layers": (choice("0"), plain_choice("2"), choice("4", settings=DENSE, name="input", gain=2.6, seconds=2e-4)),
        "probes": (probe("0"), probe("2", progress=0.0, output_gain=None), probe("4", matrices=2)),
        "step": StepTime(sgd=1e-3, plain=1.25e-3, predicted=1.5e-3, measured=1.6e-3),
        "step_budget": 1.75,
        "memory_budget": 1 << 20,
        "gain": 2.25,
        "bound": 2.25,
        "rates": (
            RatePoint(lr=0.02, weight_decay=0.01, steps=300, loss=0.125, step_seconds=4e-4),
            RatePoint(lr=0.01, weight_decay=0.01, steps=300, loss=0.25, step_seconds=4e-4),
            RatePoint(lr=0.04, weight_decay=0.01, steps=300, loss=math.nan, step_seconds=math.nan),
        ),
        "seconds": 6.5,
        "device": "cpu, 1 threads",
    }
    return SelectionRecord(**{**values, **changes})


def renamed(record: SelectionRecord, names: tuple[str, ...]) -> SelectionRecord:
    """The same for layers of these names."""
    layers = tuple(dataclasses.replace(each, layer=name) for each, name in zip(record.layers, names, strict=True))
    probes = tuple(dataclasses.replace(each, layer=name) for each, name in zip(record.probes, names, strict=True))
    return dataclasses.replace(record, layers=layers, probes=probes)
