"""`sngd-tune report DIR --decision` on ledgers of arithmetic: no training, no Ray."""

import dataclasses
import json
from pathlib import Path

import pytest

from sngd_tune.records.comparison import Cell, ComparisonConfig
from sngd_tune.results import write_comparison
from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.ledger import Ledger
from tests.commands import invoke
from tests.report.comparison.cells import SECONDS, TARGET
from tests.report.decision.comparisons import lost
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was lost, as `compare` leaves its ledgers; one training alone knows its energy."""
    path = tmp_path_factory.mktemp("comparison")
    results = lost()
    budgets = [{"workload": "digits_mlp", "name": each.workload, "seconds": SECONDS} for each in results]
    methods = {"sngd": "sngd.yaml", "adamw": "adamw.yaml"}
    config = {"schema": 1, "name": "lost", "candidate": "sngd", "methods": methods, "workloads": budgets}
    config["mlflow"] = {"enabled": False}
    cells = [
        Cell(workload=each.workload, method=name, study=method.config)
        for each in results
        for name, method in each.methods.items()
    ]
    targets = {each.workload: TARGET for each in results}
    manifest = ComparisonManifest.new(ComparisonConfig.model_validate(config), targets, cells)
    manifest.write(path)
    for cell in manifest.cells:
        method = next(each for each in results if each.workload == cell.workload).methods[cell.method]
        ledger = Ledger.create(cell.directory(path), cell.study)
        for record in method.trials:
            metered = cell is manifest.cells[-1] and record.trial == "0000"
            energy = {"energy_joules": 7200.0, "energy_source": "nvml"} if metered else {}
            ledger.write_trial(dataclasses.replace(record, epochs=10, **energy))
            curve = method.epochs.get(record.trial, ())
            ledger.write_epochs(record, curve, [1000.0 + each.epoch for each in curve])
    return path


def test_the_first_line_on_the_terminal_says_that_it_lost(directory: Path) -> None:
    code, told, _ = invoke("report", directory, "--decision")
    assert code == 0
    assert told.splitlines()[0].startswith("Do not adopt sngd: behind on 2 of 3 workloads (a and b)")


def test_the_page_stands_in_the_directory_and_speaks_the_language(directory: Path) -> None:
    code, _, said = invoke("report", directory, "--decision", "--html", "--lang", "ja", "--currency", "JPY")
    assert (code, said.strip()) == (0, f"page: {directory / 'decision.html'}")
    assert "採用は推奨しません" in (directory / "decision.html").read_text(encoding="utf-8")
    assert not (directory / "report.html").exists()


def test_compare_leaves_the_decision_beside_its_report_and_says_whose_terms_are_lacking(directory: Path) -> None:
    assert write_comparison(directory, ComparisonManifest.read(directory)) == 0
    written = json.loads((directory / "decision.json").read_text(encoding="utf-8"))
    assert written["headline"].startswith("Do not adopt sngd: behind on 2 of 3 workloads")
    assert written["terms"]["trainings_per_month"] is None
    page = (directory / "decision.html").read_text(encoding="utf-8")
    assert "Rate and prices: none given, and none assumed." in page
    assert "--trainings-per-month N" in page
    _, printed, _ = invoke("report", directory, "--decision", "--format", "json")
    assert json.loads(printed) == written


def test_status_sums_the_energy_source_by_source(directory: Path) -> None:
    _, printed, _ = invoke("status", directory, "--format", "json")
    values = json.loads(printed)
    assert values["energy"]["sources"] == [
        {"source": "nvml", "measured": True, "joules": 7200.0, "kwh": 0.002, "search_joules": 7200.0}
    ]
    assert values["energy"]["unmetered"] > 0
    _, printed, _ = invoke("status", directory)
    assert f"energy: 2 Wh (nvml); unknown for {values['energy']['unmetered']} trainings" in printed.splitlines()


def test_json_has_the_terms_and_the_machine(directory: Path) -> None:
    prices = ("--price-per-device-hour", 3.6, "--price-per-kwh", 0.36, "--trainings-per-month", 1000)
    _, printed, _ = invoke("report", directory, "--decision", "--format", "json", *prices)
    values = json.loads(printed)
    assert values["terms"]["prices"] == {"device_hour": 3.6, "kwh": 0.36, "currency": "EUR"}
    assert values["basis"]["machine"]["cores"] >= 1
    assert values["headline"].startswith("Do not adopt")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--price-per-kwh", 0.3), "--price-per-kwh: belongs to the decision report; add --decision"),
        (("--decision", "--price-per-device-hour", -1), "device_hour=-1.0"),
        (("--decision", "--trainings-per-month", 0), "trainings_per_month=0.0"),
        (("--decision", "--currency", "yen"), "currency='yen'"),
    ],
)
def test_what_makes_no_sense_is_refused(directory: Path, options: tuple[object, ...], said: str) -> None:
    code, printed, error = invoke("report", directory, *options)
    assert (code, printed) == (2, "")
    assert said in error


def test_a_study_has_no_decision(tmp_path: Path) -> None:
    write_study(tmp_path / "study", trials=1)
    code, _, error = invoke("report", tmp_path / "study", "--decision")
    assert code == 2
    assert "--decision is for comparisons" in error
