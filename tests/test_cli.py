import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sngd_tune import __version__
from tests.commands import invoke

DIGITS = Path(__file__).parents[1] / "search_spaces" / "digits_mlp.yaml"


pytestmark = pytest.mark.usefixtures("bare")


@pytest.mark.parametrize("command", [[], ["run"], ["ui"], ["doctor"], ["bench"]])
def test_help_is_quick_and_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; from sngd_tune.cli import app\n"
        f"try: app({[*command, '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'optuna', 'mlflow', 'pyarrow', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert invoke("--version") == (0, f"{__version__}\n", "")


def test_validate_prints_the_space_and_three_trials_and_leaves_nothing(tmp_path: Path) -> None:
    code, out, err = invoke("validate", DIGITS)
    assert code == 0
    assert "space of digits_mlp" in out
    assert "three sampled trials" in out
    assert "granularity=input,root=nystrom" in out
    assert err == f"{DIGITS}: valid\n"
    assert list(tmp_path.iterdir()) == []


def test_validate_as_json_is_only_json_on_standard_output() -> None:
    code, out, _ = invoke("validate", DIGITS, "--format", "json", "--set", "search.trials=5")
    found = json.loads(out)
    assert (code, found["schema"], found["study"]["search"]["trials"], len(found["samples"])) == (0, 1, 5, 3)
    assert {"name", "range", "condition"} <= set(found["space"][0])


def test_flag_wins_over_environment_over_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def data_dir(*arguments: str) -> str | None:
        found = json.loads(invoke("validate", DIGITS, "--format", "json", *arguments)[1])["study"]
        assert isinstance(found, dict)
        return found["data_dir"]

    in_file = ("--set", "data_dir=/in/file")
    assert data_dir() is None
    assert data_dir(*in_file) == "/in/file"
    monkeypatch.setenv("SNGD_TUNE_DATA", "/in: environment")
    assert data_dir() == "/in: environment"
    assert data_dir("--data-dir", "/in/flag") == "/in/flag"
    monkeypatch.setenv("SNGD_TUNE_TRACKING_URI", "http://server:5000")
    found = json.loads(invoke("validate", DIGITS, "--format", "json")[1])
    assert found["study"]["mlflow"]["tracking_uri"] == "http://server:5000"


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], "missing.yaml: cannot be read: No such file or directory"),
        ([DIGITS, "--set", "search.trails=8"], "search.trails: unknown key; did you mean 'trials'?"),
        ([DIGITS, "--set", "space.relative_damping.low=0"], "low=0: must be > 0 on a log scale"),
        ([DIGITS, "--set", "fixed.fisher_interval=0"], "also stands under fixed"),
        ([DIGITS, "--set", "fixed.absolute_damping=-1"], "fixed.absolute_damping: -1: must be ≥ 0"),
        ([DIGITS, "--set", "workload=digits_mpl"], "did you mean 'digits_mlp'"),
        ([DIGITS, "--set", "workload=mnist_mlp"], "needs a data directory"),
        ([DIGITS, "--set", "workload=mnist_mlp", "--data-dir", "nowhere"], "not found"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_code_2_and_starts_nothing(
    command: str, arguments: list[object], message: str, tmp_path: Path
) -> None:
    code, _, err = invoke(command, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "nowhere"], "nowhere: no study there"),
        (["resume", "nowhere"], "nowhere: no study there"),
        (["report", "nowhere"], "nowhere: no study there"),
        (["sync", "nowhere"], "nowhere: no study there"),
        (["ui", "nowhere"], "no MLflow store there"),
        (["ui", "--port", "0"], "--port"),
        (["run", DIGITS, "--format", "xml"], "--format"),
        (["rnu", DIGITS], "rnu"),
        (["validate"], "FILE"),
    ],
)
def test_bad_usage_ends_with_code_2(arguments: list[object], message: str) -> None:
    code, _, err = invoke(*arguments)
    assert code == 2
    assert message in err


def test_ui_refuses_a_port_in_use(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert invoke("ui", tmp_path, "--port", port)[0::2] == (
            2,
            f"serving sqlite:///{tmp_path}/mlflow.db\nsngd-tune: port={port}: in use; choose another with --port\n",
        )


def test_ui_points_to_a_server_without_its_password() -> None:
    code, out, _ = invoke("ui", "--tracking-uri", "https://ann:secret@host")
    assert (code, out) == (0, "https://ann:***@host\n")
