import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sngd_tune.cli import app
from sngd_tune.cluster.nodes import Node, alive_nodes
from sngd_tune.doctor.check import Check
from sngd_tune.doctor.checks import run_checks
from sngd_tune.doctor.cluster import Survey, cluster_checks, gpu_check, survey_check
from sngd_tune.doctor.machine import port_is_free
from sngd_tune.doctor.packages import installed, package_checks, wanted
from sngd_tune.doctor.stores import optuna_check, storage_check, storage_checks
from sngd_tune.gpu import Gpu, GpuProcess

#: Ranges that no installed version lies in.
TOO_NEW = ["ray>=99 ; extra == 'tune'", "nowhere_to_be_found>=1 ; extra == 'tune'", "numpy>=2 ; extra == 'tune'"]


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


def test_versions_out_of_their_range_fail_with_the_line_that_installs_them() -> None:
    found = {check.name: check for check in package_checks(TOO_NEW)}
    assert {name: check.status for name, check in found.items()} == {
        "ray": "fail",
        "nowhere_to_be_found": "fail",
        "numpy": "ok",
    }
    assert found["nowhere_to_be_found"].detail == "not installed, needs >=1"
    assert found["ray"].remedy == "pip install 'sngd_tune[tune]'"


def test_storage_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    assert storage_check(str(tmp_path)).status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_storage_that_cannot_be_used_fails_with_its_reason(tmp_path: Path) -> None:
    missing = storage_check(str(tmp_path / "nowhere"))
    assert (missing.status, "no folder, or not mounted" in missing.detail) == ("fail", True)
    unknown = storage_check("gopher://ann:secret@host/runs")
    assert unknown.status == "fail"
    assert "secret" not in unknown.detail
    (tmp_path / "file").touch()
    assert storage_check(str(tmp_path / "file")).status == "fail"


def test_storage_of_a_server_that_is_away_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    check = storage_check("s3://bucket/runs?scheme=http&endpoint_override=127.0.0.1:9&region=here&connect_timeout=1")
    assert check.status == "fail"


def test_optunas_storage_answers_or_says_why_not(tmp_path: Path) -> None:
    assert optuna_check(f"journal:{tmp_path / 'journal'}").status == "ok"
    dead = optuna_check("postgresql+psycopg://ann:secret@127.0.0.1:9/studies")
    assert dead.status == "fail"
    assert "secret" not in dead.detail


@pytest.mark.usefixtures("ray_session")
def test_the_nodes_of_an_open_cluster_are_fit_and_anybody_may_enter(tmp_path: Path) -> None:
    (node,) = alive_nodes()
    found = {check.name: check for check in cluster_checks(None, str(tmp_path))}
    assert list(found) == [
        "cluster",
        "authentication",
        *(f"{node.address}: {what}" for what in ("node", "clock", "storage")),
    ]
    assert found["cluster"].detail == "1 nodes, 2 CPUs, 0 GPUs"
    # The suite's cluster takes no token, and Ray's own port is open to the network.
    assert found.pop("authentication").status == "fail"
    assert {check.status for check in found.values()} == {"ok"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_node_without_the_packages_fails_and_names_them() -> None:
    (check,) = (check for check in cluster_checks(None, None, TOO_NEW) if check.name.endswith(": node"))
    assert check.status == "fail"
    assert "nowhere_to_be_found missing, needs >=1" in check.detail
    assert "needs >=99" in check.detail


@pytest.mark.usefixtures("ray_session")
def test_a_node_that_does_not_see_the_storage_fails(tmp_path: Path) -> None:
    nodes = {"here": alive_nodes()[0], "gone": Node("0" * 56, "192.0.2.1")}
    here, gone = storage_checks(str(tmp_path), nodes)
    assert (here.status, gone.status) == ("ok", "fail")


def test_no_cluster_at_the_address_fails_at_once() -> None:
    # A process of its own: where Ray is connected, as in ours, it is used.
    code = "from sngd_tune.doctor.cluster import cluster_checks; print(*cluster_checks('127.0.0.1:9'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Check(name='cluster', status='fail'")
    assert "127.0.0.1:9" in done.stdout


@pytest.fixture
def survey() -> Survey:
    return Survey(versions=installed(wanted()), gpus=[], token=("/t", 0o600), dashboard="127.0.0.1:8265")


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({}, "ok", "as on the driver"),
        ({"token": None, "dashboard": None}, "ok", "as on the driver"),
        ({"token": ("/t", 0o644)}, "fail", "/t: mode 0644, others may read the token"),
        ({"dashboard": "0.0.0.0:8265"}, "warn", "the dashboard listens on 0.0.0.0:8265"),
        ({"token": ("/t", 0o640), "dashboard": "10.0.0.1:8265"}, "fail", "/t: mode 0640"),
    ],
)
def test_what_a_node_says_is_judged(survey: Survey, changes: dict[str, object], status: str, detail: str) -> None:
    check = survey_check("node", replace(survey, **changes), installed(wanted()), strangers=False)
    assert check.status == status
    assert detail in check.detail
    assert bool(check.remedy) == (status != "ok")


def test_a_worker_with_another_torch_than_the_drivers_fails(survey: Survey) -> None:
    there = replace(survey, versions={**survey.versions, "torch": "2.11.0"})
    check = survey_check("node", there, survey.versions, strangers=False)
    assert (check.status, check.detail) == ("fail", f"torch 2.11.0 (driver: {survey.versions['torch']})")


GPU = Gpu(index=0, uuid="GPU-1", name="A", total=80 * 10**9, free=79 * 10**9, uncorrected=0)


@pytest.mark.parametrize(
    ("gpu", "status", "remedy"),
    [
        (GPU, "ok", ""),
        (replace(GPU, free=10**9, processes=(GpuProcess(7, 70 * 10**9),)), "ok", ""),
        (replace(GPU, free=10**9), "warn", "no process owns"),
        (replace(GPU, slowed=True), "warn", "heat or power"),
        (replace(GPU, uncorrected=2, slowed=True), "fail", "2 uncorrected ECC errors"),
    ],
)
def test_the_health_of_a_gpu_is_judged(gpu: Gpu, status: str, remedy: str) -> None:
    (check,) = gpu_check("node", Node("", "", gpus=1), [gpu])
    assert (check.name, check.status) == ("node: GPU 0", status)
    assert remedy in check.remedy


def test_gpus_that_ray_gives_out_and_nvml_does_not_see_are_a_warning() -> None:
    (check,) = gpu_check("node", Node("", "", gpus=2), [])
    assert check.status == "warn"
    assert list(gpu_check("node", Node("", ""), [])) == []


_OWN_TOKEN = """
import json, sys
from sngd_tune.cluster.session import ray_session
from sngd_tune.doctor.cluster import cluster_checks
with ray_session():
    print(json.dumps({check.name.rpartition(" ")[2]: [check.status, check.detail] for check in cluster_checks(None)}))
"""


@pytest.mark.slow
def test_our_own_ray_refuses_strangers_and_keeps_its_token_to_itself(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # sockets want a short path
        environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
        environment |= {"HOME": str(tmp_path), "RAY_TMPDIR": folder}
        command = [sys.executable, "-c", _OWN_TOKEN]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["authentication"][0] == "ok", found
    assert found["node"][0] == "ok", found
