"""MLflow as the Deployment of `kuberay/` starts it, with PostgreSQL: names and passwords only."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml

from tests.cluster.places import documents
from tests.postgres import PASSWORD, Server

ADMIN = "Admin-vexed-0wl!"


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def server(postgres: Server, tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Its URL and its process: command and environment of the Deployment, on loopback instead of in a pod."""
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed (pip install 'sngd_tune[server]')")
    objects = [data for _, data in documents("kuberay")]
    settings, database = (data["data"] for data in objects if data["kind"] == "ConfigMap")
    (container,) = next(d for d in objects if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "CREATE DATABASE mlflow" in database["databases.sql"]
    port = free_port()
    (tmp_path / "basic_auth.ini").write_text(settings["basic_auth.ini"].replace("/artifacts", str(tmp_path)))
    values = {
        "MLFLOW_BACKEND_STORE_URI": postgres.database("cluster_mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "files"),
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "0123456789abcdef",
    }
    environment = {each["name"]: values.get(each["name"], each.get("value", "")) for each in container["env"]}
    command = [{"0.0.0.0": "127.0.0.1", "5000": str(port)}.get(word, word) for word in container["command"]]
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=tmp_path, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def status(url: str, path: str, password: str | None = None, host: str | None = None) -> int:
    headers = {"Authorization": "Basic " + b64encode(f"admin:{password}".encode()).decode()} if password else {}
    request = urllib.request.Request(url + path, headers={**headers, **({"Host": host} if host else {})})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.slow
def test_mlflow_lets_in_its_own_names_and_shows_no_password(server: tuple[str, psutil.Process]) -> None:
    url, process = server
    limit = time.monotonic() + 120
    while status(url, "/health", host="localhost:5000") != 200:  # the Deployment's probe
        assert process.is_running()
        assert time.monotonic() < limit
        time.sleep(0.5)
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(url, search) == 401
    assert status(url, search, "wrong") == 401
    assert status(url, search, ADMIN) == 200
    assert status(url, search, ADMIN, host="sngd-tune-mlflow:5000") == 200  # as the head asks
    assert status(url, search, ADMIN, host="evil.example") == 403
    words = [word for each in [process, *process.children(recursive=True)] for word in each.cmdline()]
    assert not [word for word in words if PASSWORD in word or ADMIN in word]


def test_the_probe_is_the_one_that_is_asked_here() -> None:
    (deployment,) = (data for _, data in documents("kuberay") if data["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    probe = yaml.safe_load('{path: /health, port: 5000, httpHeaders: [{name: Host, value: "localhost:5000"}]}')
    assert container["readinessProbe"]["httpGet"] == probe
