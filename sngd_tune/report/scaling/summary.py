"""From trainings to the report of a scaling study."""

import math
from collections.abc import Mapping, Sequence

from sngd_tune.records.scaling import PlannedPoint, ScalingConfig
from sngd_tune.records.strict import Scalar
from sngd_tune.records.target import Target
from sngd_tune.report.scaling.values import Missing, PointSummary, ScalingReport
from sngd_tune.scaling.curves import Curves, fit_curves
from sngd_tune.scaling.measures import Training, measure, measurements, use_of
from sngd_tune.scaling.series import series_of

__all__ = ["summarize_scaling"]


def summarize_scaling(
    config: ScalingConfig,
    target: Target | None,
    points: Sequence[PlannedPoint],
    variants: Mapping[str, Sequence[Training]],
) -> ScalingReport:
    """The report.

    Args:
        config: the study.
        target: what is reached, or None.
        points: all that were planned.
        variants: trainings that the ledgers have, by variant.
    """
    trainings = [training for group in variants.values() for training in group]
    measured = measurements(trainings, config.axes, target, grid=config.grid)
    laws = fit_curves(measured)
    base = {**config.sizes, **_base(points)}
    by_point = {point.name: [each for each in trainings if each.point.name == point.name] for point in points}
    complete = [each for each in trainings if each.complete]
    return ScalingReport(
        name=config.name,
        workload=config.workload,
        target=target,
        axes=tuple(config.axes),
        seeds=config.seeds,
        planned=len(points) * config.seeds,
        points=[_point(point, by_point[point.name], target) for point in points if by_point[point.name]],
        series=series_of(measured, laws),
        laws=Curves(workload=config.workload, base=base, methods=_settings(points), curves=laws),
        uses={name: use for name, group in variants.items() if (use := use_of(group)) is not None},
        missing=[_missing(each) for each in trainings if each.record.outcome.failed],
        sources=tuple(dict.fromkeys(filter(None, (each.epochs[-1].energy_source for each in complete)))),
    )


def _base(points: Sequence[PlannedPoint]) -> dict[str, Scalar]:
    """The base point, of all axes that any method has."""
    return {axis: value for point in points if not point.moved for axis, value in point.axes.items()}


def _settings(points: Sequence[PlannedPoint]) -> dict[str, dict[str, Scalar]]:
    """The setting of each method there."""
    return {point.method: dict(point.parameters) for point in points if not point.moved}


def _point(point: PlannedPoint, trainings: Sequence[Training], target: Target | None) -> PointSummary:
    complete = [each for each in trainings if each.complete]
    found = [measure(each, target, joules=False) for each in complete]
    names = found[0] if found else {}
    means = {name: math.fsum(each[name] for each in found) / len(found) for name in names}
    ended = sum(each.record.outcome.finished for each in trainings)
    return PointSummary(point=point, ended=ended, completed=len(complete), measures=means)


def _missing(training: Training) -> Missing:
    record = training.record
    reason = (record.error or "").strip().splitlines()
    return Missing(record.trial, str(record.outcome), reason[-1] if reason else "")
