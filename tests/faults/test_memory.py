"""Main memory that is used up, as Ray's memory monitor sees it: it kills the process before the kernel kills any."""

import subprocess
from pathlib import Path

import psutil
import pytest

from sngd_tune.tracking.ledger import Ledger
from tests.examples.faults import RUNS_OUT_OF_MEMORY
from tests.faults.disturbed import write_study
from tests.faults.nodes import SNGD_TUNE, environment
from tests.studies import FAULTS, ROOT, epochs, outcomes

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

#: Bytes that may be taken, by us and by whatever else begins on this machine, before the monitor steps in.
_ROOM = 5_000_000_000


def test_a_trial_that_runs_out_of_memory_ends_as_such_and_is_not_tried_again(tmp_path: Path) -> None:
    sizes = [100, RUNS_OUT_OF_MEMORY, 100]
    file = write_study(
        tmp_path / "study.yaml",
        workload=f"{FAULTS}:Hungry",
        fixed={"lr": 0.05},
        space={"batch_size": {"choices": sorted(set(sizes))}},
        start=[{"batch_size": size} for size in sizes],
        search={"trials": len(sizes), "max_retries": 3, "resources": {"cpus": psutil.cpu_count()}},  # one by one
    )
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + _ROOM) / memory.total
    if threshold > 0.95:
        pytest.skip(f"needs {_ROOM / 1e9:g} GB of free memory")
    done = subprocess.run(
        [*SNGD_TUNE, "run", file, "--dir", tmp_path / "run"],
        cwd=ROOT,
        env={**environment(), "HOME": str(tmp_path), "RAY_memory_usage_threshold": f"{threshold:.4f}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ledger = Ledger.open(tmp_path / "run")
    assert outcomes(ledger) == {"0000": "completed", "0001": "out_of_memory", "0002": "completed"}
    assert [record.attempt for record in ledger.trials()] == [0, 0, 0]
    assert epochs(ledger, "0002") == epochs(ledger, "0000")
