"""The decision report of a comparison: what `report --decision` does, and its options."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sngd_tune.cli.comparison import holds_comparison
from sngd_tune.cli.options import ReportFormat
from sngd_tune.display import print_json, print_renderable, say
from sngd_tune.errors import ConfigurationError
from sngd_tune.report.decision.language import Language, LanguageCode

__all__ = ["Currency", "DecisionFlag", "DeviceHour", "Kwh", "Lang", "TrainingsPerMonth", "report_decision"]

_PANEL: dict[str, Any] = {"rich_help_panel": "Decision report"}

DecisionFlag = Annotated[
    bool,
    typer.Option(
        "--decision",
        help="Of a comparison: adopt, extend the trial, or do not adopt, by a printed rule; its page is "
        "DIR/decision.html.",
        **_PANEL,
    ),
]
TrainingsPerMonth = Annotated[
    float | None, typer.Option("--trainings-per-month", metavar="N", help="Of each workload.", **_PANEL)
]
DeviceHour = Annotated[
    float | None,
    typer.Option("--price-per-device-hour", metavar="X", help="Of a GPU; without one, of a process.", **_PANEL),
]
Kwh = Annotated[
    float | None,
    typer.Option("--price-per-kwh", metavar="Y", help="Of electricity, unless the device-hour includes it.", **_PANEL),
]
Currency = Annotated[str | None, typer.Option("--currency", help="Of the prices; default: EUR.", **_PANEL)]
Lang = Annotated[LanguageCode | None, typer.Option("--lang", help="Language; default: en.", **_PANEL)]


def report_decision(
    directory: Path, page: Path | None, output: ReportFormat, lang: LanguageCode | None, given: dict[str, Any]
) -> None:
    """Print a decision, and write its page where one is named.

    Raises:
        ConfigurationError: no comparison is there, or a price, rate or currency is none.
    """
    if not holds_comparison(directory):
        raise ConfigurationError(
            f"{directory}: --decision is for comparisons, and none is there; see sngd-tune compare"
        )
    from sngd_tune.energy.cost import Prices
    from sngd_tune.report.decision.document import decision_dict, document
    from sngd_tune.report.decision.page import write_decision_page
    from sngd_tune.report.decision.tables import decision_markdown, decision_tables
    from sngd_tune.report.decision.values import Terms
    from sngd_tune.results import decision_report

    rate, currency = given["trainings_per_month"], given["currency"] or "EUR"
    prices = Prices(device_hour=given["price_per_device_hour"], kwh=given["price_per_kwh"], currency=currency)
    found = decision_report(directory, Terms(prices=prices, trainings_per_month=rate))
    told = document(found, Language(lang or LanguageCode.EN))
    if output is ReportFormat.JSON:
        print_json(decision_dict(found, told))
    elif output is ReportFormat.MARKDOWN:
        print(decision_markdown(told))
    else:
        print_renderable(decision_tables(told))
    if page is not None:
        say(f"page: {write_decision_page(page, told)}")
