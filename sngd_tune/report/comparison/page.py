"""The page of a comparison: what came out first, then each workload, then how it was found and what went wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sngd_tune.records.importance import Importance
from sngd_tune.records.study import StudyConfig
from sngd_tune.report.assignments import assignments
from sngd_tune.report.canvas import words
from sngd_tune.report.comparison.cells import method_cells, method_columns, sized, target_line
from sngd_tune.report.comparison.figures import profile_drawing, workload_drawings
from sngd_tune.report.comparison.runs import MethodResults, WorkloadResults
from sngd_tune.report.comparison.stability import SPIKE, Count
from sngd_tune.report.comparison.tables import LEGEND
from sngd_tune.report.comparison.values import ComparisonReport, MethodSummary, Winner, WorkloadSummary
from sngd_tune.report.energy import energy_text
from sngd_tune.report.page import Block, Page, Section, TableBlock, TextBlock, figure_blocks, write_page
from sngd_tune.report.sensitivity import sensitivity_section
from sngd_tune.report.setup import space_section
from sngd_tune.report.summary import budget_of

__all__ = ["comparison_page", "write_comparison_page"]

#: By label of the workload, then by method.
Importances = Mapping[str, Mapping[str, Sequence[Importance]]]

_SPIKES = (
    f"A spike: the training loss exceeds the lowest before it by more than {SPIKE:.0%} of what had been gained. Spread "
    "of times: standard deviation of the logarithm of the seconds to the target, about 0.1 where they lie 10 % apart."
)


def write_comparison_page(
    path: Path,
    report: ComparisonReport,
    results: Sequence[WorkloadResults],
    importances: Importances,
    machine: Section | None = None,
) -> Path:
    """Write the page; its path. Arguments as in `comparison_page`.

    Raises:
        LedgerError: it cannot be written; a page that was there before is as it was.
    """
    return write_page(path, comparison_page(report, results, importances, machine))


def comparison_page(
    report: ComparisonReport,
    results: Sequence[WorkloadResults],
    importances: Importances,
    machine: Section | None = None,
) -> Page:
    """The page of a comparison, finished or not.

    Args:
        report: of `results`.
        results: of all workloads, in the order of the report's.
        importances: of the searched parameters; workloads and methods without any may be left out.
        machine: what it ran on, and versions (`setup.machine_section` of one of its ledgers); None where unknown.
    """
    pairs = list(zip(report.workloads, results, strict=True))
    sections = [
        Section("What came out", _verdict(report), "verdict"),
        Section("Over all workloads", _profile(report), "profile"),
        *(Section(summary.workload, _workload(report, summary, measured), "workload") for summary, measured in pairs),
        Section("Stability", _stability(report), "stability"),
        Section("Winning settings", _winners(report), "winners"),
        Section("Budgets", _budgets(pairs), "budgets"),
        Section("What was tuned", _spaces(results), "space"),
        Section("Which parameters decided", _importances(results, importances), "importances"),
        *([machine] if machine is not None else []),
        Section("Failures", _failures(report), "failures"),
    ]
    methods = list(dict.fromkeys(each.method for workload in report.workloads for each in workload.methods))
    subtitle = f"{report.candidate} against {', '.join(m for m in methods if m != report.candidate) or 'no other'}."
    return Page(f"Comparison {report.name}", subtitle, [section for section in sections if section.blocks])


def _verdict(report: ComparisonReport) -> list[Block]:
    text = "\n\n".join([report.sentence, *(each.sentence for each in report.workloads)])
    blocks: list[Block] = [TextBlock(text)]
    if report.notes:
        blocks.append(TableBlock(("to know",), [(note,) for note in report.notes], "Missing, or not equal"))
    return blocks


def _profile(report: ComparisonReport) -> list[Block]:
    names = [each.workload for each in report.workloads]
    rows = [(each.method, each.score, *(sized(each.factors[name]) for name in names)) for each in report.profile]
    caption = "Median time to the target over the best method's; the score is the area under the profile up to 4"
    align = ("left", *("right",) * (len(names) + 1))
    table = TableBlock(("method", "score", *names), rows, caption, align)
    return [*([table] if rows else []), *figure_blocks(profile_drawing(report))]


def _workload(report: ComparisonReport, summary: WorkloadSummary, results: WorkloadResults) -> list[Block]:
    columns = method_columns(summary)
    rows = [method_cells(summary, each) for each in summary.methods]
    caption = f"{target_line(summary)}. Target: {summary.target.provenance}"
    table = TableBlock(columns, rows, caption, ("left", *("right",) * (len(columns) - 1)))
    drawings = workload_drawings(report, summary, results).values()
    figures = [block for drawing in drawings for block in figure_blocks(drawing)]
    return [TextBlock(summary.sentence), table, TextBlock(LEGEND), *_differences(summary), *figures]


def _differences(summary: WorkloadSummary) -> list[Block]:
    rows = []
    for method in summary.methods:
        for each in method.differences:
            interval = None if each.low is None or each.high is None else f"{each.low:+.3g} to {each.high:+.3g}"
            rows.append((method.method, words(each.metric), f"{each.mean:+.3g}", interval, each.n, each.verdict))
    columns = ("candidate − method", "metric", "mean difference", "95 % interval", "pairs", "candidate is")
    align = ("left", "left", "right", "right", "right", "left")
    caption = "Test metrics at the end of the budget, paired by seed (Student's interval)"
    return [TableBlock(columns, rows, caption, align)] if rows else []


def _stability(report: ComparisonReport) -> list[Block]:
    rows = []
    for workload in report.workloads:
        for method in workload.methods:
            own = method.stability
            counts = (own.seeds_reached, own.settings_reached, own.failed, own.diverged)
            spikes = f"{own.spikes.count} in {own.spikes.of}" if own.spikes.of else None
            spreads = (own.metric_deviation, own.metric and words(own.metric), own.log_time_deviation)
            rows.append((workload.workload, method.method, *map(_count, counts), spikes, *spreads))
    columns = (
        *(
            "workload",
            "method",
            "seeds reached",
            "settings reached",
            "failed",
            "of them diverged",
            "spikes in trainings",
        ),
        *("spread over seeds", "of", "spread of times"),
    )
    align = ("left", "left", *("right",) * 6, "left", "right")
    return [TableBlock(columns, rows, align=align), TextBlock(_SPIKES)] if rows else []


def _count(count: Count) -> str | None:
    return f"{count.count} of {count.of} ({count.share:.0%})" if count.share is not None else None


def _winners(report: ComparisonReport) -> list[Block]:
    rows = []
    for workload in report.workloads:
        for method in workload.methods:
            for role, each in _roles(method):
                seconds = sized(each.seconds)
                settings = assignments(each.parameters)
                rows.append((workload.workload, method.method, role, each.trial, each.objective, seconds, settings))
    columns = ("workload", "method", "winner", "trial", "objective", "s to target", "settings")
    align = ("left", "left", "left", "left", "right", "right", "left")
    caption = "Best by the objective, and first at the target; both were trained again on fresh seeds"
    return [TableBlock(columns, rows, caption, align)] if rows else []


def _roles(method: MethodSummary) -> list[tuple[str, Winner]]:
    best, first = method.best, method.fastest
    if best is not None and first is not None and best.trial == first.trial:
        return [("best and fastest", best)]
    return [(role, each) for role, each in (("best", best), ("fastest", first)) if each is not None]


def _budgets(pairs: Sequence[tuple[WorkloadSummary, WorkloadResults]]) -> list[Block]:
    rows = []
    for summary, results in pairs:
        for method in summary.methods:
            config = results.methods[method.method].config
            allotted = (config.search.trials, _seconds(config), config.epochs, config.epoch_examples or "all")
            energy = energy_text(budget_of(results.methods[method.method].trials))
            used = (method.trials, method.device_seconds, energy, ", ".join(_outcomes(method)) or None)
            how = (config.search.sampler, config.search.seed, config.scheduler.name)
            rows.append((summary.workload, method.method, *allotted, *how, *used))
    columns = (
        *("workload", "method", "trials", "s a training", "epochs at most", "examples between evaluations"),
        *("sampler", "seed", "early stopper", "trials begun", "device s used", "energy used", "outcomes"),
    )
    caption = "What each search was allowed, and what it used; energy with that of the re-trainings"
    return [TableBlock(columns, rows, caption)] if rows else []


def _seconds(config: StudyConfig) -> float | str:
    return "no limit" if config.seconds is None else config.seconds


def _outcomes(method: MethodSummary) -> list[str]:
    return [f"{count} {words(outcome)}" for outcome, count in method.outcomes.items()]


def _spaces(results: Sequence[WorkloadResults]) -> list[Block]:
    """Each method's space once, with the workloads that it was searched on."""
    groups: list[tuple[str, StudyConfig, list[str]]] = []
    for workload in results:
        for name, method in workload.methods.items():
            group = next((g for g in groups if g[0] == name and _same_space(g[1], method)), None)
            if group is None:
                groups.append((name, method.config, [workload.workload]))
            else:
                group[2].append(workload.workload)
    blocks: list[Block] = []
    for name, config, labels in sorted(groups, key=lambda group: [each[0] for each in groups].index(group[0])):
        blocks += [TextBlock(f"{name}, on {', '.join(labels)}:"), *space_section(config).blocks]
    return blocks


def _same_space(config: StudyConfig, method: MethodResults) -> bool:
    other = method.config
    return (config.space, config.fixed, config.start) == (other.space, other.fixed, other.start)


def _importances(results: Sequence[WorkloadResults], importances: Importances) -> list[Block]:
    blocks: list[Block] = []
    for workload in results:
        for name, method in workload.methods.items():
            found = importances.get(workload.workload, {}).get(name, ())
            if found:
                section = sensitivity_section(method.config, found)
                blocks += [TextBlock(f"{name} on {workload.workload}:"), *section.blocks]
    return blocks


def _failures(report: ComparisonReport) -> list[Block]:
    rows = [
        (workload.workload, method.method, failure.trial, words(failure.outcome), failure.reason)
        for workload in report.workloads
        for method in workload.methods
        for failure in method.failures
    ]
    columns = ("workload", "method", "trial", "outcome", "reason")
    return [TableBlock(columns, rows, "What failed, and the last line of its error")] if rows else []
