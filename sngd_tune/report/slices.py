"""Slices through the space: the objective against each parameter that the search varied."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.names import split
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.proposals import proposals
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.canvas import BEST, CATEGORIES, FAILED, PLAIN, Drawing, Panel, dot_key, limit, log_scale, words

__all__ = ["draw_slices"]

#: Parameters that get a panel where the search varied them, the most telling first.
_CANDIDATES = ("lr", "relative_damping", "fisher_interval", "granularity", "rank", "block", "weight_decay", "momentum")
_MAX_PANELS = 6


def draw_slices(config: StudyConfig, records: Sequence[TrialRecord]) -> Drawing | None:
    """The first objective of each trial against each varied parameter, coloured by granularity.

    Trials that were stopped early are grey rings at their last value, and failed ones crosses along the top: they show
    which region fails. None where completed trials differ in no parameter.
    """
    records = proposals(records)
    ranked = rank(records, config.objectives[0])
    names = _varied(ranked)
    if not names:
        return None
    kinds = sorted({_kind(record) for record in ranked})
    colours = {kind: CATEGORIES[i % len(CATEGORIES)] for i, kind in enumerate(kinds)}
    usual = [_objective(config, record) for record in ranked]

    def panel(name: str) -> Panel:
        having = [record for record in records if name in record.parameters]

        def draw(axis: Any) -> None:
            _panel(axis, config, name, having, ranked[0], colours)
            limit(usual, [axis], config.objectives[0])

        return Panel(f"{words(config.objectives[0])} against {words(name)}", draw)

    panels = [panel(name) for name in names[:_MAX_PANELS]]
    return Drawing(f"{config.name}: slices through the space", panels, _keys(records, ranked[0], colours))


def _varied(records: Sequence[TrialRecord]) -> list[str]:
    """The candidates in which the trials differ; behind each plain one the same of single layers."""
    known = dict.fromkeys(name for record in records for name in record.parameters)
    names = [name for candidate in _CANDIDATES for name in known if split(name)[0] == candidate]
    return [name for name in names if len({r.parameters[name] for r in records if name in r.parameters}) > 1]


def _keys(records: Sequence[TrialRecord], best: TrialRecord, colours: Mapping[str, str]) -> list[Any]:
    keys = [dot_key(colour, kind) for kind, colour in colours.items()]
    keys.append(dot_key(BEST, f"best: trial {best.trial}", hollow=True))
    if any(record.outcome is Outcome.STOPPED_EARLY for record in records):
        keys.append(dot_key(PLAIN, "stopped early", hollow=True))
    if any(record.outcome.failed for record in records):
        keys.append(dot_key(FAILED, "failed", marker="x"))
    return keys


def _panel(
    axis: Any,
    config: StudyConfig,
    name: str,
    records: Sequence[TrialRecord],
    best: TrialRecord,
    colours: Mapping[str, str],
) -> None:
    at = _positions(axis, config, name, records)
    ranked = rank(records, config.objectives[0])
    stopped = [record for record in records if record.outcome is Outcome.STOPPED_EARLY]
    failed = [record for record in records if record.outcome.failed]
    for chosen, look in (
        (stopped, {"s": 18, "facecolors": "none", "edgecolors": PLAIN, "linewidths": 0.9}),
        (ranked, {"s": 28, "c": [colours[_kind(record)] for record in ranked], "linewidths": 0}),
        (
            [best] if name in best.parameters else [],
            {"s": 95, "facecolors": "none", "edgecolors": BEST, "linewidths": 1.8},
        ),
    ):
        axis.scatter([at[r.trial] for r in chosen], [_objective(config, r) for r in chosen], **look)
    # Heights in axes coordinates: a failed trial has no objective.
    look = {"s": 24, "marker": "x", "color": FAILED, "transform": axis.get_xaxis_transform()}
    axis.scatter([at[r.trial] for r in failed], [0.97] * len(failed), **look)
    axis.set_xlabel(words(name))
    axis.set_ylabel(words(config.objectives[0]))


def _positions(axis: Any, config: StudyConfig, name: str, records: Sequence[TrialRecord]) -> dict[str, float]:
    """Where each trial stands on the horizontal axis, which is given its range and scale."""
    values = {record.trial: record.parameters[name] for record in records}
    if any(isinstance(value, bool | str) for value in values.values()):
        return _word_positions(axis, values)
    low, high = min(values.values()), max(values.values())
    if low > 0 and any(entry.log for entry in config.space.get(name, ())):
        margin = (high / low) ** 0.06
        axis.set_xlim(low / margin, high * margin)
        log_scale(axis)
    else:
        margin = 0.06 * (high - low)
        axis.set_xlim(low - margin, high + margin)
    return values


def _word_positions(axis: Any, values: Mapping[str, Any]) -> dict[str, float]:
    """Words stand at 0, 1, …, a little spread out so that equal objectives do not hide each other."""
    names = sorted({str(value) for value in values.values()})
    axis.set_xticks(range(len(names)), names)
    axis.set_xlim(-0.5, len(names) - 0.5)
    return {trial: names.index(str(value)) + 0.06 * (i % 5 - 2) for i, (trial, value) in enumerate(values.items())}


def _objective(config: StudyConfig, record: TrialRecord) -> float:
    """The first objective; NaN, which is not drawn, where a trial has none."""
    value = record.objectives.get(config.objectives[0])
    return math.nan if value is None else value


def _kind(record: TrialRecord) -> str:
    """Granularity of a trial; a method without local Fisher layers by its own name."""
    if record.parameters.get("optimizer", "sngd") != "sngd":
        return str(record.parameters["optimizer"])
    return str(record.parameters.get("granularity", "input"))
