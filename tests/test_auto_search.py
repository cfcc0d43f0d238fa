"""`sngd-tune auto --search` and `--from`: a search around a selection, and what earlier runs give to it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sngd_tune.auto_search import Plan, Sources
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.auto import auto_study
from sngd_tune.search.load import load_study
from sngd_tune.selection.file import load, save
from sngd_tune.tracking.ledger import Ledger
from tests import commands
from tests.selection.samples import selection
from tests.studies import study

pytestmark = pytest.mark.usefixtures("bare")
invoke = partial(commands.invoke, "auto")


def plan(**changes: Any) -> Plan:
    values = {"workload": "digits_mlp", "data_dir": None, "batch_size": 50, "epochs": 3, "steps": None}
    return Plan(**{**values, "seed": 7, "mlflow": True, "tracking_uri": None, **changes})


@pytest.fixture
def earlier(tmp_path: Path) -> dict[str, Path]:
    """A selection, and a study in which nothing has been run yet."""
    (tmp_path / "selection").mkdir()
    save(selection(), tmp_path / "selection" / "auto.yaml")
    Ledger.create(tmp_path / "study", study())
    return {name: tmp_path / name for name in ("selection", "study")}


def test_a_plan_is_a_study_of_that_length_beside_the_selection() -> None:
    found = plan().study(Path("/runs/auto"))
    assert (found.name, found.epochs, found.epoch_examples, found.fixed) == (
        "auto-digits_mlp",
        3,
        None,
        {"batch_size": 50},
    )
    assert (found.mlflow.experiment, found.mlflow.tracking_uri) == ("digits_mlp", "sqlite:////runs/mlflow.db")
    by_steps = plan(epochs=None, steps=205, workload="mine.models:Net").study(Path("/runs/auto"))
    assert by_steps.name == "auto-mine.models_Net"
    assert by_steps.epochs * -(-by_steps.epoch_examples // 50) == 210  # type: ignore[operator]
    assert isinstance(auto_study(selection(), found, 4), StudyConfig)
    with pytest.raises(ConfigurationError, match="needs the length of each training; add --epochs or --steps"):
        plan(epochs=None).study(Path())


def test_earlier_runs_are_told_apart_by_what_is_in_them(earlier: dict[str, Path]) -> None:
    assert Sources.of([]) == Sources(None, ())
    assert Sources.of([earlier["study"], earlier["selection"]]) == Sources(earlier["selection"], (earlier["study"],))
    with pytest.raises(ConfigurationError, match=r"neither a study nor a selection is there \(no study.json, no auto"):
        Sources.of([Path("nowhere")])
    with pytest.raises(ConfigurationError, match="are 2 selections, and one can be carried over"):
        Sources.of(2 * [earlier["selection"]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--search"], "--search: needs the length of each training; add --epochs or --steps"),
        (["--from", "nowhere"], "nowhere: neither a study nor a selection is there"),
        (["--from", "study"], "--from study: is a study, which a search starts from; add --search"),
        (["--from", "selection", "--step-budget", "1.2"], "--from selection: is a selection that is carried over"),
        (["--from", "selection", "--epochs", "1", "--steps", "9"], "epochs=1: cannot go with steps=9"),
        (["--from", "selection", "--search", "--epochs", "1", "--trials", "0"], "--trials"),
    ],
)
@pytest.mark.usefixtures("earlier")
def test_options_that_say_nothing_together_are_refused(options: list[str], message: str, tmp_path: Path) -> None:
    code, out, err = invoke("digits_mlp", *options, "--dir", "new")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("earlier")
def test_a_selection_is_carried_over_and_kept_like_any_other(tmp_path: Path) -> None:
    """A fourth of the batch: half the rate, and four times as many steps between refreshes."""
    code, out, err = invoke("digits_mlp", "--from", "selection", "--dir", "new", "--batch-size", 12, "--no-mlflow")
    assert code == 0, err
    assert "carrying over the selection of selection; results will be in new" in err
    record = load(tmp_path / "new" / "auto.yaml")
    assert record.subject == "digits_mlp"
    factor = 1197 / 100 / selection().batch_size  # a pass has a hundred batches
    assert record.optimizer["lr"] == pytest.approx(0.02 * factor**0.5)
    assert record.settings["0"].fisher_interval == round(50 / factor)
    assert 'best["fisher"]' in out
    assert "Carried over: neither times nor gains were measured." in out
    assert "nan times" not in out
    assert (tmp_path / "new" / "selection.html").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_search_around_a_selection_and_another_that_starts_from_both(tmp_path: Path) -> None:
    options = ["digits_mlp", "--seconds", 5, "--batch-size", 50, "--search", "--epochs", 2]
    code, out, err = invoke(*options, "--trials", 3, "--dir", "one")
    assert code == 0, err
    ledger = Ledger.open(tmp_path / "one" / "study")
    written = load_study(tmp_path / "one" / "study.yaml")
    left = {"mlflow"}  # where the runs go is not in the file
    assert written.model_dump(exclude=left) == ledger.config.model_dump(exclude=left)
    record = load(tmp_path / "one" / "auto.yaml")
    first = next(each for each in ledger.trials() if each.trial == "0000")
    assert first.parameters["lr"] == record.optimizer["lr"]
    assert sum(each.phase == "confirm" for each in ledger.trials()) == 5
    assert "settings: one/auto.yaml" in out
    assert "Trained again on fresh seeds" in out
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "digits_mlp"]
    roles = [run.data.tags["role"] for run in client.search_runs([experiment.experiment_id])]
    assert {"selection", "study"} <= set(roles)

    earlier = ["--from", "one", "--from", Path("one") / "study"]
    code, out, err = invoke(*options, "--trials", 2, *earlier, "--dir", "two", "--no-mlflow", "--format", "json")
    assert code == 0, err
    assert json.loads(out)["outcome"] == "completed"
    ledger = Ledger.open(tmp_path / "two" / "study")
    best = min(
        (each for each in Ledger.open(tmp_path / "one" / "study").trials() if each.phase == "search"),
        key=lambda each: each.objectives["validation_loss"] or 9,
    )
    assert ledger.config.start[0]["lr"] == pytest.approx(record.optimizer["lr"], rel=1e-2)  # of batches as large
    assert best.parameters["lr"] in [point["lr"] for point in ledger.config.start]
