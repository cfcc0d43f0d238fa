"""What was tuned anew along the axes of a scaling study, in sentences and rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from sngd_tune.records.choice import Choice
from sngd_tune.records.strict import Scalar
from sngd_tune.report.canvas import words
from sngd_tune.report.scaling.values import ScalingReport

__all__ = ["CHOICE_COLUMNS", "choice_rows", "edge_sentences", "settings_sentence", "settings_were"]

CHOICE_COLUMNS = ("axis", "value", "method", "best of all seeds", "factors", "measured by", "at an edge")


def settings_sentence(report: ScalingReport) -> str:
    """Where the settings of the points come from."""
    if not report.tune:
        return "Settings are those of the file at every point; none was tuned anew."
    tuned = [
        f"{words(name)} along {' and '.join(map(words, each.axes))} (× {', '.join(f'{f:g}' for f in each.factors)})"
        for name, each in report.tune.items()
    ]
    chosen = (
        "each seed measures the candidate that the other seeds chose"
        if report.seeds > 1
        else "the one seed chose for itself, which flatters; add seeds"
    )
    return f"Tuned anew: {'; '.join(tuned)}: {chosen}. All else is as the file has it."


def edge_sentences(report: ScalingReport) -> list[str]:
    """One a parameter and axis where the best lies at the edge of what was tried: a better one may lie beyond."""
    groups: dict[tuple[str, str], dict[str, list[Scalar]]] = {}
    for choice in _ordered(report):
        for name in choice.edges:
            groups.setdefault((name, choice.axis), {}).setdefault(choice.method, []).append(choice.value)
    return [_edge(name, axis, found, report.tune[name].factors) for (name, axis), found in groups.items()]


def settings_were(report: ScalingReport, axis: str) -> str:
    """Under which settings a method was along an axis: ``"the file's settings"``, ``"lr tuned at each value"``."""
    tuned = [words(name) for name, each in report.tune.items() if axis in each.axes]
    return f"{' and '.join(tuned)} tuned at each value" if tuned else "the file's settings"


def choice_rows(report: ScalingReport) -> list[tuple[Any, ...]]:
    """One a choice, under `CHOICE_COLUMNS`."""
    return [_row(each) for each in _ordered(report)]


def _ordered(report: ScalingReport) -> list[Choice]:
    """Axis by axis and method by method; numbers ascend."""

    def place(choice: Choice) -> tuple[int, int, float]:
        number = float(choice.value) if isinstance(choice.value, int | float) else 0.0
        return report.axes.index(choice.axis), report.methods.index(choice.method), number

    return sorted(report.choices, key=place)


def _edge(name: str, axis: str, found: Mapping[str, Sequence[Scalar]], factors: Sequence[float]) -> str:
    where = "; ".join(f"{method} at {', '.join(map(str, values))}" for method, values in found.items())
    edges = f"× {factors[0]:g} to × {factors[-1]:g}"
    return f"Along {words(axis)} the best {words(name)} lies at the edge of {edges}: {where}. Widen its factors."


def _row(choice: Choice) -> tuple[Any, ...]:
    factors = ", ".join(f"{words(name)} × {factor:g}" for name, factor in choice.factors.items())
    seeds = f"{choice.agreed} of {len(choice.by_seed)} seeds"
    edges = ", ".join(map(words, choice.edges)) or None
    return words(choice.axis), choice.value, choice.method, choice.taken, factors, seeds, edges
