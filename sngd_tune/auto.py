"""Auto-selection for a workload: from its name to settings, and to the files and the MLflow run that keep them.

::

    DIR/auto.yaml        the settings, as `SNGD` takes them, and all that is known of them
    DIR/selection.json   the same as JSON
    DIR/selection.html   what was chosen and why, one page to open offline
    DIR/figures/         its figures
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from sngd_tune.atomic import replacing
from sngd_tune.batches import Batches
from sngd_tune.errors import ConfigurationError, LedgerError, ReconstructionError, SngdTuneError
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.report.selection import selection_values
from sngd_tune.report.selection_page import write_selection_figures, write_selection_page
from sngd_tune.selection.file import save, usage
from sngd_tune.selection.select import Selection, select_settings
from sngd_tune.selection.source import Batch
from sngd_tune.tracking.files import make_directory
from sngd_tune.tracking.selection import log_selection
from sngd_tune.workloads.registry import find_workload, load_data
from sngd_tune.workloads.workload import Split

__all__ = ["NAME", "new_folder", "select_for_workload", "show_in_mlflow", "write_selection"]

#: Of the file with the settings.
NAME = "auto.yaml"

_log = logging.getLogger(__name__)


def select_for_workload(
    name: str,
    data_dir: Path | None = None,
    *,
    batch_size: int = 128,
    step_budget: float | None = None,
    memory_budget: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float = 60.0,
    seed: int = 0,
) -> Selection:
    """Choose settings for a workload: measured on its training set, learning rates judged on its validation set.

    Args:
        name: as in `find_workload`.
        data_dir: the user's data directory.
        batch_size: examples of a batch, ≥ 1.
        step_budget: as in `select_settings`.
        memory_budget: as in `select_settings`.
        epochs: passes over the training set that training will have, ≥ 1.
        steps: the same in steps, ≥ 1; neither: more than can be tried here.
        seconds: that it may take, about; ≥ 5.
        seed: of the model, the order of the batches and what else is drawn.

    Raises:
        ConfigurationError: an unknown workload, its data is missing, its model has no layer that can get a local Fisher
            layer, a value is out of range, or nothing is within the budget.
        NonFiniteError: the loss is NaN or infinite.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size!r}: must be ≥ 1; try 128")
    if epochs is not None and steps is not None:
        raise ConfigurationError(f"epochs={epochs!r}: cannot go with steps={steps!r}; give one of them")
    if epochs is not None and epochs < 1:
        raise ConfigurationError(f"epochs={epochs!r}: must be ≥ 1; leave it out where it is not known")
    workload, splits = find_workload(name), load_data(name, data_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = workload.model().to(device)
    try:
        return select_settings(
            model,
            workload.loss,
            _batches(splits.train, batch_size, seed, device),
            step_budget=step_budget,
            memory_budget=memory_budget,
            validation=_batches(splits.validation, batch_size, seed, device),
            steps=epochs * -(-len(splits.train) // batch_size) if epochs is not None else steps,
            seconds=seconds,
            seed=seed,
            subject=name,
        )
    except ReconstructionError as error:
        raise ConfigurationError(f"workload={name!r}: {error}") from error


@contextmanager
def new_folder(directory: Path) -> Iterator[Path]:
    """A directory to write a selection into, found usable before anything is measured; taken away where nothing came.

    Raises:
        ConfigurationError: something is there already.
        LedgerError: it cannot be made.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(f"{directory}: is there already, and not empty; name another one with --dir")
    make_directory(directory)
    try:
        yield directory
    except BaseException:
        with contextlib.suppress(OSError):  # what has been written stays
            directory.rmdir()
        raise


def write_selection(record: SelectionRecord, directory: Path) -> list[Path]:
    """Write settings, JSON, page and figures into a directory that exists; their paths, the settings first.

    Raises:
        ConfigurationError: the settings cannot be written.
        LedgerError: another file cannot be written.
    """
    settings = directory / NAME
    save(record, settings)
    values = _write_json(directory / "selection.json", record)
    page = write_selection_page(directory / "selection.html", record, usage(settings))
    return [settings, values, page, *write_selection_figures(directory / "figures", record)]


def show_in_mlflow(
    record: SelectionRecord, directory: Path, files: Sequence[Path], tracking_uri: str | None = None
) -> bool:
    """Show a selection in MLflow; where that fails, a warning says why, and nothing else is lost.

    Args: as in `log_selection`.

    Returns:
        whether MLflow has it.
    """
    try:
        log_selection(record, directory, files, tracking_uri)
    except SngdTuneError as error:
        _log.warning("%s", error)
        return False
    return True


def _write_json(path: Path, record: SelectionRecord) -> Path:
    text = json.dumps(selection_values(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with replacing(path) as file:
            file.write(text.encode(errors="backslashreplace"))  # which JSON reads as it does its own escapes
    except OSError as error:
        raise LedgerError(f"{path}: cannot be written ({error.strerror or error}); free space or fix it") from error
    return path


def _batches(split: Split, batch_size: int, seed: int, device: torch.device) -> Iterator[Batch]:
    """Batches without end, each pass in a new order."""
    with warnings.catch_warnings():
        # A user's arrays may be read-only, which torch cannot express; nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        inputs, targets = torch.from_numpy(split.inputs).to(device), torch.from_numpy(split.targets).to(device)
    order = Batches(len(inputs), batch_size, seed, device)
    while True:
        (chosen,) = order.take(1)
        yield inputs[chosen], targets[chosen]
