"""What a study or a comparison found: report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sngd_tune.cli.app import app
from sngd_tune.cli.comparison import holds_comparison, print_comparison
from sngd_tune.cli.decision import Currency, DecisionFlag, DeviceHour, Kwh, Lang, TrainingsPerMonth, report_decision
from sngd_tune.cli.options import ReportFormat, Run
from sngd_tune.cli.scale import holds_scaling, report_scaling
from sngd_tune.display import print_json, print_renderable, say
from sngd_tune.errors import ConfigurationError


@app.command()
def report(
    run: Run,
    html: Annotated[
        bool,
        typer.Option("--html", help="Also write the report as one page, DIR/report.html; of a URI, NAME-report.html."),
    ] = False,
    file: Annotated[Path | None, typer.Option("--file", help="Another place for the page.")] = None,
    output: Annotated[
        ReportFormat, typer.Option("--format", help="How data is printed; markdown: the table of a comparison.")
    ] = ReportFormat.TABLE,
    decision: DecisionFlag = False,
    trainings_per_month: TrainingsPerMonth = None,
    price_per_device_hour: DeviceHour = None,
    price_per_kwh: Kwh = None,
    currency: Currency = None,
    lang: Lang = None,
) -> None:
    """Print what a study or a comparison found, from its ledgers alone."""
    terms = {
        "trainings_per_month": trainings_per_month,
        "price_per_device_hour": price_per_device_hour,
        "price_per_kwh": price_per_kwh,
        "currency": currency,
    }
    given = [name for name, value in {**terms, "lang": lang}.items() if value is not None]
    if given and not decision:
        raise ConfigurationError(f"--{given[0].replace('_', '-')}: belongs to the decision report; add --decision")
    from sngd_tune.tracking.continuation import run_name, viewed

    def page(name: str) -> Path | None:
        beside = Path(f"{run_name(run)}-{name}") if "://" in run else directory / name
        return file or (beside if html else None)

    with viewed(run) as directory:
        if decision:
            report_decision(directory, page("decision.html"), output, lang, terms)
        elif holds_comparison(directory):
            _report_comparison(directory, output, page("report.html"))
        elif holds_scaling(directory):
            report_scaling(directory, output, page("scaling.html"))
        else:
            _report_study(directory, output, page("report.html"))


def _report_comparison(directory: Path, output: ReportFormat, page: Path | None) -> None:
    print_comparison(directory, output)
    if page is not None:
        from sngd_tune.results import write_page_of

        say(f"page: {write_page_of(directory, page)}")


def _report_study(directory: Path, output: ReportFormat, page: Path | None) -> None:
    if output is ReportFormat.MARKDOWN:
        raise ConfigurationError("--format markdown: is for comparisons; a study has table and json")
    from sngd_tune.report.summary import study_report
    from sngd_tune.report.tables import report_tables

    found = study_report(directory)
    if output is ReportFormat.JSON:
        print_json({**found.to_dict(), **_origins(directory)})
    else:
        print_renderable(report_tables(found))
    if page is not None:
        say(f"page: {_write_study_page(directory, page)}")


def _origins(directory: Path) -> dict[str, Any]:
    """What a study's report says beyond its trials: which parameters decided, on which machine, with which versions."""
    from sngd_tune.history import past_trials
    from sngd_tune.search.importance import importances
    from sngd_tune.tracking.ledger import Ledger

    ledger = Ledger.open(directory)
    manifest = ledger.manifest
    return {
        "importances": [vars(each) for each in importances(ledger.config, past_trials(ledger))],
        "machine": vars(manifest.machine) if manifest.machine else None,
        "versions": {"code": manifest.code_version, **manifest.versions},
    }


def _write_study_page(directory: Path, file: Path) -> Path:
    from sngd_tune.history import past_trials
    from sngd_tune.report.study_page import write_study_page
    from sngd_tune.search.importance import importances
    from sngd_tune.tracking.ledger import Ledger

    ledger = Ledger.open(directory)
    return write_study_page(ledger, importances(ledger.config, past_trials(ledger)), file)
