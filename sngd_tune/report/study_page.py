"""The page of one study: what came out first, then why it can be believed, then how it was found."""

from collections.abc import Sequence
from pathlib import Path

from sngd_tune.records.importance import Importance
from sngd_tune.records.metrics import direction
from sngd_tune.records.outcome import Outcome
from sngd_tune.report.best_so_far import draw_best_so_far
from sngd_tune.report.canvas import words
from sngd_tune.report.findings import confirmation_blocks, failures_blocks, trials_blocks
from sngd_tune.report.front import front_blocks
from sngd_tune.report.layers import layers_section
from sngd_tune.report.learning import draw_learning_curves
from sngd_tune.report.page import Page, Section, TextBlock, figure_blocks, write_page
from sngd_tune.report.sensitivity import sensitivity_section
from sngd_tune.report.setup import budget_section, machine_section, space_section
from sngd_tune.report.slices import draw_slices
from sngd_tune.report.summary import summarize
from sngd_tune.report.verdict import verdict
from sngd_tune.tracking.ledger import Ledger

__all__ = ["NAME", "study_page", "write_study_page"]

#: Name of the page in the run directory.
NAME = "report.html"


def write_study_page(ledger: Ledger, importances: Sequence[Importance], path: Path | None = None) -> Path:
    """Write the page of a study; its path, which is ``DIR/report.html`` where none is given.

    Raises:
        LedgerError: the ledger is damaged, or the page cannot be written.
    """
    return write_page(path or ledger.directory / NAME, study_page(ledger, importances))


def study_page(ledger: Ledger, importances: Sequence[Importance]) -> Page:
    """The page of a study, finished or not.

    Args:
        ledger: of the study; everything else is read from it.
        importances: of the searched parameters, largest first (`search.importance.importances`).

    Raises:
        LedgerError: the ledger is damaged.
    """
    config, records, curves = ledger.config, ledger.trials(), ledger.epochs_by_trial()
    report = summarize(config.name, config.workload, config.objectives, records)
    search = [record for record in records if record.phase == "search"]
    hosts = sorted({record.host for record in records if record.host})
    best = [
        each.trial for each in search if report.best and each.proposal == report.best.trial and each.trial in curves
    ]
    best_epochs = curves[best[0]] if best else []
    sections = [
        Section("What came out", [TextBlock(verdict(report, config))], "verdict"),
        Section("Confirmation", confirmation_blocks(report), "confirmation"),
        Section("Learning curves", figure_blocks(draw_learning_curves(config, records, curves)), "curves"),
        Section("Progress of the search", figure_blocks(draw_best_so_far(config, records)), "progress"),
        Section("Loss against time", front_blocks(config, records, curves), "front"),
        sensitivity_section(config, importances),
        Section("Slices through the space", figure_blocks(draw_slices(config, search)), "slices"),
        Section("Best trials", trials_blocks(report), "trials"),
        layers_section(config, report.best, best_epochs),
        space_section(config),
        budget_section(config, report.budget),
        machine_section(ledger, hosts),
        Section("Failures", failures_blocks(report), "failures"),
    ]
    goals = ", ".join(f"{direction(name)} {words(name)}" for name in config.objectives)
    counts = ", ".join(f"{report.outcomes[each]} {words(each)}" for each in Outcome if each in report.outcomes)
    subtitle = f"Workload {config.workload}; {goals}. {report.budget.trials} trials: {counts or 'none begun'}."
    return Page(f"Study {config.name}", subtitle, [section for section in sections if section.blocks])
