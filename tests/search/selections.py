"""Selections at random, of what a search can say."""

import dataclasses
from fnmatch import fnmatchcase

from hypothesis import strategies as st

from sngd_tune.records.selection import Alternative, LayerChoice, SelectionRecord
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.stakes import described
from sngd_tune.settings import FisherSettings, LayerSettings
from tests.selection.samples import probe, selection

LAYERS = ("encoder.0", "encoder.10", "head", "lstm.weight_ih_l0", "odd[*?]name")
KINDS = ("diagonal", "block:8", "block:32", "block:channel", "input rank 2", "input rank 8", "input rank 64", "input")

_COMMON = {
    "relative_damping": st.floats(1e-3, 10),
    "absolute_damping": st.sampled_from([0.0, 0.5]),
    "fisher_interval": st.integers(1, 200),
    "statistics_interval": st.integers(1, 100),
    "decay": st.sampled_from([0.5, 0.9]),
    "positions": st.none() | st.integers(1, 4096),
    "root_scale": st.just("unit"),
}
_FORMS = (
    {"granularity": st.just("diagonal")},
    {"granularity": st.sampled_from(["block:4", "block:channel"]), "root": st.sampled_from(["eigh", "cholesky"])},
    {"granularity": st.just("input"), "root": st.sampled_from(["eigh", "newton_schulz"])},
    {"rank": st.integers(1, 64), "retained_trace": st.none() | st.floats(0.5, 1)},
    {"granularity": st.just("kron"), "fisher": st.sampled_from(["empirical", "sampled"])},
    {"refresh_schedule": st.just("drift"), "drift_threshold": st.floats(0.01, 1)},
)
#: Without values that have no effect where they stand.
settings = st.sampled_from(_FORMS).flatmap(lambda form: st.fixed_dictionaries({**_COMMON, **form})).map(
    FisherSettings.from_dict
)  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> SelectionRecord:
    """Any settings, some layers without; no alternatives were weighed."""
    names = draw(st.lists(st.sampled_from(LAYERS), min_size=1, unique=True))
    chosen = draw(st.lists(st.none() | settings, min_size=len(names), max_size=len(names)).filter(any))
    layers = tuple(
        LayerChoice(layer=name, settings=each, name="", gain=1.0, seconds=0.0, bytes=0, reason="")
        for name, each in zip(names, chosen, strict=True)
    )
    return dataclasses.replace(selection(), layers=layers, probes=())


@st.composite
def weighed(draw: st.DrawFn) -> SelectionRecord:
    """Alternatives with gains and prices at random, one of them chosen, or none, within budgets."""
    names = draw(st.lists(st.sampled_from(LAYERS), min_size=1, unique=True))
    layers = tuple(draw(_choices(name)) for name in names)
    if all(layer.settings is None for layer in layers):
        layers = (draw(_choices(names[0]).filter(lambda choice: choice.settings is not None)), *layers[1:])
    probes = tuple(probe(name, progress=draw(st.sampled_from([0.0, 0.01, 0.5]))) for name in names)
    step = dataclasses.replace(selection().step, predicted=1e-3 + sum(layer.seconds for layer in layers))
    return dataclasses.replace(
        selection(),
        layers=layers,
        probes=probes,
        step=step,
        step_budget=draw(st.none() | st.floats(0, 1).map(lambda more: step.ratio + more)),
        memory_budget=draw(st.none() | st.integers(0, 1000).map(lambda more: sum(e.bytes for e in layers) + 1 + more)),
    )


@st.composite
def _choices(draw: st.DrawFn, layer: str) -> LayerChoice:
    numbers = st.integers(0, 400)
    others = tuple(
        Alternative(
            name=name,
            relative_damping=draw(st.sampled_from([0.01, 0.1, 1.0])),
            gain=1 + draw(numbers) / 100,
            seconds=draw(numbers) * 1e-6,
            bytes=draw(numbers),
        )
        for name in draw(st.lists(st.sampled_from(KINDS), min_size=1, unique=True))
    )
    chosen = draw(st.none() | st.sampled_from(others))
    if chosen is None:
        none = {"settings": None, "name": "none", "gain": 1.0, "seconds": 0.0, "bytes": 0}
        return LayerChoice(layer=layer, reason="", alternatives=others, **none)
    figures = {name: getattr(chosen, name) for name in ("name", "gain", "seconds", "bytes")}
    return LayerChoice(layer=layer, settings=settings_of(chosen), reason="", alternatives=others, **figures)


def settings_of(alternative: Alternative) -> FisherSettings:
    values = {**described(alternative), "root_scale": "unit"}
    if "block" in values:
        values["granularity"] = f"block:{values.pop('block')}"
    return FisherSettings(**values)


def settings_by_layer(trial: TrialConfig, record: SelectionRecord) -> dict[str, FisherSettings | None]:
    """What a trial gives the layers of a selection."""
    found = trial.fisher
    names = [choice.layer for choice in record.layers]
    if isinstance(found, FisherSettings):
        return dict.fromkeys(names, found)
    assert isinstance(found, LayerSettings)
    return {name: next(each for pattern, each in found.items() if fnmatchcase(name, pattern)) for name in names}


def chosen_by_layer(record: SelectionRecord) -> dict[str, FisherSettings | None]:
    return {choice.layer: choice.settings for choice in record.layers}
