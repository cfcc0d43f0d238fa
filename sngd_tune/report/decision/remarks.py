"""What to know before relying on a verdict, derived from the data: risks, what is unknown, what comes next."""

import math
from collections.abc import Iterator, Sequence

from sngd_tune.records.attempts import Attempts
from sngd_tune.report.comparison.runs import WorkloadResults
from sngd_tune.report.comparison.sign_interval import MIN_VALUES
from sngd_tune.report.comparison.values import ComparisonReport, WorkloadSummary
from sngd_tune.report.decision.evidence import MAX_SEEDS, REFERENCE
from sngd_tune.report.decision.rule import Ruling, Standing, Verdict
from sngd_tune.report.decision.values import Basis, Evidence, Remark, Terms

__all__ = ["next_stage", "risks", "unknown"]

#: Fewer seeds, trials or workloads than these are named as a risk.
FEW_SEEDS, FEW_TRIALS, FEW_WORKLOADS = 10, 20, 3
#: Trainings shorter than this (s) and smaller than this (B, of the whole process) say little about long and large ones.
SHORT_TRAINING, SMALL_MODEL = 3600.0, 4 * 2**30
#: An evaluation takes place too seldom where the time between two is more than this part of the time to the target.
COARSE = 0.1


def risks(
    report: ComparisonReport, results: Sequence[WorkloadResults], evidence: Sequence[Evidence], basis: Basis
) -> list[Remark]:
    """What speaks against relying on the verdict; the gravest first."""
    return [
        *_beaten(evidence),
        *_unreached(report),
        *_unshown(evidence),
        *_small_samples(report, results),
        *_scale(results),
        *_machine(basis),
        *_coarse(report, results),
        *_unequal(report),
    ]


def unknown(report: ComparisonReport, evidence: Sequence[Evidence], basis: Basis, terms: Terms) -> list[Remark]:
    """What was not measured, or not said; nothing of it is guessed."""
    missing = {
        "no_rate": terms.trainings_per_month is None,
        "no_device_price": terms.prices.device_hour is None,
        "no_energy_price": terms.prices.kwh is None,
    }
    found = [_remark(f"unknown.{key}") for key, applies in missing.items() if applies]
    for state in ("unknown", "mixed", "estimated"):
        workloads = [each.workload for each in evidence if each.economy and each.economy.energy == state]
        if workloads:
            found.append(_remark(f"unknown.energy_{state}", workloads=workloads))
    if not any(each.method == REFERENCE for workload in report.workloads for each in workload.methods):
        found.append(_remark("unknown.no_reference", method=REFERENCE))
    return [*found, *_cut_off(basis.attempts)]


def next_stage(ruling: Ruling, evidence: Sequence[Evidence]) -> list[Remark]:
    """What an extended trial has to show, so that the rule would say adopt."""
    if ruling.verdict is not Verdict.EXTEND:
        return []
    unmet = [
        _remark(f"next.{each.name}", found=each.found, wanted=each.wanted) for each in ruling.criteria if not each.met
    ]
    return [*unmet, *_decided([each for each in evidence if each.standing is Standing.OPEN]), *_regained(evidence)]


def _decided(undecided: Sequence[Evidence]) -> Iterator[Remark]:
    """How many more seeds would do; workloads that need as many stand together."""
    groups: dict[tuple[int, int] | None, list[str]] = {}
    for each in undecided:
        seeds = each.best.ratio.n if each.best and each.best.ratio else 0
        wanted = each.seeds_wanted
        groups.setdefault(None if wanted is None else (wanted, wanted - seeds), []).append(each.workload)
    for group, workloads in groups.items():
        if group is None:
            yield _remark("next.no_tendency", workloads=workloads, seeds=MAX_SEEDS)
        else:
            yield _remark("next.seeds", workloads=workloads, seeds=group[0], more=group[1])


def _regained(evidence: Sequence[Evidence]) -> Iterator[Remark]:
    for each in evidence:
        if each.standing is Standing.BEHIND:
            yield _remark("next.regain", workload=each.workload, methods=_superior(each))


def _superior(each: Evidence) -> list[str]:
    named = list(dict.fromkeys([*each.slower_than, *each.worse_than]))
    return named or ([each.best.baseline] if each.best else [])


def _beaten(evidence: Sequence[Evidence]) -> Iterator[Remark]:
    for each in evidence:
        if each.slower_than:
            yield _remark("risk.slower", workload=each.workload, methods=each.slower_than)
        if each.worse_than:
            yield _remark("risk.worse", workload=each.workload, methods=each.worse_than)
        if each.standing is Standing.BEHIND and not each.slower_than and not each.worse_than:
            yield _remark("risk.no_winner", workload=each.workload)


def _unreached(report: ComparisonReport) -> Iterator[Remark]:
    """Where nobody reaches the target, nothing is compared but test metrics."""
    missed = [each.workload for each in report.workloads if each.methods and not any(_reach(each))]
    if missed:
        yield _remark("risk.target_missed", workloads=missed)


def _reach(workload: WorkloadSummary) -> list[int]:
    return [each.stability.seeds_reached.count for each in workload.methods]


def _unshown(evidence: Sequence[Evidence]) -> Iterator[Remark]:
    """Savings that may be none at all, amount by amount."""
    savings = [(each.workload, each.economy) for each in evidence if each.economy and each.economy.saved]
    for name in ("seconds", "joules", "cost"):
        workloads = [
            workload
            for workload, economy in savings
            if economy.saved_interval and name not in economy.shown and getattr(economy.saved, name) is not None
        ]
        if workloads:
            yield _remark(f"risk.unshown_{name}", workloads=workloads)
    without = [workload for workload, economy in savings if economy.saved_interval is None]
    if without:
        yield _remark("risk.no_interval", workloads=without, seeds=MIN_VALUES)


def _cut_off(attempts: Attempts) -> Iterator[Remark]:
    if attempts.cut_off:
        seconds, share = sum(each.seconds for each in attempts.lost), attempts.cut_off / attempts.begun
        yield _remark("unknown.cut_off", n=attempts.cut_off, of=attempts.begun, share=share, seconds=seconds)


def _small_samples(report: ComparisonReport, results: Sequence[WorkloadResults]) -> Iterator[Remark]:
    seeds = [each.stability.seeds_reached.of for workload in report.workloads for each in workload.methods if each.runs]
    trials = [method.config.search.trials for workload in results for method in workload.methods.values()]
    if seeds and min(seeds) < FEW_SEEDS:
        yield _remark("risk.few_seeds", seeds=min(seeds))
    if trials and min(trials) < FEW_TRIALS:
        yield _remark("risk.few_trials", trials=min(trials))
    if len(report.workloads) < FEW_WORKLOADS:
        yield _remark("risk.few_workloads", workloads=len(report.workloads))


def _scale(results: Sequence[WorkloadResults]) -> Iterator[Remark]:
    longest = max((workload.seconds for workload in results), default=0.0)
    epochs = (epoch for workload in results for method in workload.methods.values() for epoch in method.epochs.values())
    memory = max((metrics.peak_memory_bytes for curve in epochs for metrics in curve), default=0)
    if longest < SHORT_TRAINING:
        yield _remark("risk.short_trainings", seconds=longest)
    if 0 < memory < SMALL_MODEL:
        yield _remark("risk.small_models", memory=memory)


def _machine(basis: Basis) -> Iterator[Remark]:
    if len(basis.hosts) == 1:
        yield _remark("risk.one_machine")
    if basis.machine is not None and not basis.machine.gpus:
        yield _remark("risk.cpu_only")


def _coarse(report: ComparisonReport, results: Sequence[WorkloadResults]) -> Iterator[Remark]:
    """Times to the target are those of evaluations, so they are uncertain by the time between two."""
    found = []
    for summary, measured in zip(report.workloads, results, strict=True):
        between = [
            curve[-1].training_seconds / len(curve)
            for method in measured.methods.values()
            for curve in method.epochs.values()
            if curve
        ]
        times = [each.seconds.median for each in summary.methods if each.seconds and math.isfinite(each.seconds.median)]
        if between and times and max(between) > COARSE * min(times):
            found.append(summary.workload)
    if found:
        yield _remark("risk.coarse", workloads=found, share=COARSE)


def _unequal(report: ComparisonReport) -> Iterator[Remark]:
    """Notes on the budgets, in the words of the comparison's own report."""
    if report.notes:
        yield _remark("risk.notes", notes=len(report.notes))


def _remark(key: str, **values: object) -> Remark:
    return Remark(key=key, values=values)
