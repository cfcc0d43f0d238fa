"""The batch script for Slurm, run by a `srun` and a `scontrol` that stand in for Slurm's, on two pretended machines.

The machines are network namespaces, so that Ray's nodes have addresses and ports of their own as on a real cluster.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sngd_tune.cluster.render import PLACES, render, write
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from tests.cluster.places import ROOT
from tests.studies import outcomes

sys.path.append(str(ROOT / "cluster" / "local"))
from machines import Namespaces, available  # `cluster/local` is a script and no package

JOB = os.getpid()
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do
    case $1 in --nodelist=node*) node=${1#*=node} ;; esac
    shift
done
exec nsenter --net=/run/netns/%s-"${node%%%%,*}" -- "$@"
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
    show) tr , '\\n' <<<"$3" ;;
    requeue) echo "$2" >>%s/requeued ;;
esac
"""
STUDY = """
schema: 1
name: slurm
workload: digits_mlp
epochs: 12
space: {lr: {low: 0.01, high: 0.2, log: true}}
search: {trials: 8, scheduler: {name: none}, checkpoint_seconds: 0}
confirm: {seeds: 0}
mlflow: {enabled: false}
"""


class Slurm:
    """Runs jobs as Slurm does, on `node0` and `node1`; its commands are in `bin` of the folder."""

    def __init__(self, folder: Path, machines: Namespaces) -> None:
        self._folder, self._machines = folder, machines
        self.jobs: list[subprocess.Popen[bytes]] = []

    def submit(self) -> subprocess.Popen[bytes]:
        """What `sbatch` does: the script on the first node, with the variables of a job of two."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SNGD_TUNE_", "MLFLOW_"))
        }
        job = {"SLURM_JOB_ID": str(JOB), "SLURM_JOB_NODELIST": "node0,node1", "SLURM_JOB_NUM_NODES": "2"}
        path = os.pathsep.join((str(self._folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
        with (self._folder / "log").open("ab") as log:
            command = [*self._machines.prefix(0), "bash", "study.sbatch"]
            environment = {**kept, **job, "PATH": path}
            self.jobs.append(subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log))
        return self.jobs[-1]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    machines = available(f"slurm{JOB}")
    if not isinstance(machines, Namespaces):
        pytest.skip("two pretended machines need network namespaces: root, `ip` and `nsenter`")
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN % f"slurm{JOB}"), ("scontrol", SCONTROL % tmp_path)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    machines.open()
    try:
        for number in (0, 1):
            machines.add(number)
        started = Slurm(tmp_path, machines)
        yield started
        for job in started.jobs:  # those of a test that failed
            job.terminate()
            job.wait(60)
    finally:
        machines.close()


def until_finished(directory: Path, trials: int, job: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + 200
    while not (directory / "study.json").exists() or len(finished(directory)) < trials:
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.2)


def finished(directory: Path) -> dict[str, TrialRecord]:
    """The records of trials that have completed, by name."""
    records = Ledger.open(directory).trials()
    return {record.trial: record for record in records if record.outcome is Outcome.COMPLETED}


def processes_of_the_job() -> list[str]:
    """Command lines that name Ray's folder of the job."""
    found = []
    for process in psutil.process_iter():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return [line for line in found if f"/tmp/ray-{JOB}" in line]


@pytest.mark.slow
@pytest.mark.timeout(600)  # a busy machine starts four Ray nodes slowly
def test_a_study_goes_on_in_the_next_job_when_the_time_is_up(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    answers = {"runs": str(tmp_path / "runs"), "name": "digits", "cpus": 1, "memory_gb": 1}
    write(render("slurm", PLACES["slurm"].model_validate(answers), tmp_path), tmp_path)
    directory = tmp_path / "runs" / "digits"

    first = slurm.submit()
    token = tmp_path / "runs" / f".ray-{JOB}" / "token"
    until_finished(directory, 2, first, tmp_path / "log")
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert token.read_text() not in " ".join(processes_of_the_job())
    first.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@120 does
    assert first.wait(90) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "requeued").read_text() == f"{JOB}\n"
    assert (processes_of_the_job(), token.parent.exists(), Path(f"/tmp/ray-{JOB}").exists()) == ([], False, False)
    before = finished(directory)
    assert 2 <= len(before) < 8

    second = slurm.submit()
    assert second.wait(200) == 0, (tmp_path / "log").read_text()
    ledger = Ledger.open(directory)
    assert list(outcomes(ledger).values()) == ["completed"] * 8
    after = finished(directory)
    assert {trial: after[trial] for trial in before} == before  # none is repeated
    assert (processes_of_the_job(), token.parent.exists(), Path(f"/tmp/ray-{JOB}").exists()) == ([], False, False)
