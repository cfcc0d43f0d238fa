"""`sngd-tune auto`: from a workload's name to settings that train, and to what keeps and explains them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from torch import nn

from sngd_tune.auto import new_folder, select_for_workload, show_in_mlflow, write_selection
from sngd_tune.cli.auto import parse_bytes
from sngd_tune.errors import ConfigurationError
from sngd_tune.selection.file import load, usage
from sngd_tune.workloads.digits_mlp import DigitsMlp
from tests.commands import invoke
from tests.examples.moons import Moons
from tests.report.html import PageReader, check_self_contained
from tests.selection.samples import choice, selection


class Scales(Moons):
    """Nothing in the model can get a local Fisher layer."""

    def model(self) -> nn.Module:
        return nn.LayerNorm(2)


pytestmark = pytest.mark.usefixtures("bare")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits_mlp", "--step-budget", "0.9"], "step_budget=0.9: must be ≥ 1"),
        (["digits_mlp", "--seconds", "1"], "seconds=1.0: must be ≥ 5"),
        (["digits_mlp", "--memory-budget", "5 apples"], "'5 apples': must be a number of bytes with one of the units"),
        (["digits_mlp", "--batch-size", "0"], "--batch-size"),
        (["digits_mlp", "--epochs", "3", "--steps", "9"], "epochs=3: cannot go with steps=9; give one of them"),
        (["digits_mpl"], "workload='digits_mpl': not registered; did you mean 'digits_mlp'?"),
        (["mnist_mlp"], "needs a data directory"),
        (["mnist_mlp", "--data-dir", "nowhere"], "not found"),
        (["tests.test_auto:Scales"], "workload='tests.test_auto:Scales': LayerNorm has no layer that can get a local"),
        (["digits_mlp", "--dir", "."], "is there already, and not empty; name another one with --dir"),
    ],
)
def test_bad_input_ends_with_code_2_and_leaves_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    code, out, err = invoke("auto", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "mine"]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sngd_tune.cli import app\n"
        "try: app(['auto', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'mlflow', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@given(
    number=st.integers(1, 10**6),
    unit=st.sampled_from((("", 1), ("B", 1), ("kB", 1000), ("MB", 10**6), ("KiB", 1 << 10), ("GiB", 1 << 30))),
    space=st.sampled_from(("", " ")),
    upper=st.booleans(),
)
def test_bytes_are_read_in_any_unit(number: int, unit: tuple[str, int], space: str, upper: bool) -> None:
    text = f"{number}{space}{unit[0]}"
    assert parse_bytes(text.upper() if upper else text) == number * unit[1]


@given(text=st.text(max_size=12) | st.from_regex(r"[0-9.]{1,400}[kMG]?i?B?", fullmatch=True))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    try:
        assert parse_bytes(text) >= 1
    except ConfigurationError as error:
        assert str(error).startswith(f"{text!r}: must be ")


@pytest.mark.parametrize("text", ["", "0", "-5MB", "1e400", "9" * 400, "nan", "5 MB/s", "1.5.2", "٣MB"])
def test_what_is_no_number_of_bytes(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        parse_bytes(text)


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"epochs": 0}, {"steps": 0}])
def test_counts_below_one_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=rf"{next(iter(values))}=0: must be ≥ 1"):
        select_for_workload("digits_mlp", **values)  # type: ignore[arg-type]


def test_a_folder_in_which_nothing_came_is_taken_away(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "runs" / "one"):
        raise KeyboardInterrupt
    assert not (tmp_path / "runs" / "one").exists()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "two") as made:
        (made / "auto.yaml").touch()
        raise KeyboardInterrupt
    assert (tmp_path / "two" / "auto.yaml").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is there already"), new_folder(tmp_path / "file"):
        pass


def test_a_selection_is_written_as_settings_values_page_and_figures(tmp_path: Path) -> None:
    record = selection(layers=(choice("0"),))
    files = write_selection(record, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        *("auto.yaml", "selection.json", "selection.html"),
        *("figures/gain_and_price.png", "figures/learning_rates.png"),
    ]
    assert repr(load(tmp_path / "auto.yaml")) == repr(record)
    values = json.loads((tmp_path / "selection.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert values["rates"][2]["loss"] is None
    reader = PageReader((tmp_path / "selection.html").read_text())
    check_self_contained(reader)
    assert f'"{tmp_path}/auto.yaml"' in "".join(reader.text)


def test_an_mlflow_that_is_down_costs_a_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not show_in_mlflow(selection(), tmp_path, [], "http://127.0.0.1:9")
    (said,) = caplog.messages
    assert said.startswith("http://127.0.0.1:9: MLflow did not take a record")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """One selection through the command; its directory, standard output and standard error."""
    directory = tmp_path_factory.mktemp("runs") / "auto"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        given = [
            "--dir",
            directory,
            "--seconds",
            5,
            "--batch-size",
            50,
            "--epochs",
            6,
            "--memory-budget",
            "1MiB",
            "--explain",
        ]
        code, out, err = invoke("auto", "digits_mlp", *given)
    assert code == 0, err
    yield directory, out, err


@pytest.mark.slow
def test_a_workload_gets_settings_and_reasons(whole: tuple[Path, str, str]) -> None:
    directory, out, err = whole
    assert err.splitlines() == [
        f"measuring digits_mlp for some 5 s; results will be in {directory}",
        f"all of it on a page: {directory / 'selection.html'}",
        f"see it in MLflow: sngd-tune ui {directory.parent}",
    ]
    assert usage(directory / "auto.yaml") in out
    for part in (
        "local Fisher layers",
        "why",
        "what the probe saw",
        "time of a step",
        "learning rates, the chosen one first",
    ):
        assert part in out
    record = load(directory / "auto.yaml")
    assert [each.layer for each in record.layers] == ["0", "2", "4"]
    assert (record.subject, record.memory_budget, record.step_budget) == ("digits_mlp", 1 << 20, None)
    assert sum(each.bytes for each in record.layers) <= 1 << 20
    assert 47 < record.batch_size <= 50
    assert all(point.steps <= 6 * 24 for point in record.rates)


@pytest.mark.slow
def test_the_settings_train(whole: tuple[Path, str, str]) -> None:
    workload = DigitsMlp()
    splits = workload.load(None)
    torch.manual_seed(1)
    scope: dict[str, Any] = {"model": workload.model()}
    exec(usage(whole[0] / "auto.yaml"), scope)
    inputs, targets = torch.from_numpy(splits.train.inputs), torch.from_numpy(splits.train.targets)
    batches = [batch for _ in range(6) for batch in torch.randperm(len(inputs)).split(50)]
    for done, batch in enumerate(batches, start=1):
        scope["optimizer"].zero_grad()
        workload.loss(scope["model"](inputs[batch]), targets[batch]).backward()
        scope["optimizer"].step()
        scope["schedule"].at(done / len(batches))
    held_out = torch.from_numpy(splits.validation.inputs), torch.from_numpy(splits.validation.targets)
    assert workload.loss(scope["model"](held_out[0]), held_out[1]) < 0.25


@pytest.mark.slow
def test_the_selection_is_a_run_beside_its_directory(whole: tuple[Path, str, str]) -> None:
    client = MlflowClient(f"sqlite:///{whole[0].parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits_mlp")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["role"] == "selection"
    assert run.data.metrics["selection/gain"] == pytest.approx(load(whole[0] / "auto.yaml").gain)
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == [
        *("auto.yaml", "figures", "selection.html", "selection.json"),
    ]


@pytest.mark.slow
def test_a_users_own_workload_as_json_under_a_budget_without_mlflow(tmp_path: Path) -> None:
    given = ["--seconds", 5, "--steps", 40, "--step-budget", 20, "--no-mlflow", "--format", "json"]
    state = torch.random.get_rng_state()
    code, out, err = invoke("auto", "tests.examples.moons:Moons", *given)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert code == 0, err
    values = json.loads(out)
    assert (values["schema"], values["step_budget"], values["subject"]) == (1, 20.0, "tests.examples.moons:Moons")
    directory = Path(values["file"]).parent
    assert directory.parent == Path("runs")
    assert directory.name.startswith("auto-tests.examples.moons_Moons-")
    assert not list(tmp_path.rglob("mlflow.db"))


@pytest.mark.slow
def test_a_budget_that_nothing_is_within_ends_with_code_2(tmp_path: Path) -> None:
    code, out, err = invoke("auto", "digits_mlp", "--seconds", 5, "--memory-budget", "10B", "--dir", tmp_path / "auto")
    assert (code, out) == (2, "")
    assert "memory_budget=10: no local Fisher layer is within it; the cheapest is" in err
    assert not (tmp_path / "auto").exists()
