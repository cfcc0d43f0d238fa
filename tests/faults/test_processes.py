"""Processes and nodes that die, or are about to, while a study runs on a cluster."""

import pytest

from sngd_tune.tracking.ledger import Ledger
from tests.commands import invoke
from tests.faults.disturbed import Disturbed, finish
from tests.faults.nodes import lives, until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken(disturbed: Disturbed, calm: Ledger) -> None:
    with disturbed.run() as driver:
        disturbed.await_two_at_work(driver)
        for trial in disturbed.nodes.trials().values():
            trial.suspend()
        checkpoints = sorted((disturbed.directory / "checkpoints").rglob("*.pt"), key=lambda path: path.name)
        newest = checkpoints[-1]
        damaged = bytearray(newest.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        newest.write_bytes(damaged)
        for trial in disturbed.nodes.trials().values():
            trial.kill()
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm)
    again = disturbed.trained_again
    assert 1 <= again[newest.parent.name] <= 2
    assert len(again) == 2


def test_a_killed_node_loses_no_trial(disturbed: Disturbed, calm: Ledger) -> None:
    with disturbed.run() as driver:
        disturbed.await_two_at_work(driver)
        disturbed.nodes.kill(next(iter(disturbed.nodes.trials())))
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm)
    (again,) = disturbed.trained_again.values()
    assert again <= 1, "more than a checkpoint's interval was lost"


def test_a_node_that_is_cut_off_loses_no_trial_and_may_come_back(disturbed: Disturbed, calm: Ledger) -> None:
    disturbed.nodes.require_addresses()
    with disturbed.run() as driver:
        disturbed.await_two_at_work(driver)
        name, trial = next(iter(disturbed.nodes.trials().items()))
        disturbed.nodes.cut(name)
        until(lambda: len(disturbed.trained_again) == 1, driver)
        disturbed.nodes.join(name)
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm)
    until(lambda: not lives(trial))


def test_a_node_that_leaves_loses_nothing_and_no_retry_is_counted(disturbed: Disturbed, calm: Ledger) -> None:
    disturbed.nodes.require_addresses()
    with disturbed.run("--set", "search.max_retries=0") as driver:
        disturbed.await_two_at_work(driver)
        name = next(iter(disturbed.nodes.trials()))
        with disturbed.nodes.started("cluster", "leave", "--seconds", "60", node=name) as leaving:
            finish(leaving)
        disturbed.nodes.kill(name)
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm)
    assert list(disturbed.trained_again.values()) == [0]


def test_a_killed_driver_is_resumed_and_a_second_resume_refused(disturbed: Disturbed, calm: Ledger) -> None:
    with disturbed.run() as driver:
        disturbed.await_middle(driver)
        driver.kill()
        driver.communicate()
    assert "abandoned by process" in invoke("status", disturbed.directory)[1]
    before = disturbed.finished
    with disturbed.resume() as driver:
        until(lambda: f'"pid": {driver.pid},' in (disturbed.directory / ".holder.json").read_text(), driver)
        with disturbed.resume() as second:
            _, err = second.communicate(timeout=60)
        assert (second.returncode, f"held by process {driver.pid}" in err) == (2, True), err
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm, before)
    assert all(again <= 1 for again in disturbed.trained_again.values()), "more than a checkpoint's interval was lost"


def test_a_killed_head_ends_the_driver_and_the_study_goes_on_on_a_new_cluster(
    disturbed: Disturbed, calm: Ledger
) -> None:
    with disturbed.run() as driver:
        disturbed.await_middle(driver)
        disturbed.nodes.kill("head")
        _, err = driver.communicate(timeout=120)
    assert driver.returncode not in (0, 2), err
    before = disturbed.finished
    disturbed.nodes.heal()
    with disturbed.resume() as driver:
        finish(driver)
    disturbed.assert_as_if_nothing_had_happened(calm, before)
    assert all(again <= 1 for again in disturbed.trained_again.values()), "more than a checkpoint's interval was lost"
