"""Optuna's study in storages that outlive the process: several drivers, resumes, and a store that goes away."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import optuna
import pytest
from optuna.trial import TrialState

from sngd_tune.errors import ConfigurationError, StudyStorageError
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.past import PastTrial
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.searcher import StudySearcher
from sngd_tune.search.stores import open_storage
from sngd_tune.search.study_storage import check_study_storage, open_study
from tests.commands import invoke
from tests.postgres import PASSWORD, Server
from tests.search.studies import HEAD, SEARCH_SPACES, study

LR = (
    HEAD
    + "space: {lr: {low: 1e-3, high: 1, log: true}}\n"
    + "start: [{lr: 0.5}, {lr: 0.25}]\n"
    + "search: {trials: 6, sampler: random}\n"
)


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.slow), "sqlite", "journal"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage of each kind."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        return server.database(tmp_path.name)
    return {"sqlite": f"sqlite:///{tmp_path}/optuna.db", "journal": f"journal:{tmp_path}/optuna.log"}[request.param]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away is waited for for a second."""
    monkeypatch.setattr("sngd_tune.search.study_storage.PATIENCE", 1.0)


def config(uri: str, *overrides: str) -> StudyConfig:
    return study(LR, f"search.optuna.storage='{uri}'", *overrides)


class Drive(Protocol):
    """Makes the searcher of a driver, with its past; the storage is left when the test ends."""

    def __call__(self, settings: StudyConfig, driver: str, *past: PastTrial) -> StudySearcher: ...


@pytest.fixture
def drive() -> Iterator[Drive]:
    with ExitStack() as opened:

        def driven(settings: StudyConfig, driver: str, *past: PastTrial) -> StudySearcher:
            return StudySearcher(settings, past, opened.enter_context(open_study(settings, driver)))

        yield driven


def complete(found: StudySearcher, trial_id: str, loss: float) -> dict[str, Any]:
    proposed = found.suggest(trial_id)
    assert isinstance(proposed, dict)
    found.on_trial_complete(trial_id, {"epoch": 4, "validation_loss": loss, "outcome": "completed"})
    return proposed


def past(number: int, outcome: Outcome, lr: float, **others: Any) -> PastTrial:
    return PastTrial(trial=f"{number:04d}", number=number, parameters={"lr": lr}, seed=11, outcome=outcome, **others)


def stored(uri: str, name: str) -> list[optuna.trial.FrozenTrial]:
    """What a stranger finds there."""
    with open_storage(uri) as storage:
        return optuna.load_study(study_name=name, storage=storage).trials


def names(uri: str) -> set[str]:
    with open_storage(uri) as storage:
        return set(optuna.get_all_study_names(storage))


def test_runs_of_one_name_have_studies_of_their_own(drive: Drive, uri: str) -> None:
    first, second = drive(config(uri), "aa"), drive(config(uri), "bb")
    assert complete(first, "t", 1.0)["parameters"] == complete(second, "t", 2.0)["parameters"] == {"lr": 0.5}
    assert names(uri) == {"small-aa", "small-bb"}
    assert [trial.value for trial in stored(uri, "small-aa")] == [1.0]


def test_drivers_of_a_shared_study_see_each_others_trials_and_keep_their_own_numbers(drive: Drive, uri: str) -> None:
    settings = config(uri, "search.optuna.study=ours")
    first, second = drive(settings, "aa"), drive(settings, "bb")
    proposed = [complete(driver, "t", loss) for loss, driver in enumerate([first, second, first, second])]
    assert [each["trial"] for each in proposed] == ["0000", "0000", "0001", "0001"]
    assert (
        [trial.value for trial in first.study.trials] == [trial.value for trial in second.study.trials] == [0, 1, 2, 3]
    )
    assert Counter(trial.user_attrs["sngd_tune.driver"] for trial in stored(uri, "ours")) == {"aa": 2, "bb": 2}
    # A starting point is trained once, and what is sampled instead is not what the other driver samples.
    assert len({each["parameters"]["lr"] for each in proposed}) == 4


def test_a_proposal_is_never_taken_by_another_driver(drive: Drive, uri: str) -> None:
    """`enqueue_trial` would leave starting points where whoever asks next takes them."""
    settings = config(uri, "search.optuna.study=ours")
    drivers = [drive(settings, name) for name in ("aa", "bb")]
    proposed: dict[str, list[Any]] = {}

    def ask(name: str, driver: StudySearcher) -> None:
        proposed[name] = [driver.suggest(str(index)) for index in range(6)]

    threads = [threading.Thread(target=ask, args=each) for each in zip("ab", drivers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, driver in zip(("a", "b"), drivers, strict=True):
        mine = [t for t in driver.study.trials if t.user_attrs["sngd_tune.driver"] == 2 * name]
        assert [trial.params["lr"] for trial in mine] == [each["parameters"]["lr"] for each in proposed[name]]
        assert [trial.user_attrs["sngd_tune.trial"] for trial in mine] == [each["trial"] for each in proposed[name]]


def test_a_resume_closes_what_the_killed_driver_left_running_and_leaves_other_drivers_alone(
    drive: Drive, uri: str
) -> None:
    settings = config(uri, "search.optuna.study=ours")
    killed, other = drive(settings, "aa"), drive(settings, "bb")
    complete(killed, "t0", 1.0)
    for name in ("t1", "t2", "t3"):
        killed.suggest(name)  # 1 is interrupted, 2 has completed and nobody was told, 3 never got into the ledger
    other.suggest("t")
    again = drive(
        settings, "aa",
        past(0, Outcome.COMPLETED, 0.5, values=(1.0,)),
        past(1, Outcome.INTERRUPTED, 0.25),
        past(2, Outcome.COMPLETED, 0.125, values=(3.0,), intermediate={4: 3.0}),
    )  # fmt: skip
    mine, others = [
        [trial.state for trial in stored(uri, "ours") if trial.user_attrs["sngd_tune.driver"] == name]
        for name in ("aa", "bb")
    ]
    assert mine == [TrialState.COMPLETE, *[TrialState.FAIL] * 3, TrialState.COMPLETE]
    assert others == [TrialState.RUNNING]
    assert again.suggest("t1")["trial"] == "0001"  # type: ignore[index]
    assert [again.suggest(str(number))["number"] for number in (3, 4, 5)] == [3, 4, 5]  # type: ignore[index]


def test_a_resume_doubles_no_trial_and_adds_those_that_the_store_lacks(drive: Drive, uri: str) -> None:
    first = drive(config(uri), "aa")
    complete(first, "t0", 1.0)
    first.suggest("t1")
    first.close()
    ledger = [past(0, Outcome.COMPLETED, 0.5, values=(1.0,)), past(1, Outcome.COMPLETED, 0.25, values=(2.0,))]
    for _ in range(2):
        drive(config(uri), "aa", *ledger)
        found = [(trial.state, trial.value) for trial in stored(uri, "small-aa")]
        assert found == [(TrialState.COMPLETE, 1.0), (TrialState.FAIL, None), (TrialState.COMPLETE, 2.0)]


def test_a_quasi_random_sequence_goes_on_where_the_store_has_it(drive: Drive, uri: str) -> None:
    settings = config(uri, "search.sampler=qmc", "start=[]")
    whole = StudySearcher(study(LR, "search.sampler=qmc", "start=[]"))
    expected = [complete(whole, str(index), 1.0)["parameters"] for index in range(5)]
    first = drive(settings, "aa")
    begun = [complete(first, str(index), 1.0) for index in range(3)]
    ledger = [past(each["number"], Outcome.COMPLETED, each["parameters"]["lr"], values=(1.0,)) for each in begun]
    again = drive(settings, "aa", *ledger)
    gone_on = [complete(again, str(index), 1.0)["parameters"] for index in range(2)]
    assert [each["parameters"] for each in begun] + gone_on == expected


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("space.lr.high=2",), "space"),
        (("epochs=5",), "epochs"),
        (("objectives=[validation_accuracy]",), "objectives"),
        (("fixed.momentum=0.5", "epochs=5"), "epochs, fixed"),
    ],
)
def test_another_search_may_not_share_the_study(
    drive: Drive, tmp_path: Path, other: tuple[str, ...], named: str
) -> None:
    shared = (f"journal:{tmp_path}/optuna.log", "search.optuna.study=ours")
    drive(config(*shared), "aa")
    check_study_storage(config(*shared, "search.trials=9", "search.sampler=tpe"))
    for refuse in (check_study_storage, lambda settings: drive(settings, "bb")):
        with pytest.raises(
            ConfigurationError, match=rf"search\.optuna\.study='ours': differs from this study in {named};"
        ):
            refuse(config(*shared, *other))


def test_a_study_that_is_none_of_ours_is_not_shared(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sngd_tune.search.study_storage._MAKING", 0.2)
    with open_storage(uri) as storage:
        optuna.create_study(storage=storage, study_name="ours")
    with pytest.raises(ConfigurationError, match="is none that sngd_tune has made"):
        check_study_storage(config(uri, "search.optuna.study=ours"))


@pytest.mark.slow
def test_drivers_that_make_the_tables_at_the_same_moment_both_begin(
    drive: Drive, postgres: Server, tmp_path: Path
) -> None:
    settings = config(postgres.database(tmp_path.name), "search.optuna.study=ours")
    begun, barrier = [], threading.Barrier(4)

    def begin(name: str) -> None:
        barrier.wait()
        begun.append(drive(settings, name))

    threads = [threading.Thread(target=begin, args=(name,)) for name in ("aa", "bb", "cc", "dd")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 4


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (f"postgresql+psycopg://ann:{PASSWORD}@127.0.0.1:1/db", r"//ann:\*\*\*@127.0.0.1:1/db: cannot be .*refused"),
        (f"postgresql+psycopg://ann:{PASSWORD}/x@127.0.0.1:1/db", r"its password has signs .* %2F"),
        (f"postgresql://127.0.0.1:1/db?user=ann&password={PASSWORD}", r"\?user=ann&password=\*\*\*: cannot"),
        (f"mysql+nosuch://ann:{PASSWORD}@h/db", "neither the URL of a database nor"),
        ("mysql+pymysql://ann@h/db", "its driver is not installed"),
        ("optuna.db", "neither the URL of a database nor"),
        ("sqlite:////nowhere/optuna.db", "cannot be opened"),
        ("journal:/nowhere/optuna.log", r"no journal can be kept there \(No such file or directory\)"),
        ("journal:optuna.log", "must be an absolute path"),
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_used_is_refused_before_anything_starts(uri: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        check_study_storage(config(uri))
    assert PASSWORD not in str(raised.value)


@pytest.mark.slow
def test_a_wrong_password_is_refused_and_not_shown(postgres: Server) -> None:
    uri = postgres.url("postgres").replace(PASSWORD, "wrong-one")
    with pytest.raises(ConfigurationError, match="password authentication failed") as raised:
        check_study_storage(config(uri))
    assert "wrong-one" not in str(raised.value)


def test_the_environment_names_the_storage_and_validate_does_not_show_its_password(
    bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNGD_TUNE_OPTUNA_STORAGE", f"postgresql+psycopg://ann:{PASSWORD}@db/optuna")
    _, out, _ = invoke("validate", SEARCH_SPACES / "digits_mlp.yaml", "--format", "json")
    assert json.loads(out)["study"]["search"]["optuna"]["storage"] == "postgresql+psycopg://ann:***@db/optuna"
    code, _, said = invoke("validate", SEARCH_SPACES / "digits_mlp.yaml", "--set", "search=1")
    assert code == 2
    assert PASSWORD not in out + said


def test_a_journal_may_be_away_for_a_moment_but_not_torn(drive: Drive, tmp_path: Path, impatient: None) -> None:
    (tmp_path / "shared").mkdir()
    found = drive(config(f"journal:{tmp_path}/shared/optuna.log"), "aa")
    found.suggest("t0")
    (tmp_path / "shared").rename(tmp_path / "away")
    back = threading.Timer(0.3, lambda: (tmp_path / "away").rename(tmp_path / "shared"))
    back.start()
    found.on_trial_complete("t0", {"epoch": 4, "validation_loss": 1.0, "outcome": "completed"})
    back.join()
    assert (found.failure, found.study.trials[0].value) == (None, 1.0)
    with (tmp_path / "shared" / "optuna.log").open("a") as journal:
        journal.write('{"op_code": 4, "wor\n{}\n')
    assert found.suggest("t1") == "FINISHED"
    assert "sngd-tune resume" in str(found.failure)


@pytest.mark.slow
def test_a_search_outlasts_a_restart_of_the_database(drive: Drive, postgres: Server, tmp_path: Path) -> None:
    found = drive(config(postgres.database(tmp_path.name)), "aa")
    found.suggest("t0")
    postgres.stop()
    back = threading.Timer(1.0, postgres.start)
    back.start()
    found.on_trial_complete("t0", {"epoch": 4, "validation_loss": 1.0, "outcome": "completed"})
    back.join()
    complete(found, "t1", 2.0)
    assert found.failure is None
    assert [(trial.state, trial.value) for trial in found.study.trials] == [
        (TrialState.COMPLETE, 1.0),
        (TrialState.COMPLETE, 2.0),
    ]


@pytest.mark.slow
def test_where_the_database_stays_away_what_runs_ends_and_a_resume_brings_it(
    drive: Drive, postgres: Server, tmp_path: Path, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(postgres.database(tmp_path.name))
    found = drive(settings, "aa")
    for name in ("t0", "t1"):
        found.suggest(name)
    postgres.stop()
    try:
        for name in ("t0", "t1"):
            found.on_trial_complete(name, {"epoch": 4, "validation_loss": 1.0, "outcome": "completed"})
        assert found.suggest("t2") == "FINISHED"
        found.close()
    finally:
        postgres.start()
    assert isinstance(found.failure, StudyStorageError)
    assert "sngd-tune resume" in str(found.failure)
    assert "is away" in caplog.text
    assert PASSWORD not in str(found.failure) + caplog.text
    ledger = [past(number, Outcome.COMPLETED, lr, values=(1.0,)) for number, lr in enumerate((0.5, 0.25))]
    again = drive(settings, "aa", *ledger)
    ends = [(trial.state, trial.value) for trial in again.study.trials]
    assert ends == [(TrialState.FAIL, None)] * 2 + [(TrialState.COMPLETE, 1.0)] * 2
