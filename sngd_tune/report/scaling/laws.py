"""What theory expects of the curves, and the laws that are not power laws: workers, and the critical batch size."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sngd_tune.records.parameters import PARAMETERS
from sngd_tune.records.strict import Scalar
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.scaling.critical_batch import CriticalBatch, fit_critical_batch
from sngd_tune.scaling.efficiency import Efficiency, SerialShare, efficiencies, serial_share
from sngd_tune.scaling.fits import NoFit
from sngd_tune.scaling.series import Series
from sngd_tune.scaling.theory import OF_ANY_METHOD, PARTS, expected_exponent

__all__ = ["WorkerScaling", "critical_batches", "theory_of", "worker_scalings"]

_KINDS = {"workers": "strong", "weak_workers": "weak"}


@dataclass(frozen=True)
class WorkerScaling:
    """Of one method along an axis of workers.

    Attributes:
        communication: for each number of workers, its share of a step. What an efficiency lacks to 1 is a share of a
            step as well: so much of that loss is communication.
    """

    axis: str
    method: str
    kind: str
    efficiencies: tuple[Efficiency, ...]
    communication: tuple[float, ...]
    serial: SerialShare | NoFit

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {"axis": self.axis, "method": self.method, "kind": self.kind}
        pairs = zip(self.efficiencies, self.communication, strict=True)
        rows = [{**asdict(each), "communication": share} for each, share in pairs]
        return {**found, "efficiencies": rows, "serial": asdict(self.serial)}


def worker_scalings(report: ScalingReport) -> list[WorkerScaling]:
    """Strong and weak scaling of each method, where the study moved the workers."""
    found = []
    for axis, kind in _KINDS.items():
        for method in report.methods:
            series = report.series_of(axis, "step_seconds", method)
            waits = report.series_of(axis, "communication_seconds", method)
            if series is not None and waits is not None:
                workers, seconds = _pairs(series)
                counts = [int(each) for each in workers]
                measured = tuple(efficiencies(counts, seconds, kind))  # type: ignore[arg-type]
                serial = serial_share(counts, seconds, kind)  # type: ignore[arg-type]
                shares = tuple(waits.mean(value) / series.mean(value) for value in series.values)
                found.append(WorkerScaling(axis, method, kind, measured, shares, serial))
    return found


def critical_batches(report: ScalingReport) -> dict[str, CriticalBatch | NoFit]:
    """By method, where the study moved the batch size and has a target."""
    found = {}
    for method in report.methods:
        series = report.series_of("batch_size", "steps_to_target", method)
        budgets = report.series_of("batch_size", "steps", method)
        if series is not None and budgets is not None:
            found[method] = fit_critical_batch(*_pairs(series), _pairs(budgets)[1])
    return found


def theory_of(series: Series, settings: Mapping[str, Mapping[str, Scalar]]) -> float | None:
    """Theory's exponent of a part of a step; None where it says nothing.

    Args:
        series: of any measure.
        settings: of each method at the base point.
    """
    part, setting = series.measure.removesuffix("_seconds"), settings[series.method]
    if part not in PARTS:
        return None
    if _value(setting, "optimizer") != "sngd":
        return expected_exponent(part, series.axis, "diagonal") if part in OF_ANY_METHOD else None
    low_rank = _value(setting, "root") == "nystrom" and _value(setting, "granularity") == "input"
    rank = int(_value(setting, "rank")) if low_rank else None
    return expected_exponent(part, series.axis, str(_value(setting, "granularity")), rank=rank)


def _value(setting: Mapping[str, Scalar], name: str) -> Any:
    return setting.get(name, PARAMETERS[name].default)


def _pairs(series: Series) -> tuple[list[float], list[float]]:
    """Value of the axis and measure of each training."""
    pairs = [(float(value), number) for value, found in series.values.items() for number in found]
    return [value for value, _ in pairs], [number for _, number in pairs]
