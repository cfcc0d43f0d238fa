"""The copy of a run directory in a storage, and going on from it."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.comparison import Cell, ComparisonConfig
from sngd_tune.records.target import Target
from sngd_tune.storage import open_place
from sngd_tune.tracking.comparison import ComparisonManifest
from sngd_tune.tracking.continuation import begun_study, check_absent, fetch, fetch_run, holds_run
from sngd_tune.tracking.lease import LEASE, Lease, hold_lease
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.tracking.replica import Replica, is_directory, run_place
from tests.commands import invoke
from tests.s3 import S3Server
from tests.tracking.samples import new_ledger, study, trial, write

_PASSWORD = "postgresql+psycopg://ann:s3cret@db/mlflow"


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "storage")
    server: S3Server = request.getfixturevalue("s3")
    return server.uri(tmp_path.name)


@pytest.fixture
def lease(storage: str, tmp_path: Path) -> Iterator[Lease]:
    """Of the study of `new_ledger`."""
    with hold_lease(run_place(storage, tmp_path / "runs" / "digits"), beat=0.2) as held:
        assert held is not None
        yield held


def comparison(**changes: Any) -> ComparisonManifest:
    """Of one method on one workload."""
    values = {"schema": 1, "name": "toy", "candidate": "sgd", "methods": {"sgd": "sgd.yaml"}}
    budget = {"workload": "digits_mlp", "name": "digits", "seconds": 1.0}
    config = ComparisonConfig.model_validate({**values, "workloads": [budget], **changes})
    cell = Cell(workload="digits", method="sgd", study=study(name="digits", **changes))
    return ComparisonManifest.new(
        config, {"digits": Target(metric="validation_loss", value=0.5, provenance="here")}, [cell]
    )


def test_a_finished_study_is_there_whole_and_comes_back_as_it_was(lease: Lease, storage: str, tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    replica = Replica(ledger.directory, lease)
    written = [write(ledger, trial(number)) for number in range(3)]
    (ledger.directory / "best.yaml").write_text("lr: 0.1\n")
    (ledger.directory / ".lock").touch()
    assert replica.close() == 0
    before = ledger.epochs()
    shutil.rmtree(ledger.directory)

    uri = lease.place.uri
    directory, named = fetch_run(uri, None, tmp_path / "other")
    assert (directory, open_place(named).root) == (tmp_path / "other" / "digits", open_place(storage).root)
    back = Ledger.open(directory)
    assert back.trials() == written
    assert back.epochs() == before
    assert back.manifest == ledger.manifest
    assert {path.name for path in directory.iterdir()} == {"best.yaml", "ledger", "study.json"}


def test_what_changes_is_copied_again_and_the_ledger_only_once(
    lease: Lease, tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    ledger = new_ledger(tmp_path)
    write(ledger, trial())
    page = ledger.directory / "report.html"
    page.write_text("first")
    replica = Replica(ledger.directory, lease, period=0.05)
    eventually(lambda: replica.missing == 0)
    name = next(name for name in lease.place.names() if name.startswith("ledger/"))
    lease.place.write(name, b"marked")
    page.write_text("second, longer")
    assert replica.close() == 0
    assert lease.place.read("report.html") == b"second, longer"
    assert lease.place.read(name) == b"marked"

    again = Replica(ledger.directory, lease)  # a later session
    assert again.close() == 0
    assert lease.place.read(name) == b"marked"


def test_a_completed_trial_is_never_there_without_its_epochs(tmp_path: Path) -> None:
    with hold_lease(run_place(str(tmp_path / "storage"), tmp_path / "runs" / "digits"), beat=0.2) as lease:
        assert lease is not None
        ledger = new_ledger(tmp_path)
        for number in range(5):
            write(ledger, trial(number))
        assert Replica(ledger.directory, lease).close() == 0
    there = [path for path in (tmp_path / "storage" / "digits").rglob("*") if path.is_file()]
    order = [path.name for path in sorted(there, key=lambda path: path.stat().st_mtime_ns)]
    assert order[0] == Manifest.NAME
    for number in range(5):
        (epochs,) = (i for i, name in enumerate(order) if name.startswith(f"{number:04d}-a0-e1-"))
        (completed,) = (i for i, name in enumerate(order) if name.startswith(f"{number:04d}-a0-completed-"))
        assert epochs < completed


def test_a_storage_that_is_away_for_a_while_gets_everything_later(
    tmp_path: Path, eventually: Callable[[Callable[[], bool]], None], caplog: pytest.LogCaptureFixture
) -> None:
    mount = tmp_path / "storage"
    with hold_lease(run_place(str(mount), tmp_path / "runs" / "digits"), beat=0.2) as lease:
        assert lease is not None
        ledger = new_ledger(tmp_path)
        replica = Replica(ledger.directory, lease, period=0.05)
        eventually(lambda: replica.missing == 0)
        mount.rename(tmp_path / "away")
        write(ledger, trial())
        eventually(lambda: "is behind" in caplog.text)
        assert replica.missing == 3
        assert not mount.exists()
        (tmp_path / "away").rename(mount)
        assert replica.close() == 0
        assert len(lease.place.below("ledger").names()) == 3


def test_what_a_storage_that_stays_away_lacks_is_counted(tmp_path: Path) -> None:
    mount = tmp_path / "storage"
    with hold_lease(run_place(str(mount), tmp_path / "runs" / "digits"), beat=0.2) as lease:
        assert lease is not None
        ledger = new_ledger(tmp_path)
        mount.rename(tmp_path / "away")
        write(ledger, trial())
        assert Replica(ledger.directory, lease).close(timeout=0.5) == 4


def test_after_the_lease_is_lost_nothing_is_written(
    tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with hold_lease(run_place(str(tmp_path / "storage"), tmp_path / "runs" / "digits"), beat=0.1) as lease:
        assert lease is not None
        ledger = new_ledger(tmp_path)
        lease.place.write(LEASE, b'{"id": "x", "host": "elsewhere", "pid": 7, "since": 0.0}')
        eventually(lambda: lease.lost)
        Replica(ledger.directory, lease).close()
        assert lease.place.names() == [LEASE]


def test_passwords_stay_at_home_and_come_back_from_the_environment(lease: Lease, tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path, mlflow={"tracking_uri": _PASSWORD})
    assert Replica(ledger.directory, lease).close() == 0
    assert b"s3cret" not in lease.place.read(Manifest.NAME)
    with pytest.raises(ConfigurationError, match=r"has no password in it; name the URI .* SNGD_TUNE_TRACKING_URI"):
        fetch(lease.place, tmp_path / "other")
    assert not Manifest.present(tmp_path / "other")
    fetch(lease.place, tmp_path / "other", ["http://else", _PASSWORD])
    assert Ledger.open(tmp_path / "other").config.mlflow.tracking_uri == _PASSWORD
    assert (tmp_path / "other" / Manifest.NAME).stat().st_mode & 0o077 == 0


def test_a_comparison_is_there_with_its_studies_and_without_its_passwords(lease: Lease, tmp_path: Path) -> None:
    manifest = comparison(mlflow={"tracking_uri": _PASSWORD})
    directory = tmp_path / "runs" / "digits"
    manifest.write(directory)
    replica = Replica(directory, lease, manifest.folders(directory))
    (cell,) = manifest.cells
    ledger = Ledger.create(cell.directory(directory), cell.study)
    written = write(ledger, trial())
    (directory / "digits" / "checkpoints").mkdir()
    (directory / "digits" / "checkpoints" / "0000-000001-00000000.pt").touch()
    assert replica.close() == 0
    names = lease.place.names()
    assert {name for name in names if not name.endswith(".parquet")} == {
        *(LEASE, ComparisonManifest.NAME, f"digits/sgd/{Manifest.NAME}")
    }
    assert not [name for name in names if b"s3cret" in lease.place.read(name)]

    with pytest.raises(ConfigurationError, match="has no password in it"):
        fetch(lease.place, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    fetch(lease.place, tmp_path / "other", [_PASSWORD])
    assert ComparisonManifest.read(tmp_path / "other") == manifest
    back = Ledger.open(cell.directory(tmp_path / "other"))
    assert (back.trials(), back.manifest) == ([written], ledger.manifest)
    shutil.rmtree(ledger.directory)
    fetch(lease.place, directory)  # which has the password
    assert Ledger.open(ledger.directory).manifest == ledger.manifest


def test_a_study_that_has_no_trial_yet_goes_on(lease: Lease, tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    assert Replica(ledger.directory, lease).close() == 0
    fetch(lease.place, tmp_path / "other")
    written = write(Ledger.open(tmp_path / "other"), trial())
    assert Ledger.open(tmp_path / "other").trials() == [written]


def test_a_copy_is_looked_at_and_left_as_it_is(lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = new_ledger(tmp_path, mlflow={"tracking_uri": _PASSWORD})
    write(ledger, trial())
    assert Replica(ledger.directory, lease).close() == 0
    shutil.rmtree(ledger.directory)
    run = lease.place.uri if "://" in lease.place.uri else f"file://{lease.place.uri}"
    before = {name: lease.place.read(name) for name in lease.place.names() if name != LEASE}

    code, out, err = invoke("status", run, "--format", "json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["directory"], found["trials_finished"], found["holder"]["pid"]) == (run, 1, os.getpid())
    assert time.time() - found["holder"]["heard"] < 60
    code, out, err = invoke("report", run, "--html")
    assert code == 0, err
    assert "1 trials (1 completed)" in out
    assert "digits" in (tmp_path / "digits-report.html").read_text(encoding="utf-8")
    assert {name: lease.place.read(name) for name in lease.place.names() if name != LEASE} == before
    assert not ledger.directory.exists()


@pytest.mark.parametrize("command", ["status", "report", "resume"])
def test_where_no_run_lies_the_place_and_what_is_missing_are_named(command: str, lease: Lease) -> None:
    run = lease.place.below("nothing").uri
    code, _, err = invoke(command, run if "://" in run else f"file://{run}")
    assert code == 2
    assert "nothing" in err
    assert "no study" in err
    assert "check the path" in err


def test_a_directory_that_was_left_behind_gets_what_it_lacks(lease: Lease, tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    first = write(ledger, trial(0))
    Replica(ledger.directory, lease).close()
    fetch(lease.place, tmp_path / "other" / "digits")
    second = write(Ledger.open(tmp_path / "other" / "digits"), trial(1))
    Replica(tmp_path / "other" / "digits", lease).close()
    fetch(lease.place, ledger.directory)
    assert ledger.trials() == [first, second]


def test_another_study_of_that_name_is_not_mixed_in(lease: Lease, tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    check_absent(lease.place)
    Replica(ledger.directory, lease).close()
    with pytest.raises(ConfigurationError, match="a study is there already; continue it with `sngd-tune resume"):
        check_absent(lease.place)
    other = Ledger.create(tmp_path / "other", study())
    with pytest.raises(ConfigurationError, match="holds another run than"):
        fetch(lease.place, other.directory)


def test_a_directory_has_the_name_of_its_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"must have its name; choose .*/there/mine"):
        fetch_run(f"file://{tmp_path}/storage/mine", tmp_path / "there", tmp_path)


def test_no_study_is_no_study(tmp_path: Path) -> None:
    place = open_place(tmp_path / "nothing")
    assert not holds_run(place)
    with pytest.raises(ConfigurationError, match=r"nothing: no study, comparison or scaling study there"):
        fetch(place, tmp_path / "other")


def test_a_run_directory_on_the_shared_path_is_its_own_copy(tmp_path: Path) -> None:
    place = run_place(str(tmp_path), tmp_path / "digits")
    assert place is not None
    assert is_directory(place, tmp_path / "digits")
    assert not is_directory(place, tmp_path / "runs" / "digits")
    assert run_place(None, tmp_path) is None


def test_a_repeated_command_goes_on_from_the_directory_or_its_copy(lease: Lease, storage: str, tmp_path: Path) -> None:
    config = study(storage=storage)
    directory = tmp_path / "runs" / "digits"
    assert begun_study(config, directory) is None
    ledger = Ledger.create(directory, config)
    write(ledger, trial())
    Replica(directory, lease).close()
    for _ in ("present", "fetched"):
        begun = begun_study(config, directory)
        assert begun is not None
        assert begun.trials() == ledger.trials()
        shutil.rmtree(directory)
        (tmp_path / "runs").mkdir(exist_ok=True)
    changed = study(storage=storage, epochs=4, search={"trials": 8})
    with pytest.raises(ConfigurationError, match=r"epochs: 3 there, 4 here; search\.trials: 32 there, 8 here"):
        begun_study(changed, directory)


@pytest.mark.parametrize("storage", ["s3://key:s3cret@runs/here", "s3://runs/here?secret=s3cret"])
def test_a_storage_with_a_password_in_its_name_is_refused(storage: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"\*\*\*.*: has a password in it; leave that to the environment"
    ) as refused:
        run_place(storage, tmp_path)
    assert "s3cret" not in str(refused.value)
