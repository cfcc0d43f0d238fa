"""What a study may not ask for where several workers train a trial together, each on an equal part of every batch."""

from collections.abc import Iterator

from sngd_tune.records.parameters import PARAMETERS
from sngd_tune.records.study import SpaceEntry, StudyConfig
from sngd_tune.records.trial import NEEDS_JOINT_BATCH

__all__ = ["worker_problems"]

_WORKERS = "search.resources.workers"
_DEFAULT = int(PARAMETERS["batch_size"].default)


def worker_problems(config: StudyConfig) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where in the study, and what: methods that need the whole batch, and batches that have no equal parts."""
    workers = config.search.resources.workers
    if workers == 1:
        return
    for method in sorted(config.methods & NEEDS_JOINT_BATCH):
        yield ("search", "resources", "workers"), f"{workers}: must be 1 for {method}, which needs the whole batch"
    for path, size in _sizes(config):
        if size % workers:
            multiple = -(-size // workers) * workers
            yield path, f"{size}: must be a multiple of {_WORKERS}={workers}, as all take equal parts; try {multiple}"
    if "batch_size" in config.space and config.confirm.seeds and config.confirm.baseline and _DEFAULT % workers:
        message = (
            f"true: trains the default batch_size={_DEFAULT}, which is no multiple of {_WORKERS}={workers}; try false"
        )
        yield ("confirm", "baseline"), message


def _sizes(config: StudyConfig) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Batch sizes that trials may have, with their place; of a range, those that stand for all."""
    if "batch_size" in config.space:
        for index, entry in enumerate(config.space["batch_size"]):
            yield from ((("space", "batch_size", index), size) for size in _of_entry(entry))
    else:
        yield ("fixed", "batch_size"), int(config.fixed.get("batch_size", _DEFAULT))


def _of_entry(entry: SpaceEntry) -> list[int]:
    if entry.choices is not None:
        return [int(size) for size in entry.choices]
    assert entry.low is not None
    return [int(entry.low), int(entry.low) + int(entry.step or 1)]
