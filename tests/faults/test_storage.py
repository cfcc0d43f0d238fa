"""Storages that go away or are full, and files that are damaged."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sngd_tune.tracking.ledger import Ledger
from tests.commands import invoke
from tests.faults.disturbed import Disturbed, finish
from tests.faults.nodes import Nodes

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder of another file system, as far as programs can see: what is in it goes and comes with the mount."""
    (tmp_path / "server").mkdir()
    (tmp_path / "storage").mkdir()
    mount(tmp_path / "storage", "--bind", str(tmp_path / "server"))
    yield tmp_path / "storage"
    umount(tmp_path / "storage")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB: four checkpoints, or a dozen files of a ledger."""
    (tmp_path / "storage").mkdir()
    mount(tmp_path / "storage", "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    yield tmp_path / "storage"
    umount(tmp_path / "storage")


def mount(path: Path, *what: str) -> None:
    program = shutil.which("mount")
    if program is None or subprocess.run([program, *what, path], capture_output=True, check=False).returncode:
        pytest.skip("file systems can be mounted by root alone")


def umount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_storage_that_is_gone_for_ten_seconds_costs_no_trial(calm: Ledger, cluster: Nodes, mounted: Path) -> None:
    cluster.heal()
    disturbed = Disturbed(cluster, mounted)  # ledger and checkpoints
    with disturbed.run() as driver:
        disturbed.await_two_at_work(driver)
        umount(mounted)
        time.sleep(10)
        left = list(mounted.iterdir())
        mount(mounted, "--bind", str(mounted.with_name("server")))
        finish(driver)
    assert left == [], "a tree was made where the storage was not"
    disturbed.assert_as_if_nothing_had_happened(calm)
    assert disturbed.trained_again == {}


def test_a_full_storage_costs_the_copy_and_no_trial(disturbed: Disturbed, calm: Ledger, small: Path) -> None:
    with disturbed.run("--storage", small) as driver:
        err = finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm)
    assert disturbed.trained_again == {}
    assert "No space left on device" in err
    assert "the storage lacks" in err


@pytest.fixture
def copy(calm: Ledger, tmp_path: Path) -> Path:
    """A finished study, to be damaged."""
    return shutil.copytree(calm.directory, tmp_path / "run")


def test_a_truncated_manifest_is_made_again_from_its_copy(copy: Path) -> None:
    manifest = copy / "study.json"
    before = manifest.read_bytes()
    manifest.write_bytes(before[:200])
    assert invoke("status", copy)[0] == 0
    assert manifest.read_bytes() == before


def test_where_the_copy_is_truncated_too_it_is_named_and_all_is_left_alone(copy: Path) -> None:
    for name in ("study.json", ".study.json"):
        (copy / name).write_bytes((copy / name).read_bytes()[:200])
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for command in ("resume", "status", "report"):
        code, _, err = invoke(command, copy)
        assert code == 1
        assert "study.json: not a readable manifest" in err
        assert "restore it from a backup" in err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_truncated_file_of_the_ledger_is_named_and_without_it_the_trial_runs_again(
    disturbed: Disturbed, calm: Ledger, copy: Path
) -> None:
    (torn,) = (copy / "ledger" / "trials").glob("0002-*-completed-*")
    torn.write_bytes(torn.read_bytes()[:-100])
    with disturbed.resume() as driver:
        _, err = driver.communicate(timeout=60)
    assert (driver.returncode, f"{torn}: damaged" in err, "move it away" in err) == (1, True, True), err
    before = {record.trial: record for record in calm.trials() if record.trial != "0002"}
    torn.rename(copy / torn.name)
    with disturbed.resume() as driver:
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm, before)
