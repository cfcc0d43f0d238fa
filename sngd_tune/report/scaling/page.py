"""The page of a scaling study: what came out first, then each axis, then how it was found and what went wrong."""

from pathlib import Path
from typing import Any

from sngd_tune.records.scaling import ScalingConfig
from sngd_tune.records.study import NoiseConfig
from sngd_tune.report.assignments import assignments
from sngd_tune.report.canvas import words
from sngd_tune.report.page import Block, Page, Section, TableBlock, TextBlock, figure_blocks, write_page
from sngd_tune.report.scaling.figures import axis_drawings, parts_drawings
from sngd_tune.report.scaling.noise import NOISE_COLUMNS, noise_drawings, noise_rows
from sngd_tune.report.scaling.overhead import RATIO_COLUMNS, ratio_points, ratio_rows
from sngd_tune.report.scaling.tables import (
    BATCH_COLUMNS,
    POINT_COLUMNS,
    USE_COLUMNS,
    WORKER_COLUMNS,
    batch_rows,
    law_rows,
    point_rows,
    use_rows,
    worker_rows,
)
from sngd_tune.report.scaling.tuning import CHOICE_COLUMNS, choice_rows, settings_were
from sngd_tune.report.scaling.values import ScalingReport
from sngd_tune.report.scaling.words import sentences
from sngd_tune.scaling.measures import MEASURES

__all__ = ["scaling_page", "write_scaling_page"]

_READ = (
    "Both scales are logarithmic: a power law is a straight line, and its slope the exponent. Every dot is a training. "
    "A line is a fitted law, drawn where it was measured and nowhere else; where no law holds a thin line joins the "
    "means. Times leave out the first tenth of the epochs, and evaluation."
)
_LAW_COLUMNS = ("measure", "method", "exponent", "95 % interval", "theory", "floor", "largest residual", "why no law")
_CRITICAL = (
    "A training at the critical batch size takes twice the fewest steps and twice the fewest examples to the target "
    "(McCandlish et al. 2018). The law is of settings that are tuned at each batch size."
)
_NOISE = (
    "At a batch of this size its gradient is as much noise as signal (McCandlish et al. 2018), at the base point with "
    "the file's settings; geometric mean of the seeds (95 % interval). A method's own coordinates are those in which "
    "its preconditioned step is a plain one. To the target: mean over the measured epochs up to it, to be held against "
    "the critical batch size. That one predicts the other is an assumption; they need not be equal."
)
_RATIOS = (
    "Does what local Fisher layers add grow faster than a step? Training by training of the same seed; overhead: all "
    "but passes and communication. Misfit: that no one power holds over the whole range; then the last decade decides"
)
_TUNED = (
    "Of the candidates of a point the best is that with which most seeds reached the target, then the one with the "
    "least median of steps to it, then with the least loss at the end. So that a choice does not flatter itself, each "
    "seed measures the candidate that the other seeds chose: where seeds disagree, a curve has several at one value. "
    "At an edge of the factors a better one may lie beyond."
)


def write_scaling_page(
    path: Path, report: ScalingReport, config: ScalingConfig, machine: Section | None = None
) -> Path:
    """Write the page; its path. Arguments as in `scaling_page`.

    Raises:
        LedgerError: it cannot be written; a page that was there before is as it was.
    """
    return write_page(path, scaling_page(report, config, machine))


def scaling_page(report: ScalingReport, config: ScalingConfig, machine: Section | None = None) -> Page:
    """The page of a scaling study, finished or not.

    Args:
        report: of its ledgers.
        config: of the study.
        machine: what it ran on, and versions; None where unknown.
    """
    said = sentences(report)
    sections = [
        Section("What came out", [TextBlock("\n\n".join(said))] if report.points else [], "verdict"),
        *(Section(f"Along {words(axis)}", _axis(report, axis), f"axis-{axis}") for axis in report.axes),
        Section("Tuned anew", _tuned(report), "tuned"),
        Section("All points", _points(report), "points"),
        Section("Workers", _workers(report), "workers"),
        Section("Critical batch size", _critical(report), "critical-batch"),
        Section("Gradient noise scale", _noise(report), "noise-scale"),
        Section("Use of the machine", _use(report), "use"),
        Section("What was run", _setup(config), "setup"),
        *([machine] if machine is not None else []),
        Section("Not measured", _missing(report), "missing"),
    ]
    target = f"; target {report.target.metric} {report.target.value:g}" if report.target is not None else ""
    subtitle = f"Workload {report.workload}, {report.seeds} seeds a point{target}."
    return Page(f"Scaling of {report.name}", subtitle, [section for section in sections if section.blocks])


def _axis(report: ScalingReport, axis: str) -> list[Block]:
    figures = figure_blocks(axis_drawings(report).get(axis))
    parts = [
        block
        for name, drawing in parts_drawings(report).items()
        if name.startswith(f"{axis}_parts_")
        for block in figure_blocks(drawing)
    ]
    rows = law_rows(report, axis)
    table = TableBlock(_LAW_COLUMNS, rows, "Fitted laws: y = floor + c · x^exponent", ("left",) * 8)
    return [*figures, *parts, TextBlock(_READ), *([table] if rows else []), *_ratios(report, axis)] if figures else []


def _ratios(report: ScalingReport, axis: str) -> list[Block]:
    rows = ratio_rows(report, axis)
    columns, points = ratio_points(report, axis)
    at = f"At each value of {words(axis)}: geometric mean over the seeds (95 % interval)"
    laws = TableBlock(RATIO_COLUMNS, rows, _RATIOS, ("left",) * len(RATIO_COLUMNS))
    return [TableBlock(columns, points, at, ("left",) * len(columns)), laws] if rows else []


def _tuned(report: ScalingReport) -> list[Block]:
    rows = choice_rows(report)
    return [TableBlock(CHOICE_COLUMNS, rows, align=("left",) * len(CHOICE_COLUMNS)), TextBlock(_TUNED)] if rows else []


def _points(report: ScalingReport) -> list[Block]:
    rows = point_rows(report)
    caption = f"Means over the seeds. {'; '.join(f'{words(n)}: {MEASURES[n].doc}' for n in ('peak_memory_bytes',))}"
    align = ("left", *("right",) * (len(POINT_COLUMNS) - 1))
    return [TableBlock(POINT_COLUMNS, rows, caption, align)] if rows else []


def _workers(report: ScalingReport) -> list[Block]:
    rows = worker_rows(report)
    caption = (
        "Strong: one joint batch for all; weak: it grows with the workers (Amdahl's, Gustafson's law). Communication: "
        "what a step waits for other workers, slower ones included, and no computing hides; of what the efficiency "
        "lacks to 100 %, so many points"
    )
    return [TableBlock(WORKER_COLUMNS, rows, caption)] if rows else []


def _critical(report: ScalingReport) -> list[Block]:
    rows = batch_rows(report)
    align = ("left", *("right",) * 5, "left")
    text = TextBlock(f"{_CRITICAL} Here: {settings_were(report, 'batch_size')}.")
    return [TableBlock(BATCH_COLUMNS, rows, align=align), text] if rows else []


def _noise(report: ScalingReport) -> list[Block]:
    rows = noise_rows(report)
    figures = [block for drawing in noise_drawings(report).values() for block in figure_blocks(drawing)]
    align = ("left", "right", "right", "left", "left", "left", "right")
    return [*figures, TableBlock(NOISE_COLUMNS, rows, align=align), TextBlock(_NOISE)] if rows else []


def _use(report: ScalingReport) -> list[Block]:
    caption = "Idle: what preparation, evaluation and empty places took of the time in which any trial ran"
    return [TableBlock(USE_COLUMNS, use_rows(report), caption)] if report.uses else []


def _setup(config: ScalingConfig) -> list[Block]:
    methods = [(name, assignments({**config.fixed, **values})) for name, values in config.methods.items()]
    resources = config.resources
    length = f"{config.epochs} epochs" if config.seconds is None else f"{config.seconds:g} s"
    follow = [
        f"{name} goes with {words(axis)} to the power {power:g}"
        for name, exponents in config.follow.items()
        for axis, power in exponents.items()
    ]
    tune = [
        f"{name} × {', '.join(f'{factor:g}' for factor in each.factors)} along {', '.join(map(words, each.axes))}"
        for name, each in config.tune.items()
    ]
    rows: list[tuple[str, Any]] = [
        *((f"axis {words(axis)}", ", ".join(map(str, values))) for axis, values in config.axes.items()),
        ("sizes at the base point", assignments(config.sizes) or "the workload's own"),
        ("what follows an axis", "; ".join(follow) or "nothing"),
        ("what is tuned anew", "; ".join(tune) or "nothing"),
        ("length of a training", length),
        ("seeds", str(config.seeds)),
        *([("noise scale", _when(config.noise))] if config.noise is not None else []),
        ("resources of a worker", f"CPUs {resources.cpus:g}, GPUs {resources.gpus:g}"),
        ("trials at a time", str(config.trials_at_a_time)),
    ]
    return [
        TableBlock(("method", "setting"), methods, align=("left", "left")),
        TableBlock(("", "as planned"), rows, align=("left", "left")),
    ]


def _when(noise: NoiseConfig) -> str:
    return f"after epochs {', '.join(map(str, noise.epochs))}, from {noise.batches} batches"


def _missing(report: ScalingReport) -> list[Block]:
    rows = [(each.trial, words(each.outcome), each.reason) for each in report.missing]
    return [TableBlock(("trial", "outcome", "reason"), rows, "Failed, or not tried")] if rows else []
