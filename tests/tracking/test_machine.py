import json
import os
import platform
from pathlib import Path

import psutil
import pytest

from sngd_tune.errors import LedgerError
from sngd_tune.records.machine import Machine, processor_name
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.provenance import this_machine
from tests.tracking.samples import new_ledger


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert machine.cpu
    assert machine.system


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU @ 3.0GHz\n\nmodel name\t: another\n", "Fast CPU @ 3.0GHz"),
        ("processor\t: 0\nCPU part\t: 0xd0c\n", None),
    ],
)
def test_the_processor_has_the_name_that_linux_gives_it(tmp_path: Path, text: str, name: str | None) -> None:
    other = platform.processor() or platform.machine()
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_name(tmp_path / "cpuinfo") == (name or other)
    assert processor_name(tmp_path / "missing") == other


def test_the_driver_names_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_machine().gpus == ()
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3'\necho 'NVIDIA H100 80GB HBM3'\n")
    command.chmod(0o755)
    assert this_machine().gpus == ("NVIDIA H100 80GB HBM3",) * 2


def test_the_manifest_keeps_the_machine(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    assert ledger.manifest.machine == this_machine()
    assert Ledger.open(ledger.directory).manifest == ledger.manifest


def _rewrite(ledger: Ledger, **changes: object) -> None:
    for name in ("study.json", ".study.json"):
        path = ledger.directory / name
        values = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_a_ledger_of_before_the_machine_was_recorded_opens(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    _rewrite(ledger, machine=...)
    assert Ledger.open(ledger.directory).manifest.machine is None


def test_gpus_come_back_as_they_were(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    machine = Machine(cpu="c", cores=4, memory_bytes=8, gpus=("a", "b"), system="s")
    _rewrite(ledger, machine={**vars(machine)})
    assert Ledger.open(ledger.directory).manifest.machine == machine


@pytest.mark.parametrize("machine", [{}, {"cpu": "c"}, {"gpus": [], "unknown": 1}, "a machine"])
def test_a_damaged_machine_is_a_damaged_manifest(tmp_path: Path, machine: object) -> None:
    ledger = new_ledger(tmp_path)
    _rewrite(ledger, machine=machine)
    with pytest.raises(LedgerError, match=r"study\.json: not a readable manifest"):
        Ledger.open(ledger.directory)
