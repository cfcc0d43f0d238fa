"""What was tuned, with what budget, and on what: tables of the configuration and of the machine."""

import time
from collections.abc import Sequence

from sngd_tune.records.machine import Machine
from sngd_tune.records.names import split
from sngd_tune.records.parameters import PARAMETERS, default_text, meaning
from sngd_tune.records.study import SearchConfig, SpaceEntry, StudyConfig
from sngd_tune.report.energy import energy_text
from sngd_tune.report.page import Block, Section, TableBlock, TextBlock
from sngd_tune.report.values import Budget
from sngd_tune.report.verdict import duration
from sngd_tune.tracking.ledger import Ledger

__all__ = ["budget_section", "machine_section", "space_section"]


def space_section(config: StudyConfig) -> Section:
    """Searched parameters, fixed ones, and the points the search began at."""
    rows = [
        (name, _range(entry), _scale(entry), _condition(entry), _default(name), _meaning(name))
        for name, entries in config.space.items()
        for entry in entries
    ]
    columns = ("parameter", "range", "scale", "only where", "default", "meaning")
    blocks: list[Block] = [TableBlock(columns, rows, "Searched", ("left",) * 6)]
    if config.fixed:
        fixed = [(name, value, _default(name), _meaning(name)) for name, value in config.fixed.items()]
        blocks.append(TableBlock(("parameter", "value", "default", "meaning"), fixed, "Fixed", ("left",) * 4))
    if config.start:
        names = list(dict.fromkeys(name for point in config.start for name in point))
        points = [(f"{n:04d}", *(point.get(name) for name in names)) for n, point in enumerate(config.start)]
        caption = "Starting points, which the first trials took; what one leaves out was sampled"
        blocks.append(TableBlock(("trial", *names), points, caption))
    return Section("What was tuned", blocks, "space")


def budget_section(config: StudyConfig, used: Budget) -> Section:
    """What the search was allowed, and what it used."""
    search, stopper, limit = config.search, config.scheduler, config.seconds
    resources = f"CPUs {search.resources.cpus:g}, GPUs {search.resources.gpus:g}"
    first = f"{stopper.grace_seconds:g} s" if stopper.grace_seconds else f"epoch {stopper.grace_epochs}"
    asha = f"asha: from {first} on, keeps one in {stopper.reduction_factor} at each rung"
    rows = [
        ("trials", _trials(search), used.trials),
        ("wall-clock time", _allowed(search.seconds), duration(used.wall_seconds)),
        ("device time (training)", "no limit", duration(used.device_seconds)),
        ("energy (training)", "no limit", energy_text(used)),
        ("length of a training", f"{config.epochs} epochs" + (f", or {duration(limit)}" if limit else ""), None),
        ("confirmation trainings", f"{config.confirm.seeds} seeds a candidate", used.confirmations),
        ("repeated attempts", f"{search.max_retries} a trial", used.retries),
        ("early stopper", "none" if stopper.name == "none" else asha, None),
        ("sampler", f"{search.sampler}, seed {search.seed}", None),
        ("resources of a trial", resources, None),
    ]
    return Section("Budget", [TableBlock(("", "planned", "used"), rows, align=("left",) * 3)], "budget")


def _trials(search: SearchConfig) -> str:
    if search.seeds == 1:
        return str(search.trials)
    return f"{search.trainings}, of {search.trials} proposals on {search.seeds} seeds each"


def machine_section(ledger: Ledger, hosts: Sequence[str]) -> Section:
    """The machine that began the study, and versions.

    Args:
        ledger: of the study.
        hosts: names of the machines that recorded its trials.
    """
    manifest = ledger.manifest
    rows = [*_machine_rows(manifest.machine), ("hosts", ", ".join(hosts) or None)]
    created = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.created))
    versions = [("sngd_tune (code)", manifest.code_version), *manifest.versions.items()]
    blocks: list[Block] = [
        TableBlock(("", "machine"), rows, "Where the study began; on a cluster, the machine of its driver"),
        TableBlock(("package", "version"), versions, align=("left", "left")),
        TextBlock(f"Begun {created}, study {manifest.study_id}, in {ledger.directory}."),
    ]
    return Section("Machine and versions", blocks, "machine")


def _machine_rows(machine: Machine | None) -> list[tuple[str, str | None]]:
    if machine is None:
        return [("processor", "not recorded: the study is older than this record")]
    return [
        ("processor", machine.cpu),
        ("cores", str(machine.cores)),
        ("memory", f"{machine.memory_bytes / 2**30:.1f} GiB"),
        ("GPUs", ", ".join(machine.gpus) or "none"),
        ("system", machine.system),
    ]


def _allowed(seconds: float | None) -> str:
    return "no limit" if seconds is None else duration(seconds)


def _range(entry: SpaceEntry) -> str:
    if entry.choices is not None:
        return ", ".join(map(str, entry.choices))
    return f"{entry.low:g} … {entry.high:g}"


def _scale(entry: SpaceEntry) -> str:
    if entry.choices is not None:
        return "choices"
    if entry.log:
        return "log"
    return "linear" if entry.step is None else f"step {entry.step:g}"


def _condition(entry: SpaceEntry) -> str:
    return " and ".join(f"{parent} = {' or '.join(map(str, values))}" for parent, values in entry.when.items())


def _default(name: str) -> str | None:
    plain, pattern = split(name)
    known = PARAMETERS.get(plain)  # an old study may name one that is no more
    return None if known is None or (known.default is None and pattern is None) else default_text(name)


def _meaning(name: str) -> str:
    return meaning(name) if split(name)[0] in PARAMETERS else ""
