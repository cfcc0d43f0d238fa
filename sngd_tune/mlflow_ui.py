"""The MLflow UI as a child process on the loopback interface."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sngd_tune.display import say
from sngd_tune.doctor.machine import port_is_free
from sngd_tune.errors import ConfigurationError, SngdTuneError

__all__ = ["serve_ui", "ui_store"]

_START_SECONDS = 120.0
#: The list of experiments, among MLflow's tools for training; its own start page is about language models.
_PAGE = "/#/experiments?workflowType=machine_learning"
_STOP_SECONDS = 10.0


def ui_store(directory: Path | None, runs: Path, tracking_uri: str | None) -> str:
    """The MLflow store to show: of a study, comparison or scaling study, of a folder of them, or of the runs directory.

    Args:
        directory: a run directory, a folder of run directories, or None.
        runs: the folder that stands for None.
        tracking_uri: from a flag or the environment; wins over everything.

    Raises:
        ConfigurationError: no store is there yet.
    """
    from sngd_tune.tracking.client import default_tracking_uri
    from sngd_tune.tracking.comparison import ComparisonManifest
    from sngd_tune.tracking.group import store_uri
    from sngd_tune.tracking.ledger import Ledger
    from sngd_tune.tracking.manifest import Manifest
    from sngd_tune.tracking.scaling import ScalingManifest

    if tracking_uri is not None:
        return tracking_uri
    folder = directory or runs
    if Manifest.present(folder):
        uri = store_uri(folder.absolute(), Ledger.open(folder).config.mlflow)
    elif ComparisonManifest.present(folder):
        uri = store_uri(folder.absolute(), ComparisonManifest.read(folder).config.mlflow)
    elif ScalingManifest.present(folder):
        uri = store_uri(folder.absolute(), ScalingManifest.read(folder).config.mlflow)
    else:
        uri = default_tracking_uri(folder / "study")
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise ConfigurationError(f"{path}: no MLflow store there; run a study first, or name its directory")
    return uri


def serve_ui(tracking_uri: str, port: int) -> None:
    """Serve the UI until Ctrl-C or SIGTERM; the address is printed once it answers.

    Raises:
        ConfigurationError: the port is in use.
        MissingDependencyError: MLflow is not installed.
        SngdTuneError: the server ended by itself, or did not answer in time.
    """
    from sngd_tune.tracking.client import require_mlflow

    if not port_is_free(port):
        raise ConfigurationError(f"port={port}: in use; choose another with --port")
    require_mlflow()
    # A group of its own, so that ending it ends the workers that MLflow starts as well.
    command, environment = _command(tracking_uri, port), _environment(tracking_uri)
    child = subprocess.Popen(command, env=environment, start_new_session=True, stdout=2)  # our own output is for data
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _wait_until_up(child, port)
        print(f"http://127.0.0.1:{port}{_PAGE}", flush=True)
        say("Ctrl-C ends the MLflow UI")
        code = child.wait()
        raise SngdTuneError(f"the MLflow server ended by itself with exit code {code}; its messages are above")
    except KeyboardInterrupt:
        say("ending the MLflow UI")
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(child)


def _command(tracking_uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level=warning"]  # else a line for each request
    if tracking_uri.startswith("sqlite:///"):
        artifacts = Path(tracking_uri.removeprefix("sqlite:///")).parent / "mlartifacts"
        command += ["--artifacts-destination", str(artifacts)]
    return command


def _environment(tracking_uri: str) -> dict[str, str]:
    """The store goes through the environment: arguments are shown to every user of the machine, passwords included."""
    return {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": tracking_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes for features that nothing here uses
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",  # of MLflow about its own libraries
    }


def _wait_until_up(child: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise SngdTuneError(
                f"the MLflow server did not start (exit code {child.returncode}); its messages are above"
            )
        with contextlib.suppress(OSError):  # URLError is one
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        time.sleep(0.3)
    raise SngdTuneError(f"the MLflow server did not answer within {_START_SECONDS:.0f} s")


def _end(child: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_SECONDS)
            return
