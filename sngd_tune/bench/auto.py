"""``sngd-tune bench auto``: what auto-selection is worth beside a plain search.

On each workload, with trainings that all end after the same seconds:

- *plain*: the workload's committed study (``search_spaces``), with so many trials;
- *auto*: the settings that `sngd_tune.auto.select_for_workload` chooses, and no search;
- *searched*: a search of a few trials around them (`search.auto.auto_study`).

Each winner is trained again on the same fresh seeds, so that losses are compared in pairs (`bench.auto_figures`).

Every training is one of a study in ``DIR/<workload>``, all through `launch.run_study`: a second call with the same
directory repeats nothing that is done.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sngd_tune.auto import NAME, select_for_workload, write_selection
from sngd_tune.bench.auto_figures import figures
from sngd_tune.errors import ConfigurationError
from sngd_tune.launch import load_splits, resume_study, run_study
from sngd_tune.progress import PlainProgress, Tally
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.auto import auto_study
from sngd_tune.search.flat import flat
from sngd_tune.search.load import load_study
from sngd_tune.selection.file import load
from sngd_tune.tracking.files import make_directory
from sngd_tune.tracking.ledger import Ledger
from sngd_tune.tracking.manifest import Manifest
from sngd_tune.training import train
from sngd_tune.workloads.registry import find_workload

__all__ = ["PACES", "Effort", "Pace", "measure"]

_BATCH_SIZE = 128  # where the plain study searches it
_TRIED = 1.0  # seconds of a training that tells how many steps there will be


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a training on a workload is, and how often it is looked at.

    Attributes:
        seconds: of training, evaluation not counted.
        epoch_examples: training examples between evaluations; None: all.
        validation_examples: the first ones of the validation set; None: all.
    """

    seconds: float
    epoch_examples: int | None = None
    validation_examples: int | None = None


#: On two cores; with some ten looks at a training at the least, which early stopping needs.
PACES: Mapping[str, Pace] = {
    "digits_mlp": Pace(seconds=1),
    "housing_mlp": Pace(seconds=3),
    "mnist_mlp": Pace(seconds=4, epoch_examples=10_000),
    "mnist_autoencoder": Pace(seconds=6, epoch_examples=5000),
    "fashion_cnn": Pace(seconds=15, epoch_examples=3000, validation_examples=2000),
    "ptb_lstm": Pace(seconds=15, epoch_examples=160, validation_examples=400),
    "shakespeare_transformer": Pace(seconds=30, epoch_examples=320, validation_examples=200),
}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What is spent on each workload.

    Attributes:
        seconds: of each training; None: those of `PACES`.
        plain_trials, auto_trials: of the two searches.
        seeds: fresh ones, on which each winner is trained again.
        probe_seconds: of a selection, about.
    """

    seconds: float | None = None
    plain_trials: int = 40
    auto_trials: int = 10
    seeds: int = 3
    probe_seconds: float = 60.0


def measure(
    workloads: Sequence[str],
    spaces: Path,
    directory: Path,
    data_dir: Path | None,
    effort: Effort,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per workload.

    ``workload, seconds``; for each of plain, auto and searched ``…_losses`` (validation, by seed), ``…_loss`` (their
    median), ``…_test`` (median of the test accuracy, or of the test loss), ``…_seconds`` (of the device, spent before
    the winner was known: trainings of the search, probing); ``probing_seconds``; for auto and searched ``…_ratios``
    (of validation losses to plain, by seed) and ``…_ratio`` (their median); ``equal_seconds_ratio``: the best loss that
    the search around the selection saw, over the plain search's after as many seconds. None where a training failed.

    Args:
        workloads: names of study files in `spaces`.
        spaces: folder of the committed studies.
        directory: for all that is run; what is there already is not run again.
        data_dir: the user's data directory.
        effort: what is spent.
        announce: is told what is done next, and how each trial ended.

    Raises:
        ConfigurationError: a study cannot be read, its data is missing, or the directory holds runs with other
            options.
    """
    studies = [_plain(spaces / f"{name}.yaml", data_dir, effort) for name in workloads]
    for study in studies:
        load_splits(study)
    return [_row(study, directory / study.name, effort, announce) for study in studies]


def _row(plain: StudyConfig, directory: Path, effort: Effort, announce: Callable[[str], None]) -> dict[str, Any]:
    """Run what is still to run on a workload, and compare."""
    studies: dict[str, Ledger] = {}

    def run(kind: str, study: StudyConfig) -> None:
        announce(f"{plain.workload}: {kind}, {study.search.trials} trials of {plain.seconds:g} s")
        named = study.model_copy(update={"name": f"{plain.name}.{kind}"})
        studies[kind] = _conducted(named, directory / kind, announce)

    run("plain", plain)
    batch_size = plain.fixed.get("batch_size", _BATCH_SIZE)
    assert isinstance(batch_size, int)
    record = _selected(plain, batch_size, directory / "selection", effort, announce)
    base = plain.model_copy(update={"fixed": {"batch_size": batch_size}})
    run("auto", _without_search(record, base))
    run("searched", auto_study(record, base, effort.auto_trials))
    trials = {kind: ledger.trials() for kind, ledger in studies.items()}
    return {"workload": plain.workload, "seconds": plain.seconds, **figures(trials, effort.seeds, record.seconds)}


def _plain(path: Path, data_dir: Path | None, effort: Effort) -> StudyConfig:
    """A committed study with trainings by time, at the pace of its workload."""
    study = load_study(path)
    pace = PACES.get(study.workload, Pace(seconds=10))
    seconds = effort.seconds or pace.seconds
    return StudyConfig.model_validate(
        study.model_dump(by_alias=True)
        | {
            "data_dir": str(data_dir) if data_dir else study.data_dir,
            "epochs": 1_000_000,
            **(dataclasses.asdict(pace) | {"seconds": float(seconds)}),
            "objectives": ("validation_loss",),
            "search": study.search.model_dump()
            | {"trials": effort.plain_trials, "scheduler": {"name": "asha", "grace_seconds": seconds / 9}},
            "confirm": {"seeds": effort.seeds, "baseline": False},
            "mlflow": {"enabled": False},
        }
    )


def _without_search(record: SelectionRecord, base: StudyConfig) -> StudyConfig:
    """The study whose one trial is the selection: what it searches, as it has to, is a value that changes nothing."""
    return StudyConfig.model_validate(
        base.model_dump(by_alias=True)
        | {
            "fixed": {**flat(record), **base.fixed},
            "space": {"damping_scale": {"choices": [1.0]}},
            "start": [],
            "search": base.search.model_dump() | {"trials": 1, "scheduler": None},
        }
    )


def _conducted(study: StudyConfig, directory: Path, announce: Callable[[str], None]) -> Ledger:
    """The ledger of a study that has been run to its end, now or before."""
    begun = Ledger.open(directory) if Manifest.present(directory) else None
    if begun is not None and begun.config != study:
        raise ConfigurationError(f"{directory}: was run with other options; repeat them, or name another --dir")
    tally = Tally.of_study(study, begun.trials() if begun is not None else ())
    if begun is not None and tally.finished == tally.total:
        return begun
    listeners = [PlainProgress(tally, announce)]
    if begun is not None:
        result = resume_study(directory, listeners=listeners)
    else:
        result = run_study(study, directory, listeners=listeners)
    if result.outcome == "interrupted":
        raise KeyboardInterrupt
    return Ledger.open(directory)


def _selected(
    plain: StudyConfig, batch_size: int, directory: Path, effort: Effort, announce: Callable[[str], None]
) -> SelectionRecord:
    """The selection for a workload, made now or before."""
    if (directory / NAME).exists():
        return load(directory / NAME)
    announce(f"{plain.workload}: selection, some {effort.probe_seconds:g} s")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as trials have
    try:
        record = select_for_workload(
            plain.workload,
            Path(plain.data_dir) if plain.data_dir else None,
            batch_size=batch_size,
            steps=_steps(plain, batch_size),
            seconds=effort.probe_seconds,
            seed=plain.search.seed,
        ).record
    finally:
        torch.set_num_threads(threads)
    make_directory(directory)
    write_selection(record, directory)
    return record


def _steps(plain: StudyConfig, batch_size: int) -> int:
    """How many steps a training has, about."""
    seconds = min(_TRIED, plain.seconds or _TRIED)
    trial = TrialConfig.from_flat(
        {"batch_size": batch_size},
        workload=plain.workload,
        epochs=plain.epochs,
        seed=0,
        seconds=seconds,
        epoch_examples=plain.epoch_examples,
    )
    *_, last = train(trial, find_workload(plain.workload), load_splits(plain))
    assert plain.seconds is not None  # `_plain` sets it
    return max(1, round(last.steps / last.training_seconds * plain.seconds))
