import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sngd_tune.cli import app
from sngd_tune.doctor import Check, port_is_free, run_checks


def checks(
    runs: Path, data_dir: Path | None = None, tracking_uri: str | None = None, port: int = 0
) -> dict[str, Check]:
    found = list(run_checks(data_dir=data_dir, runs=runs, tracking_uri=tracking_uri, port=port))
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_a_machine_that_passes_the_suite_is_ready(tmp_path: Path) -> None:
    found = checks(tmp_path / "runs")
    assert {name for name, check in found.items() if check.status == "fail"} == set()
    assert {"python", "torch", "ray", "optuna", "mlflow", "runs", "shared memory", "ui port"} <= set(found)
    assert "ruff" not in found
    assert list(tmp_path.iterdir()) == []
    assert all(check.remedy for check in found.values() if check.status != "ok")


def test_data_sets_are_listed(tmp_path: Path) -> None:
    assert checks(tmp_path)["data"].status == "warn"
    assert checks(tmp_path, tmp_path / "missing")["data"].status == "fail"
    assert checks(tmp_path, tmp_path)["data"].status == "warn"
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train.parquet").touch()
    assert checks(tmp_path, tmp_path)["data"] == Check("data", "ok", f"{tmp_path}: mnist")


def test_a_runs_directory_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checks(tmp_path / "file")["runs"].status == "fail"


def test_a_dead_server_is_a_warning_without_its_password(tmp_path: Path) -> None:
    check = checks(tmp_path, tracking_uri="http://ann:secret@127.0.0.1:9")["mlflow store"]
    assert check.status == "warn"
    assert "secret" not in check.detail


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not port_is_free(port)
        assert checks(Path(), port=port)["ui port"].status == "warn"
    assert port_is_free(port)


def test_the_command_prints_rows_and_fails_with_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNGD_TUNE_RUNS", str(tmp_path))
    monkeypatch.delenv("SNGD_TUNE_DATA", raising=False)
    result = CliRunner().invoke(app, ["doctor", "--format", "json"])
    assert result.exit_code == 0
    assert {"name", "status", "detail", "remedy"} == set(json.loads(result.stdout)["rows"][0])
    failed = CliRunner().invoke(app, ["doctor", "--data-dir", "nowhere"])
    assert failed.exit_code == 1
    assert "nowhere: not a directory" in failed.stdout


@pytest.mark.slow
def test_ray_starts(ray_session: None, tmp_path: Path) -> None:
    found = run_checks(data_dir=None, runs=tmp_path, tracking_uri=None, port=0, start_ray=True)
    assert list(found)[-1] == Check("ray", "ok", "starts: 2 CPUs, 0 GPUs")
