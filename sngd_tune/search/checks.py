"""The rules of a study file that no single value can break: conditions, combinations, starting points, sampler.

Each finding is a `Problem` with the path of what it is about, so that `load` can add the line.
"""

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import of_layers, seen_by, split
from sngd_tune.records.parameters import PARAMETERS, check_value, conditions, is_active, nearest, parameter
from sngd_tune.records.study import SpaceEntry, StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.dimension import Dimension, condition_text, entry_problems
from sngd_tune.search.samplers import SINGLE_OBJECTIVE
from sngd_tune.search.workers import worker_problems

__all__ = ["Alternatives", "Problem", "build_dimensions", "find_problems", "value_problems"]

Alternatives = Mapping[str, tuple[Dimension, ...]]

#: Parameters on whose value the meaning of others depends; their choices are combined, the rest is sampled alone.
_DECIDING = frozenset(parent for parameter in PARAMETERS.values() for parent, _ in parameter.when)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a study, and where."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.message}"


def find_problems(config: StudyConfig) -> list[Problem]:
    """All that is wrong; rules that presuppose others are checked where those hold."""
    problems = [*value_problems(config.space, config.fixed), *_name_problems(config)]
    if problems:
        return problems
    try:
        alternatives = build_dimensions(config)
    except graphlib.CycleError as error:
        return [Problem(("space",), f"conditions go round in a circle: {' → '.join(error.args[1])}")]
    return [
        *_combination_problems(config, alternatives),
        *_start_problems(config, alternatives),
        *_search_problems(config, alternatives),
        *(Problem(path, message) for path, message in worker_problems(config)),
    ]


def value_problems(space: Mapping[str, Sequence[SpaceEntry]], fixed: Mapping[str, Any]) -> Iterator[Problem]:
    """Values, ranges and choices, each looked at alone."""
    for name, value in fixed.items():
        try:
            check_value(name, value)
        except ConfigurationError as error:
            yield Problem(("fixed", name), str(error).removeprefix(f"{name}=").removeprefix(f"{name!r}: "))
    for name, entries in space.items():
        for index, entry in enumerate(entries):
            for message in entry_problems(name, entry):
                yield Problem(("space", name, index), message.removeprefix(f"{name}="))


def build_dimensions(config: StudyConfig) -> Alternatives:
    """The space's dimensions by parameter, parents first.

    Raises:
        graphlib.CycleError: conditions that depend on each other in a circle.
    """
    parents = {
        name: [parent for entry in entries for parent in entry.when if parent in config.space]
        for name, entries in config.space.items()
    }
    return {
        name: tuple(
            Dimension.from_entry(name, entry, alternatives=len(config.space[name]) > 1) for entry in config.space[name]
        )
        for name in graphlib.TopologicalSorter(parents).static_order()
    }


def _name_problems(config: StudyConfig) -> Iterator[Problem]:
    """Parameters that stand twice or nowhere, and conditions on values that a parent never takes."""
    if not config.space:
        yield Problem(("space",), "is empty; name at least one parameter to search")
    for name, entries in config.space.items():
        if name in config.fixed:
            yield Problem(("space", name), f"also stands under fixed as {config.fixed[name]!r}; keep one of them")
        for index, entry in enumerate(entries):
            for parent, allowed in entry.when.items():
                for message in _parent_problems(config, parent, allowed):
                    yield Problem(("space", name, index, "when", parent), message)


def _parent_problems(config: StudyConfig, parent: str, allowed: Sequence[Any]) -> Iterator[str]:
    if parent in config.fixed:
        possible = [config.fixed[parent]]
    elif parent in config.space:
        if any(entry.choices is None for entry in config.space[parent]):
            yield f"{parent!r} is searched over a range; a condition needs a parent with choices"
            return
        possible = [value for entry in config.space[parent] for value in entry.choices or ()]
    else:
        yield f"{parent!r} is neither in the space nor fixed{nearest(parent, (*config.space, *config.fixed))}"
        return
    for value in allowed:
        if value not in possible:
            known = ", ".join(map(str, possible))
            yield f"conditional parameter whose parent never takes that value: {parent} is {known}, never {value!r}"


def _combination_problems(config: StudyConfig, alternatives: Alternatives) -> Iterator[Problem]:
    """Build a trial for every combination of deciding choices; the first failure of each kind is reported."""
    deciding = _deciding(config)
    reported: set[tuple[str | int, ...]] = set()
    used: set[str] = set()
    for pattern in (None, *config.patterns):
        wanted = _with_parents(config, alternatives, pattern)
        seen = {name: group for name, group in alternatives.items() if name in wanted}
        fixed = {name: value for name, value in config.fixed.items() if name in wanted}
        for values in _combinations(list(seen.items()), fixed, deciding):
            active = {name: value for name, value in values.items() if name in seen or is_active(name, values)}
            used |= {d.label for group in seen.values() for d in group if d.applies(values)} | active.keys()
            for problem in _problems_of(config, seen, values, active):
                if problem.path not in reported:
                    reported.add(problem.path)
                    yield problem
    yield from _unused_problems(config, alternatives, used)


def _deciding(config: StudyConfig) -> set[str]:
    """The searched parameters whose choices are combined."""
    parents = {parent for entries in config.space.values() for entry in entries for parent in entry.when}
    return parents | {name for name in config.space if split(name)[0] in _DECIDING}


def _with_parents(config: StudyConfig, alternatives: Alternatives, pattern: str | None) -> set[str]:
    """The plain names, those of a pattern's layers, and what their conditions name.

    What other layers have makes no difference to these, so their choices need not be combined with each other.
    """
    wanted = {name for name in (*config.fixed, *alternatives) if split(name)[1] in (None, pattern)}
    for name, group in reversed(list(alternatives.items())):  # parents come first
        if name in wanted:
            wanted |= {parent for dimension in group for parent in dimension.when}
    return wanted


def _combinations(
    remaining: list[tuple[str, tuple[Dimension, ...]]], values: dict[str, Any], deciding: set[str]
) -> Iterator[dict[str, Any]]:
    if not remaining:
        yield values
        return
    (name, group), *rest = remaining
    dimension = next((d for d in group if d.applies(values)), None)
    if dimension is None:
        yield from _combinations(rest, values, deciding)
        return
    for value in dimension.choices if name in deciding and dimension.choices else (dimension.least,):
        yield from _combinations(rest, {**values, name: value}, deciding)


def _problems_of(
    config: StudyConfig, alternatives: Alternatives, values: Mapping[str, Any], active: Mapping[str, Any]
) -> Iterator[Problem]:
    """What is wrong under one combination."""
    sound = True
    for name, group in alternatives.items():
        applying = [d.label for d in group if d.applies(values)]
        if len(applying) > 1:
            sound = False
            yield Problem(
                ("space", name),
                f"alternatives {' and '.join(applying)} both apply; make their `when` exclude each other",
            )
        if applying and not is_active(name, values):
            sound = False
            yield Problem(
                ("space", name), f"has no meaning where {_failing(name, values)}; add `when: {_remedy(name, values)}`"
            )
    if not sound:
        return
    try:
        TrialConfig.from_flat(active, workload=config.workload, epochs=config.epochs, seed=0)
    except ConfigurationError as error:
        decided = {name: (value,) for name, value in active.items() if parameter(name).kind == "choice"}
        yield Problem(("space",), f"the combination {condition_text(decided)} is no valid trial: {error}")


def _failing(name: str, values: Mapping[str, Any]) -> str:
    """The conditions of a parameter's meaning that do not hold, as they are."""
    return " and ".join(f"{parent}={values.get(parent, parameter(parent).default)}" for parent in _unmet(name, values))


def _remedy(name: str, values: Mapping[str, Any]) -> str:
    unmet = _unmet(name, values)
    parts = (
        f"{_quoted(parent)}: {allowed[0] if len(allowed) == 1 else '[' + ', '.join(allowed) + ']'}"
        for parent, allowed in unmet.items()
    )
    return "{" + ", ".join(parts) + "}"


def _quoted(name: str) -> str:
    """A name as a key inside of braces, where YAML has brackets for lists."""
    return f'"{name}"' if "[" in name or "]" in name else name


def _unmet(name: str, values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Conditions of a parameter's meaning, and of its parents', that do not hold under these values.

    Parents are named as their values stand: with the pattern of single layers where these have a value of their own.
    """
    unmet: dict[str, tuple[str, ...]] = {}
    pattern = split(name)[1]
    seen = seen_by(values, pattern)
    for parent, allowed in conditions(name):
        own = of_layers(parent, pattern)
        if not is_active(parent, seen):
            unmet |= _unmet(own, values)
        elif seen.get(parent, PARAMETERS[parent].default) not in allowed:
            unmet[own if own in values else parent] = allowed
    return unmet


def _unused_problems(config: StudyConfig, alternatives: Alternatives, used: set[str]) -> Iterator[Problem]:
    for name, group in alternatives.items():
        for index, dimension in enumerate(group):
            if dimension.label not in used:
                text = condition_text(dimension.when)
                yield Problem(
                    ("space", name, index, "when"),
                    f"no combination of the space ever has {text}; it would never be searched",
                )
    for name, value in config.fixed.items():
        if name not in used:
            yield Problem(("fixed", name), f"{value!r}: has no meaning anywhere in this space; leave it out")


def _start_problems(config: StudyConfig, alternatives: Alternatives) -> Iterator[Problem]:
    for index, point in enumerate(config.start):
        for name, value in point.items():
            message = _start_problem(config, alternatives, point, name, value)
            if message:
                yield Problem(("start", index, name), message)


def _start_problem(
    config: StudyConfig, alternatives: Alternatives, point: Mapping[str, Any], name: str, value: Any
) -> str | None:
    if name in config.fixed:
        return f"{value!r}: is fixed to {config.fixed[name]!r}; leave it out"
    if name not in alternatives:
        return f"{value!r}: not in the space{nearest(name, alternatives)}"
    try:
        value = check_value(name, value)
    except ConfigurationError as error:
        return str(error).removeprefix(f"{name}=")
    applying = [d for d in alternatives[name] if d.applies({**config.fixed, **point})]
    if not applying:
        needs = " or ".join(condition_text(d.when) for d in alternatives[name])
        return f"{value!r}: needs {needs} beside it"
    if not applying[0].holds(value):
        return f"{value!r}: lies outside the space ({applying[0].span}); widen the space or move the point"
    return None


def _search_problems(config: StudyConfig, alternatives: Alternatives) -> Iterator[Problem]:
    sampler, scheduler = config.search.sampler, config.scheduler
    if len(config.objectives) > 1 and sampler in SINGLE_OBJECTIVE:
        yield Problem(
            ("search", "sampler"), f"{sampler!r}: knows one objective, not {len(config.objectives)}; try 'tpe'"
        )
    endless = [d.label for group in alternatives.values() for d in group if not d.finite]
    if sampler == "brute_force" and endless:
        yield Problem(
            ("search", "sampler"), f"'brute_force': needs choices or a step for {', '.join(endless)}; try 'tpe'"
        )
    if scheduler.name == "asha" and scheduler.grace_epochs > config.epochs:
        yield Problem(
            ("search", "scheduler", "grace_epochs"), f"{scheduler.grace_epochs}: must be ≤ epochs={config.epochs}"
        )
