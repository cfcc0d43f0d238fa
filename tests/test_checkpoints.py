"""Checkpoints of a trial in a folder; the same place in an object store is in `tests/tracking/test_replica.py`."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sngd_tune.checkpoints import CheckpointCleaner, CheckpointStore
from sngd_tune.records.outcome import Outcome
from sngd_tune.storage import open_place
from tests.tracking.samples import ended, trial


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(open_place(tmp_path), "study", "0000")


def files(store: CheckpointStore) -> list[Path]:
    return sorted(Path(store.place.root, store.study, store.trial).iterdir())


def test_the_newest_two_are_kept_and_the_newest_is_read(store: CheckpointStore) -> None:
    assert store.newest() is None
    for epoch in (1, 2, 10):
        saved = store.save(0, epoch, f"epoch {epoch}".encode())
    assert [file.name[:11] for file in files(store)] == ["0000-000002", "0000-000010"]
    assert saved == str(files(store)[-1])
    assert store.newest() == b"epoch 10"


def test_a_later_attempt_is_newer_whatever_an_older_one_still_writes(store: CheckpointStore) -> None:
    store.save(1, 3, b"in its place")
    store.save(0, 9, b"cut off, and not aware of it")
    store.save(0, 10, b"and again")
    assert store.newest() == b"in its place"


@settings(max_examples=30, deadline=None)
@given(content=st.binary(min_size=1, max_size=64), damage=st.data())
def test_any_damage_is_found(tmp_path_factory: pytest.TempPathFactory, content: bytes, damage: st.DataObject) -> None:
    store = CheckpointStore(open_place(tmp_path_factory.mktemp("store")), "study", "0000")
    store.save(0, 1, b"the one before")
    store.save(0, 2, content)
    newest = files(store)[-1]
    index = damage.draw(st.integers(0, len(content) - 1))
    flipped = bytes([content[index] ^ damage.draw(st.integers(1, 255))])
    newest.write_bytes(content[:index] + damage.draw(st.sampled_from([flipped + content[index + 1 :], b""])))
    assert store.newest() == b"the one before"


def test_where_all_are_damaged_a_trial_begins_again(store: CheckpointStore) -> None:
    store.save(0, 1, b"once whole")
    files(store)[0].write_bytes(b"")
    assert store.newest() is None


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    store = CheckpointStore(open_place(tmp_path / "mount"), "study", "0000")
    with pytest.raises(FileNotFoundError):
        store.save(0, 1, b"lost")
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize(("outcome", "left"), [(Outcome.COMPLETED, 0), (Outcome.LOST, 0), (Outcome.INTERRUPTED, 1)])
def test_checkpoints_go_when_their_trial_has_finished(tmp_path: Path, outcome: Outcome, left: int) -> None:
    record = ended(trial(), outcome, checkpoint="/kept/1")
    place = open_place(tmp_path)
    store = CheckpointStore(place, record.study, record.trial)
    store.save(0, 1, b"state")
    CheckpointCleaner(place).trial_finished(record)
    assert len(files(store)) == left
