import io
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.report.summary import study_report, summarize
from sngd_tune.report.tables import report_tables, trials_table
from tests.report.synthetic import record, write_study


def _text(table: RenderableType) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def test_a_report_names_what_a_reader_looks_for(tmp_path: Path) -> None:
    report = study_report(write_study(tmp_path / "study").directory)
    text = _text(report_tables(report, limit=3))
    assert report.best is not None
    for part in (report.best.trial, "30 trials", "Trained again on fresh seeds", "95 % interval", "better", "NaN"):
        assert part in text
    assert report.ranking[3].trial not in text


def test_shared_parameters_stand_below_the_table() -> None:
    trials = [record(n, parameters={"lr": 0.1 * (n + 1), "momentum": 0.9}) for n in range(2)]
    text = _text(trials_table("trials", trials, ("validation_loss",)))
    assert "all with momentum=0.9" in text
    assert text.count("momentum") == 1
    assert "lr=0.2" in text


def test_brackets_are_no_markup() -> None:
    broken = record(0, outcome=Outcome.ERROR, error="Traceback\nValueError: shape [/red] of [bold] 'x'")
    report = summarize("[study]", "my.module:[attribute]", ("validation_loss",), [broken])
    text = _text(report_tables(report))
    assert "ValueError: shape [/red] of [bold] 'x'" in text
    assert "[study]: workload my.module:[attribute]" in text


def test_many_failures_are_counted_not_listed() -> None:
    broken = [record(n, outcome=Outcome.LOST) for n in range(14)]
    text = _text(report_tables(summarize("s", "w", ("validation_loss",), broken)))
    assert "and 4 more" in text


def test_energy_of_different_sources_stands_side_by_side() -> None:
    def used(number: int, joules: float | None, source: str | None, **changes: Any) -> TrialRecord:
        return record(number, epochs=3, energy_joules=joules, energy_source=source, **changes)

    records = [
        used(0, 7200.0, "estimate"),
        used(1, 1800.0, "estimate", phase="confirm", candidate="best"),
        used(2, 20.0, "nvml_share"),
        used(3, None, None),
    ]
    text = _text(report_tables(summarize("s", "w", ("validation_loss",), records)))
    assert "energy: 20 J (nvml share); 2.5 Wh (estimate), of which search 2 Wh;" in text
    assert "unknown for 1 training" in text


def test_an_empty_study_has_a_heading_only() -> None:
    text = _text(report_tables(summarize("s", "w", ("validation_loss",), [])))
    assert "0 trials (none begun)" in text
    assert "Best" not in text
