import dataclasses
import io
from collections.abc import Callable, Sequence

import pytest
from rich.console import Console

from sngd_tune.progress import LiveProgress, PlainProgress, Tally, make_progress
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord

CONFIG = StudyConfig.model_validate(
    {
        "schema": 1, "name": "small", "workload": "w", "epochs": 4, "space": {"lr": {"low": 0.1, "high": 1.0}},
        "search": {"trials": 4}, "confirm": {"seeds": 1},
    }
)  # fmt: skip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(
    trial: str, outcome: Outcome = Outcome.COMPLETED, loss: float | None = None, **others: object
) -> TrialRecord:
    base = TrialRecord(study="small", workload="w", trial=trial, number=0, outcome=outcome, epochs=4)
    return dataclasses.replace(base, objectives={"validation_loss": loss}, **others)  # type: ignore[arg-type]


def _tally(past: Sequence[TrialRecord] = (), clock: Callable[[], float] = lambda: 0.0) -> Tally:
    return dataclasses.replace(Tally.of_study(CONFIG, past), clock=clock)


def test_a_line_tells_the_end_of_a_trial_the_best_and_the_time_left() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = PlainProgress(_tally(clock=clock), lines.append)
    clock.now = 5.0
    progress.trial_started(record("0000", Outcome.RUNNING))
    clock.now = 15.0
    progress.trial_finished(record("0000", loss=0.25))
    clock.now = 35.0
    progress.trial_finished(record("0001", Outcome.DIVERGED, loss=float("nan")))
    progress.trial_finished(record("0002", Outcome.ERROR, error="Traceback …\nValueError: bad batch\n"))
    best = "best validation_loss 0.25 (trial 0000)"
    assert lines == [
        f"1/6  trial 0000 completed after 4 epochs: validation_loss 0.25  {best}  about 0:50 left",
        f"2/6  trial 0001 diverged after 4 epochs: validation_loss nan  {best}  about 1:00 left",
        f"3/6  trial 0002 error after 4 epochs: ValueError: bad batch  {best}  about 0:30 left",
    ]


def test_trials_of_earlier_runs_count_but_took_no_time() -> None:
    clock = Clock()
    past = [record("0000", loss=0.5), record("0001", loss=0.25), record("0002", Outcome.INTERRUPTED)]
    tally = _tally(past, clock)
    assert (tally.finished, tally.seconds_left(), tally.left_text()) == (2, None, "")
    tally.begin()
    assert tally.outcomes() == "2 completed, 1 interrupted"
    clock.now = 7.0
    tally.note(record("0002", Outcome.STOPPED_EARLY))
    assert tally.seconds_left() == 21.0
    assert tally.best_text() == "best validation_loss 0.25 (trial 0001)"


def test_the_live_display_shows_all_of_it() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with LiveProgress(Tally.of_study(CONFIG), console) as progress:
        progress.trial_started(record("0001", Outcome.RUNNING))
        progress.trial_finished(record("0000", loss=0.25))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("small", "1 of 6", "1 running, 1 completed", "best validation_loss 0.25 (trial 0000)"):
        assert text in shown


def test_without_a_terminal_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with make_progress(Tally.of_study(CONFIG)) as progress:
        progress.trial_finished(record("0000", loss=0.25))
        print("what Ray prints")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("what Ray prints\n")
    assert captured.err.startswith("1/6  trial 0000 completed")


def test_the_studies_of_a_comparison_are_named_and_each_has_its_best() -> None:
    other = CONFIG.model_copy(update={"name": "large"})
    lines: list[str] = []
    tally = Tally.of_comparison("both", [CONFIG, other], seeds=2, past=[record("0000", loss=0.5)])
    progress = PlainProgress(tally, lines.append)
    progress.trial_finished(dataclasses.replace(record("0000", loss=0.25), study="large"))
    progress.trial_finished(record("confirm-best-0", Outcome.DIVERGED))
    assert lines == [
        "2/12  large: trial 0000 completed after 4 epochs: validation_loss 0.25  "
        "best validation_loss 0.25 (trial 0000)",
        "3/12  small: trial confirm-best-0 diverged after 4 epochs  best validation_loss 0.5 (trial 0000)",
    ]
