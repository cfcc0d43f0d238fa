"""`sngd-tune data`: what it prints, where, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sngd_tune.cli import app
from tests.datasets.files import mnist, put


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SNGD_TUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "source", mnist())


def invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(app, ["data", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_convert_list_and_check(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "data"
    code, out, err = invoke("mnist", source, "--data-dir", folder)
    assert code == 0
    assert f"converted to {folder}" in out
    assert err.count("warning: ") == err.count("not the published file") == len(err.splitlines()) == 4
    rows = json.loads(invoke("--list", "--data-dir", folder, "--format", "json")[1])["rows"]
    assert {row["file"] for row in rows if row["present"]} == {"mnist/train.parquet", "mnist/test.parquet"}
    code, out, err = invoke("--check", "--data-dir", folder, "--format", "json")
    assert (code, err) == (0, "")
    assert [row["status"] for row in json.loads(out)["rows"]] == ["not published"] * 2
    assert invoke("mnist", "--check", "--strict", "--data-dir", folder)[0] == 1


def test_json_has_the_files_that_were_written(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNGD_TUNE_DATA", str(tmp_path / "data"))
    code, out, _ = invoke("mnist", source, "--format", "json")
    found = json.loads(out)
    assert (code, found["schema"], [row["rows"] for row in found["rows"]]) == (0, 1, [3, 3])
    assert all(Path(row["path"]).is_file() and len(row["strangers"]) == 2 for row in found["rows"])


def test_a_damaged_file_fails_the_check(tmp_path: Path, source: Path) -> None:
    invoke("mnist", source, "--data-dir", tmp_path)
    path = tmp_path / "mnist" / "test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([2, 1, 0]), path)
    code, out, _ = invoke("--check", "--data-dir", tmp_path)
    assert code == 1
    assert "damaged" in out


def test_list_needs_no_directory() -> None:
    code, out, err = invoke("--list")
    assert (code, err) == (0, "")
    for word in (
        "mnist/train.parquet",
        "train-labels-idx1-ubyte",
        "data_batch_5.bin",
        "housing.csv",
        "60000",
        "Mikolov",
    ):
        assert word in out
    assert "cifar10" not in invoke("mnist", "--list")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a data directory; name it with --data-dir or SNGD_TUNE_DATA"),
        (["--check"], "needs a data directory"),
        (["--data-dir", "data"], "needs a set and the folder of its files"),
        (["mnist", "--data-dir", "data"], "needs a set and the folder of its files"),
        (["minst", "source", "--data-dir", "data"], "minst: no such data set; must be one of mnist"),
        (["minst", "--list"], "minst: no such data set"),
        (["mnist", "nowhere", "--data-dir", "data"], "nowhere: not found"),
        (["mnist", "source", "--list"], "source: --list and --check take no source"),
        (["--list", "--check"], "--list: cannot go with --check"),
        (["--check", "--data-dir", "data"], "data: has no file of mnist, fashion_mnist"),
        (["mnist", "source", "--strict", "--data-dir", "data"], "not the published file"),
        (["ptb", "source", "--data-dir", "data"], "source: has no ptb.train.txt, ptb.valid.txt, ptb.test.txt"),
    ],
)
def test_bad_usage_is_said_and_writes_nothing(source: Path, arguments: list[str], message: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not (source.parent / "data").exists()


def test_what_is_there_is_not_replaced_without_force(tmp_path: Path, source: Path) -> None:
    assert invoke("mnist", source, "--data-dir", tmp_path)[0] == 0
    code, _, err = invoke("mnist", source, "--data-dir", tmp_path)
    assert (code, "train.parquet: exists already" in err) == (2, True)
    assert invoke("mnist", source, "--data-dir", tmp_path, "--force")[0] == 0


def test_help_is_quick_and_converting_needs_no_torch(source: Path) -> None:
    code = (
        "import sys; from sngd_tune.cli import app\n"
        "def call(*arguments):\n"
        "    try: app(['data', *arguments])\n"
        "    except SystemExit as end: assert not end.code\n"
        "call('--help')\n"
        "assert not {'torch', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        f"call('mnist', {str(source)!r}, '--data-dir', 'data')\n"
        "call('--check', '--data-dir', 'data')\n"
        "assert not {'torch', 'ray', 'optuna', 'mlflow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
