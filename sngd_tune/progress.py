"""How far a study is: a live display on a terminal, else one line for each finished trial; both on standard error."""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from sngd_tune.records.events import StudyListener
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.outcome import Outcome
from sngd_tune.records.ranking import rank
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial_record import TrialRecord

__all__ = ["GivenTally", "LiveProgress", "PlainProgress", "Tally", "make_progress"]


@dataclass
class Tally:
    """What both displays show of a study, or of the studies of a comparison.

    Attributes:
        name: of the study or comparison.
        objectives: of each study, by its name.
        expected: trials that there will be.
        trials: latest record of each trial by study and trial, those of earlier runs included.
        clock: seconds that only go forward.
    """

    name: str
    objectives: Mapping[str, Sequence[str]]
    expected: int
    trials: dict[tuple[str, str], TrialRecord] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._begun: float | None = None
        self._inherited = self.finished  # by earlier runs: they took none of this run's time
        self._study = next(iter(self.objectives))  # the one under way

    @classmethod
    def of_study(cls, config: StudyConfig, past: Iterable[TrialRecord] = ()) -> "Tally":
        """The trials of a search and of the confirmation that follows it."""
        confirm = config.confirm
        expected = config.search.trainings + confirm.seeds * (2 if confirm.baseline else 1)
        return cls(config.name, {config.name: config.objectives}, expected, _by_name(past))

    @classmethod
    def of_comparison(cls, name: str, studies: Sequence[StudyConfig], seeds: int, past: Iterable[TrialRecord]) -> Self:
        """The trials of all searches, and of each winner on so many seeds."""
        expected = sum(study.search.trainings + seeds for study in studies)
        return cls(name, {study.name: study.objectives for study in studies}, expected, _by_name(past))

    def note(self, record: TrialRecord) -> None:
        """Keep the newest state of a trial."""
        self._study = record.study
        self.trials[record.study, record.trial] = record

    def begin(self) -> None:
        """The first trial has started; what came before, such as Ray's own start, is no trial's time."""
        if self._begun is None:
            self._begun = self.clock()

    @property
    def begun(self) -> bool:
        """Whether a trial of this run has started."""
        return self._begun is not None

    @property
    def total(self) -> int:
        """Trials in all, as far as is known."""
        return max(self.expected, len(self.trials))

    @property
    def finished(self) -> int:
        """Trials that `resume` would not run again."""
        return sum(record.outcome.finished for record in self.trials.values())

    @property
    def best(self) -> TrialRecord | None:
        """The best completed trial of the study under way."""
        records = [record for record in self.trials.values() if record.study == self._study]
        return next(iter(rank(records, self.objectives[self._study][0])), None)

    @property
    def heading(self) -> str:
        """The study under way, where there are several."""
        return f"{self._study}: " if len(self.objectives) > 1 else ""

    def seconds_left(self) -> float | None:
        """Estimate from the trials of this run (s); None before the first one ended."""
        done = self.finished - self._inherited
        if self._begun is None or done <= 0:
            return None
        return (self.clock() - self._begun) / done * max(0, self.total - self.finished)

    def outcomes(self) -> str:
        """``12 completed, 3 stopped early, 2 running``."""
        counts = Counter(record.outcome for record in self.trials.values())
        return ", ".join(f"{counts[o]} {o.value.replace('_', ' ')}" for o in Outcome if counts[o])

    def best_text(self) -> str:
        """``best validation_loss 0.1234 (trial 0007)``, or that there is none yet."""
        best, objective = self.best, self.objectives[self._study][0]
        if best is None:
            return "no trial completed yet"
        return f"best {objective} {best.objectives[objective]:.4g} (trial {best.trial})"

    def left_text(self) -> str:
        """``about 1:20 left``, or nothing where it is not known."""
        seconds = self.seconds_left()
        if seconds is None:
            return ""
        minutes, rest = divmod(math.ceil(seconds), 60)
        return f"about {minutes}:{rest:02d} left"


class GivenTally(Tally):
    """Of trials that are given and not searched: none is the best."""

    @classmethod
    def of_trials(
        cls, name: str, studies: Sequence[StudyConfig], expected: int, past: Iterable[TrialRecord] = ()
    ) -> Self:
        """So many trials of some studies."""
        return cls(name, {study.name: study.objectives for study in studies}, expected, _by_name(past))

    def best_text(self) -> str:
        """Nothing."""
        return ""


class PlainProgress(StudyListener):
    """One line for each finished trial.

    Args:
        tally: the study so far.
        write: takes a line.
    """

    def __init__(self, tally: Tally, write: Callable[[str], None]) -> None:
        self._tally = tally
        self._write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take down."""

    def trial_started(self, record: TrialRecord) -> None:
        """Count it."""
        self._tally.begin()
        self._tally.note(record)

    def epoch_finished(self, record: TrialRecord, metrics: EpochMetrics) -> None:
        """Remember the trial's state."""
        self._tally.note(record)

    def trial_finished(self, record: TrialRecord) -> None:
        """Count it and write its line."""
        tally = self._tally
        tally.note(record)
        text = f"{tally.heading}{finished_text(record, tally.objectives[record.study])}"
        parts = [f"{tally.finished}/{tally.total}", text, tally.best_text()]
        self._write("  ".join(filter(None, [*parts, tally.left_text()])))


class LiveProgress(PlainProgress):
    """A bar, the counts by outcome, the best trial and the time left, redrawn twice a second on a terminal.

    Args:
        tally: the study so far.
        console: rich's, on standard error.
    """

    def __init__(self, tally: Tally, console: Any) -> None:
        from rich.live import Live

        super().__init__(tally, write=lambda line: None)
        # Rich draws from a thread of its own; it reads the tally and changes nothing.
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the display; the result follows."""
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self._tally
        head = Table.grid(padding=(0, 1))
        count = Text(f"{tally.finished} of {tally.total}")
        head.add_row(Text(tally.name), ProgressBar(tally.total, tally.finished, width=40), count, tally.left_text())
        state = tally.outcomes() if tally.begun else "starting Ray and its workers: some seconds"
        return Group(head, Text(state), Text(f"{tally.heading}{tally.best_text()}"))


@contextmanager
def make_progress(tally: Tally) -> Iterator[PlainProgress]:
    """The display that fits standard error: live on a terminal, else plain lines.

    Standard output is for data: what Ray prints there of its cluster goes to standard error as well.
    """
    with redirect_stdout(sys.stderr), _display(tally) as display:
        yield display


def _display(tally: Tally) -> PlainProgress:
    if sys.stderr.isatty():
        from rich.console import Console

        return LiveProgress(tally, Console(stderr=True))
    return PlainProgress(tally, write=lambda line: print(line, file=sys.stderr, flush=True))


def _by_name(records: Iterable[TrialRecord]) -> dict[tuple[str, str], TrialRecord]:
    return {(record.study, record.trial): record for record in records}


def finished_text(record: TrialRecord, objectives: Iterable[str]) -> str:
    """``trial 0007 completed after 10 epochs: validation_loss 0.1234``; of a broken one, its error's last line."""
    text = f"trial {record.trial} {record.outcome.value.replace('_', ' ')} after {record.epochs} epochs"
    values = [f"{name} {value:.4g}" for name in objectives if (value := record.objectives.get(name)) is not None]
    if record.error:
        return f"{text}: {record.error.strip().splitlines()[-1]}"
    return f"{text}: {', '.join(values)}" if values else text
