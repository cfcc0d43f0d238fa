"""The report of a scaling study as values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sngd_tune.records.choice import Choice
from sngd_tune.records.scaling import PlannedPoint, TuneConfig
from sngd_tune.records.target import Target
from sngd_tune.scaling.curves import Curves
from sngd_tune.scaling.measures import MEASURES, Use
from sngd_tune.scaling.noise_course import NoiseCourse
from sngd_tune.scaling.ratios import Ratio
from sngd_tune.scaling.series import Series

__all__ = ["Missing", "PointSummary", "ScalingReport"]


@dataclass(frozen=True)
class Missing:
    """A training that measured nothing: one that failed, or was not tried as it would not fit."""

    trial: str
    outcome: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PointSummary:
    """One point.

    Attributes:
        point: as planned.
        ended: trainings with which `resume` would do nothing.
        completed: those of them that count.
        measures: means over them, by name; infinite where one missed the target.
    """

    point: PlannedPoint
    ended: int
    completed: int
    measures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ScalingReport:
    """What a scaling study found so far.

    Attributes:
        name: of the study.
        workload: its name.
        target: None where there is none.
        axes: in the order of the file.
        seeds: trainings of each point.
        planned: trainings in all.
        points: those of which anything was trained.
        series: `scaling.series`: what is drawn.
        laws: what `sngd-tune plan` goes by.
        uses: of the machine, by variant.
        missing: trainings without a measure.
        sources: of energy, each once.
        ratios: `scaling.ratios`: what methods with local Fisher layers take over others.
        tune: of the file: what was tuned anew, and along which axes.
        choices: what was chosen there, as far as trainings tell.
        noise: the gradient noise scale of the base points, with the file's own settings; empty: it was not measured.
    """

    name: str
    workload: str
    target: Target | None
    axes: tuple[str, ...]
    seeds: int
    planned: int
    points: Sequence[PointSummary]
    series: Sequence[Series]
    laws: Curves
    uses: Mapping[str, Use]
    missing: Sequence[Missing]
    sources: tuple[str, ...] = ()
    ratios: Sequence[Ratio] = ()
    tune: Mapping[str, TuneConfig] = field(default_factory=dict)
    choices: Sequence[Choice] = ()
    noise: Sequence[NoiseCourse] = ()

    @property
    def methods(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(each.point.method for each in self.points))

    def series_of(self, axis: str, measure: str, method: str) -> Series | None:
        """The curve beside nothing else that was moved."""
        found = (c for c in self.series if (c.axis, c.measure, c.method) == (axis, measure, method) and not c.held)
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        points = [
            {
                **asdict(each.point),
                "ended": each.ended,
                "completed": each.completed,
                "measures": _plain(each.measures),
            }
            for each in self.points
        ]
        return {
            "schema": 1,
            "name": self.name,
            "workload": self.workload,
            "target": asdict(self.target) if self.target is not None else None,
            "axes": list(self.axes),
            "seeds": self.seeds,
            "planned": self.planned,
            "measures": {name: {"unit": each.unit, "doc": each.doc} for name, each in MEASURES.items()},
            "energy_sources": list(self.sources),
            "points": points,
            "use": {name: asdict(use) for name, use in self.uses.items()},
            "missing": [asdict(each) for each in self.missing],
            "curves": [each.to_dict() for each in self.series],
            "laws": self.laws.to_dict()["curves"],
            "ratios": [each.to_dict() for each in self.ratios],
            "noise_scale": [each.to_dict() for each in self.noise],
            "choices": [asdict(each) for each in self.choices],
            "products": self.laws.to_dict()["products"],
        }


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
