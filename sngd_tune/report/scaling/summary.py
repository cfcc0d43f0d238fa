"""From trainings to the report of a scaling study."""

from collections.abc import Mapping, Sequence

from sngd_tune.records.scaling import PlannedPoint, ScalingConfig
from sngd_tune.records.strict import Scalar
from sngd_tune.records.target import Target
from sngd_tune.report.scaling.values import Missing, PointSummary, ScalingReport
from sngd_tune.scaling.choice import choose
from sngd_tune.scaling.curves import Curves, fit_curves, fit_products
from sngd_tune.scaling.measures import Training, means, measurements, use_of
from sngd_tune.scaling.noise_course import NoiseCourse, noise_course
from sngd_tune.scaling.ratios import ratios_of
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
    choices = choose(config, points, trainings, target)
    measured = measurements(trainings, config.axes, target, grid=config.grid, choices=choices)
    laws = fit_curves(measured)
    settings = _settings(points)
    base = {**config.sizes, **_base(points)}
    products = fit_products(measured, laws, base)
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
        laws=Curves(workload=config.workload, base=base, methods=settings, curves=laws, products=products),
        uses={name: use for name, group in variants.items() if (use := use_of(group)) is not None},
        missing=[_missing(each) for each in trainings if each.record.outcome.failed],
        sources=tuple(dict.fromkeys(filter(None, (each.epochs[-1].energy_source for each in complete)))),
        ratios=ratios_of(measured, config.axes, settings),
        tune=config.tune,
        choices=[each for each in choices if each.taken is not None],
        noise=_noise(points, by_point, target),
    )


def _base(points: Sequence[PlannedPoint]) -> dict[str, Scalar]:
    """The base point, of all axes that any method has."""
    return {axis: value for point in _bases(points) for axis, value in point.axes.items()}


def _settings(points: Sequence[PlannedPoint]) -> dict[str, dict[str, Scalar]]:
    """The setting of each method there."""
    return {point.method: dict(point.parameters) for point in _bases(points)}


def _bases(points: Sequence[PlannedPoint]) -> list[PlannedPoint]:
    """The base point of each method, with the file's own settings."""
    return [point for point in points if not point.moved and not point.tuned]


def _noise(
    points: Sequence[PlannedPoint], by_point: Mapping[str, Sequence[Training]], target: Target | None
) -> list[NoiseCourse]:
    """The noise scale at the base point of each method that measured it."""
    bases = [(base.method, by_point[base.name]) for base in _bases(points)]
    found = [noise_course(method, [each.epochs for each in group if each.complete], target) for method, group in bases]
    return [course for course in found if course is not None]


def _point(point: PlannedPoint, trainings: Sequence[Training], target: Target | None) -> PointSummary:
    complete = sum(each.complete for each in trainings)
    ended = sum(each.record.outcome.finished for each in trainings)
    return PointSummary(point=point, ended=ended, completed=complete, measures=means(trainings, target))


def _missing(training: Training) -> Missing:
    record = training.record
    reason = (record.error or "").strip().splitlines()
    return Missing(record.trial, str(record.outcome), reason[-1] if reason else "")
