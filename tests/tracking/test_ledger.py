import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError, LedgerError, SchemaVersionError
from sngd_tune.records.energy import Energy
from sngd_tune.records.metrics import EpochMetrics, LayerDiagnostics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.trial_record import TrialRecord
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.schema import EPOCHS, TRIALS
from tests.tracking.samples import ended, epoch, new_ledger, study, times, trial, write

small = settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

integers = st.integers(min_value=0, max_value=2**62)
# NaN of one kind: others compare equal to none of it after a round trip through text.
floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _values(record: type) -> st.SearchStrategy:
    """Any instance of a record of metrics, from its annotations."""
    strategies = {
        int: integers,
        float: floats,
        str: text,
        float | None: st.none() | floats,
        str | None: st.none() | text,
        Mapping[str, float]: st.dictionaries(text, floats, max_size=3),
        tuple[LayerDiagnostics, ...]: st.lists(st.deferred(lambda: layers), max_size=3).map(tuple),
    }
    return st.builds(record, **{name: strategies[kind] for name, kind in record.__annotations__.items()})


layers = _values(LayerDiagnostics)
records = st.builds(
    TrialRecord,
    study=text,
    workload=text,
    trial=text,
    number=integers,
    phase=st.sampled_from(["search", "confirm"]),
    candidate=st.sampled_from(["", "best", "default"]),
    attempt=integers,
    parameters=st.dictionaries(text, st.booleans() | integers | st.floats(allow_nan=False) | text, max_size=4),
    seed=integers,
    outcome=st.sampled_from(Outcome),
    epochs=integers,
    objectives=st.dictionaries(text, st.none() | floats, max_size=3),
    test_loss=st.none() | floats,
    test_accuracy=st.none() | floats,
    training_seconds=floats,
    energy_joules=st.none() | floats,
    energy_source=st.none() | text,
    started=st.floats(0, 1e10),
    updated=st.floats(0, 1e10),
    ended=st.none() | st.floats(0, 1e10),
    error=st.none() | text,
    checkpoint=st.none() | text,
    code_version=text,
    host=text,
)


@small
@given(record=records)
def test_a_trial_comes_back_as_it_was(record: TrialRecord, tmp_path_factory: pytest.TempPathFactory) -> None:
    ledger = new_ledger(tmp_path_factory.mktemp("ledger"))
    ledger.write_trial(record)
    assert repr(Ledger.open(ledger.directory).trials()) == repr([record])  # repr: NaN equals itself there


@small
@given(measured=st.lists(_values(EpochMetrics), max_size=4, unique_by=lambda metrics: metrics.epoch))
def test_epochs_come_back_as_they_were(measured: list[EpochMetrics], tmp_path_factory: pytest.TempPathFactory) -> None:
    ledger = new_ledger(tmp_path_factory.mktemp("ledger"))
    ledger.write_epochs(trial(), measured, [float(metrics.epoch) for metrics in measured])
    expected = [("0000", float(metrics.epoch), metrics) for metrics in sorted(measured, key=lambda each: each.epoch)]
    assert repr(ledger.epoch_metrics()) == repr(expected)


def test_a_ledger_of_before_energy_and_communication_were_measured_is_read_with_their_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, columns = new_ledger(tmp_path), ("energy_joules", "energy_source", "communication_seconds")
    with monkeypatch.context() as old:
        for name, schema in (("EPOCHS", EPOCHS), ("TRIALS", TRIALS)):
            fields = [field for field in schema if field.name not in columns]
            old.setattr(f"sngd_tune.tracking.ledger.{name}", pa.schema(fields, schema.metadata))
        write(ledger, trial(0))
    files = list((ledger.directory / "ledger").rglob("*.parquet"))
    assert all(column not in pq.read_schema(file).names for file in files for column in columns)
    write(ledger, trial(1, energy_joules=2.0, energy_source="nvml"))
    again = Ledger.open(ledger.directory)
    assert [record.energy for record in again.trials()] == [None, Energy(2.0, "nvml")]
    assert {(metrics.energy, metrics.communication_seconds) for _, _, metrics in again.epoch_metrics("0000")} == {
        (None, 0.0)
    }


def test_parameters_of_single_layers_come_back_in_their_order(tmp_path: Path) -> None:
    """The first pattern that matches a layer counts."""
    ledger = new_ledger(tmp_path)
    given = {"rank": 4, "rank@encoder.0": 8, "decay@encoder.*": 0.5, "block@[02]": 2, "rank@encoder.*": 16}
    ledger.write_trial(trial(parameters=given))
    (record,) = Ledger.open(ledger.directory).trials()
    assert list(record.parameters.items()) == list(given.items())


def test_the_schema_holds_units_and_version() -> None:
    assert EPOCHS.field("epoch_seconds").metadata[b"unit"] == b"s"
    assert EPOCHS.field("layers").type.value_type.field("damping").metadata[b"unit"] == b"activation\xc2\xb2"
    assert not EPOCHS.field("training_loss").nullable
    assert EPOCHS.field("test_loss").nullable
    assert TRIALS.metadata[b"sngd_tune.ledger_version"] == b"1"


def test_files_carry_the_schema_with_its_units(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    path = ledger.write_epochs(trial(), [epoch(1)], [1.0])
    schema = pq.read_schema(path)
    assert schema.equals(EPOCHS)
    assert schema.metadata[b"sngd_tune.ledger_version"] == b"1"
    assert schema.field("update_seconds").metadata[b"unit"] == b"s"


def test_an_empty_ledger_reads_as_empty(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    assert ledger.trials() == []
    assert ledger.epochs().num_rows == 0
    assert ledger.epochs().schema.names == EPOCHS.names
    assert ledger.write_epochs(trial(), [], []) is None


def test_the_latest_state_of_the_highest_attempt_counts(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    first = trial()
    again = trial(attempt=1, started=500.0, updated=500.0)  # a host whose clock is behind
    for record in (again, ended(first, Outcome.INTERRUPTED), first):
        ledger.write_trial(record)
    assert ledger.trials() == [again]


def test_an_ended_state_beats_a_running_one_of_the_same_moment(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    last = ended(trial(), updated=1000.0, ended=1000.0)
    ledger.write_trial(last)
    ledger.write_trial(trial())
    assert ledger.trials() == [last]


def test_search_trials_come_first_and_in_order(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    for record in (trial(0, trial="confirm-best-0", phase="confirm"), trial(12), trial(2)):
        ledger.write_trial(record)
    assert [record.trial for record in ledger.trials()] == ["0002", "0012", "confirm-best-0"]


def test_an_attempt_replaces_what_it_does_again(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    for attempt, numbers in ((0, (1, 2, 3, 4)), (1, (3,)), (1, (3,))):  # lost after 4, back from the checkpoint of 2
        measured = [epoch(number, training_loss=attempt + 0.5) for number in numbers]
        record = trial(attempt=attempt)
        ledger.write_epochs(record, measured, times(record, measured))
    assert ledger.epochs().select(["epoch", "attempt"]).to_pylist() == [
        {"epoch": 1, "attempt": 0},
        {"epoch": 2, "attempt": 0},
        {"epoch": 3, "attempt": 1},
    ]
    assert ledger.dataset().count_rows() == 6


def test_epochs_of_one_trial(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    for number in range(3):
        write(ledger, trial(number))
    table = ledger.epochs("0001")
    assert set(table["trial"].to_pylist()) == {"0001"}
    assert table["epoch"].to_pylist() == [1, 2, 3]


def test_a_study_is_not_overwritten(tmp_path: Path) -> None:
    new_ledger(tmp_path)
    with pytest.raises(ConfigurationError, match="resume"):
        new_ledger(tmp_path)


def test_a_missing_study_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no study there"):
        Ledger.open(tmp_path / "nowhere")


def test_another_schema_version_is_refused_with_both_named(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    manifest = ledger.directory / "study.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "ledger_version": 7}))
    with pytest.raises(SchemaVersionError, match=r"version 7, this sngd_tune reads 1"):
        Ledger.open(ledger.directory)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"ledger_version": 1}', "not json"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    ledger = new_ledger(tmp_path)
    for name in ("study.json", ".study.json"):
        (ledger.directory / name).write_text(content)
    with pytest.raises(LedgerError, match=r"study\.json"):
        Ledger.open(ledger.directory)


@pytest.mark.parametrize("content", ["", '{"ledger_version": 1}', "not json"])
def test_a_damaged_manifest_is_taken_from_its_copy(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = new_ledger(tmp_path)
    manifest = ledger.directory / "study.json"
    whole = manifest.read_bytes()
    manifest.write_text(content)
    assert Ledger.open(ledger.directory).manifest == ledger.manifest
    assert manifest.read_bytes() == whole
    assert f"{manifest}: damaged" in caplog.text


def test_the_manifest_brings_the_configuration_back(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    opened = Ledger.open(ledger.directory)
    assert opened.config == study()
    assert opened.manifest == ledger.manifest
    assert opened.manifest.versions["pyarrow"] == pa.__version__


def test_a_password_in_the_manifest_is_for_the_owner_only(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path, mlflow={"tracking_uri": "https://ann:s3cret@mlflow.example"})
    assert (ledger.directory / "study.json").stat().st_mode & 0o077 == 0
    assert ledger.config.mlflow.tracking_uri == "https://ann:s3cret@mlflow.example"
    assert "s3cret" not in ledger.manifest.public_json()


@pytest.mark.parametrize("kind", ["trials", "epochs"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_named_and_nothing_is_dropped_in_silence(tmp_path: Path, kind: str, damage: str) -> None:
    ledger = new_ledger(tmp_path)
    write(ledger, trial(0))
    write(ledger, trial(1))
    path = sorted((ledger.directory / "ledger" / kind).iterdir())[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"truncated": content[:-20], "flipped": content, "empty": b""}
    path.write_bytes(bytes(damaged[damage]))
    with pytest.raises(LedgerError, match=path.name):
        ledger.trials() if kind == "trials" else ledger.epochs()


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    path = ledger.write_trial(trial())
    content = path.read_bytes()
    for position in range(0, len(content), 97):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(LedgerError, match="damaged"):
            ledger.trials()


def test_leftovers_of_a_killed_writer_are_not_read(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    last = write(ledger, trial())
    (ledger.directory / "ledger" / "trials" / ".0001-a0.parquet.ab12.tmp").write_bytes(b"PAR1 half a fi")
    assert ledger.trials() == [last]


def test_a_folder_that_is_away_is_waited_for_and_not_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = new_ledger(tmp_path)
    trials, away = ledger.directory / "ledger" / "trials", tmp_path / "away"
    trials.rename(away)
    back = threading.Timer(1.0, lambda: away.rename(trials))
    back.start()
    ledger.write_trial(trial())
    back.join()
    assert f"{trials}: away (No such file or directory)" in caplog.text
    assert len(ledger.trials()) == 1


def test_an_unwritable_ledger_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sngd_tune.tracking.files.PATIENCE_SECONDS", 0.0)
    ledger = new_ledger(tmp_path)
    (ledger.directory / "ledger" / "trials").rmdir()
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.write_trial(trial())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_earlier_trials_intact(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mount says {mounted.stderr.decode().strip()}")
    try:
        ledger = new_ledger(disk)
        done: list[TrialRecord] = []
        with pytest.raises(LedgerError, match=r"No space left.*sngd-tune resume"):
            while True:
                done.append(write(ledger, trial(len(done))))
        assert len(done) > 2
        assert ledger.trials()[: len(done)] == done
        assert set(ledger.epochs()["trial"].to_pylist()) >= {record.trial for record in done}
        assert not list(ledger.directory.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_readable_ledger(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    program = textwrap.dedent(
        """
        import sys
        from sngd_tune.tracking.ledger import Ledger
        from tests.tracking.samples import trial, write
        ledger, start = Ledger.open(sys.argv[1]), int(sys.argv[2])
        print("ready", flush=True)
        for number in range(start, start + 10_000):
            write(ledger, trial(number))
            print(number, flush=True)
        """
    )
    for loop in range(4):
        start = 100_000 * (loop + 1)
        command = [sys.executable, "-c", program, str(ledger.directory), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.05 + 0.013 * loop)
            writer.send_signal(signal.SIGKILL)
            reported = [int(line) for line in writer.stdout.read().splitlines()]
        finished = {record.number for record in ledger.trials() if record.outcome is Outcome.COMPLETED}
        assert finished >= set(reported)
        per_trial = ledger.epochs().group_by("trial").aggregate([("epoch", "count")])
        assert set(per_trial["epoch_count"].to_pylist()) <= {3}
