"""From a comparison to a decision: evidence a workload, the rule, and what to know beside it."""

from collections.abc import Sequence

from sngd_tune.report.comparison.runs import WorkloadResults
from sngd_tune.report.comparison.values import ComparisonReport
from sngd_tune.report.decision.evidence import case_of, evidence_of
from sngd_tune.report.decision.remarks import next_stage, risks, unknown
from sngd_tune.report.decision.rule import rule
from sngd_tune.report.decision.values import Basis, Decision, Terms

__all__ = ["decide"]


def decide(report: ComparisonReport, results: Sequence[WorkloadResults], basis: Basis, terms: Terms) -> Decision:
    """The decision on a comparison, finished or not.

    Args:
        report: of `results`.
        results: of all workloads, in the order of the report's.
        basis: what they rest on.
        terms: prices and rate of the user.
    """
    pairs = zip(report.workloads, results, strict=True)
    evidence = tuple(evidence_of(report.candidate, summary, measured, terms) for summary, measured in pairs)
    ruling = rule([case_of(report.candidate, summary) for summary in report.workloads])
    return Decision(
        comparison=report.name,
        candidate=report.candidate,
        ruling=ruling,
        evidence=evidence,
        terms=terms,
        next_stage=next_stage(ruling, evidence),
        risks=risks(report, results, evidence, basis),
        unknown=unknown(report, evidence, basis, terms),
        basis=basis,
    )
