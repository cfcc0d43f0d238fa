"""`SearchSpace`: what a study searches, as Optuna's define-by-run space with conditions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import check_value, default_text, is_active, meaning, ordered, parameter
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.checks import build_dimensions, find_problems
from sngd_tune.search.dimension import Dimension, condition_text
from sngd_tune.search.memory import quiet_storage

__all__ = ["SearchSpace", "SpaceRow"]


@dataclass(frozen=True)
class SpaceRow:
    """One line of the table that `validate` prints; every field is text."""

    name: str
    kind: str
    range: str
    scale: str
    condition: str
    default: str
    doc: str


class SearchSpace:
    """The checked space of a study.

    Raises:
        ConfigurationError: a rule is broken; all findings are listed, one a line, each with its path.
    """

    def __init__(self, config: StudyConfig) -> None:
        problems = find_problems(config)
        if problems:
            raise ConfigurationError("\n".join(map(str, problems)))
        self._alternatives = build_dimensions(config)
        self._fixed = {name: check_value(name, value) for name, value in config.fixed.items()}
        self._names = ordered((*config.fixed, *config.space))
        self._start = tuple({name: check_value(name, value) for name, value in point.items()} for point in config.start)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Flat parameters of a trial: the active searched ones and the active fixed ones.

        They are in the order of the table, those of single layers last, their patterns in the order of the study.
        """
        values = dict(self._fixed)
        for group in self._alternatives.values():
            for dimension in group:
                if dimension.applies(values):
                    values[dimension.name] = dimension.suggest(trial)
        return {name: values[name] for name in self._names if name in values and self._means_something(name, values)}

    def samples(self, count: int, seed: int) -> list[dict[str, Any]]:
        """Flat parameters of some trials drawn at random, to look at: nothing is searched."""
        sampler = optuna.samplers.RandomSampler(seed=seed)
        study = optuna.Study("samples", quiet_storage("samples"), sampler=sampler)
        return [self.suggest(study.ask()) for _ in range(count)]

    def defaults(self) -> dict[str, Any]:
        """Flat parameters of the untuned trial: the fixed ones that have a meaning beside the defaults."""
        return {name: self._fixed[name] for name in self._names if name in self._fixed and is_active(name, self._fixed)}

    def distributions(self, parameters: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Distributions of the searched parameters that are active beside these flat ones, by Optuna's name."""
        return {dimension.label: dimension.distribution for dimension in self._active(parameters)}

    def labelled(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The searched ones of these flat parameters by Optuna's name; the inverse of `suggest`."""
        return {
            dimension.label: parameters[dimension.name]
            for dimension in self._active(parameters)
            if dimension.name in parameters
        }

    def start_points(self) -> tuple[dict[str, Any], ...]:
        """The study's starting points as flat parameters; what a point leaves out is sampled."""
        return tuple(dict(point) for point in self._start)

    def rows(self) -> list[SpaceRow]:
        """The space as a table: searched parameters first, then the fixed ones."""
        searched = [_row(dimension) for group in self._alternatives.values() for dimension in group]
        fixed = [
            SpaceRow(name, parameter(name).kind, str(value), "fixed", "", default_text(name), meaning(name))
            for name, value in self._fixed.items()
        ]
        return searched + fixed

    def _active(self, parameters: Mapping[str, Any]) -> Iterator[Dimension]:
        values = {**self._fixed, **parameters}
        for group in self._alternatives.values():
            yield from (dimension for dimension in group if dimension.applies(values))

    def _means_something(self, name: str, values: Mapping[str, Any]) -> bool:
        """Searched values are active by their checked conditions; a fixed one may be idle beside the others."""
        return name in self._alternatives or is_active(name, values)


def _row(dimension: Dimension) -> SpaceRow:
    return SpaceRow(
        name=dimension.name,
        kind=parameter(dimension.name).kind,
        range=dimension.span,
        scale=dimension.scale,
        condition=condition_text(dimension.when),
        default=default_text(dimension.name),
        doc=meaning(dimension.name),
    )
