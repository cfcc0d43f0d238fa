"""Optuna's samplers by name, each made anew for each trial.

A sampler that is built from (study seed, trial number) carries no state between trials, so a resumed study proposes
what an uninterrupted one would from the same history. Exceptions, by the nature of the method: ``qmc``
continues one sequence, whose seed is the study's (`continue_sequence` moves it past the trials of an earlier run);
``cmaes``, ``nsgaii`` and ``nsgaiii`` keep their distribution or generation with the trials of one process, and begin a
new one after a resume.
"""

import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.parameters import nearest
from sngd_tune.search.seeds import derive_seed

__all__ = ["SAMPLERS", "SINGLE_OBJECTIVE", "continue_sequence", "make_sampler"]


def _tpe(seed: int, _: int) -> BaseSampler:
    return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _gp(seed: int, _: int) -> BaseSampler:
    return GPSampler(warn_independent_sampling=False, seed=seed)


def _cmaes(seed: int, _: int) -> BaseSampler:
    return CmaEsSampler(warn_independent_sampling=False, seed=seed)


def _qmc(seed: int, study_seed: int) -> BaseSampler:
    independent = RandomSampler(seed=seed)
    sequence = derive_seed(study_seed, "sequence")
    return QMCSampler(scramble=True, seed=sequence, independent_sampler=independent, warn_independent_sampling=False)


#: Factories by name; each takes the trial's own seed and the study's. What a sampler cannot treat jointly in a
#: conditional space it samples on its own, which is meant and needs no warning.
SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed, _: RandomSampler(seed=seed),
    "gp": _gp,
    "cmaes": _cmaes,
    "qmc": _qmc,
    "nsgaii": lambda seed, _: NSGAIISampler(seed=seed),
    "nsgaiii": lambda seed, _: NSGAIIISampler(seed=seed),
    "brute_force": lambda seed, _: BruteForceSampler(seed=seed),
}

#: Samplers that know one objective only.
SINGLE_OBJECTIVE = frozenset({"cmaes"})


def make_sampler(name: str, *, seed: int, trial_number: int, n_objectives: int = 1) -> BaseSampler:
    """The sampler that proposes one trial.

    Args:
        name: a key of `SAMPLERS`.
        seed: the study's seed, ≥ 0.
        trial_number: from 0.
        n_objectives: how many objectives the study has.

    Raises:
        ConfigurationError: an unknown name, or several objectives where the sampler knows one.
    """
    if name not in SAMPLERS:
        raise ConfigurationError(f"{name!r}: not a sampler{nearest(name, SAMPLERS)}")
    if n_objectives > 1 and name in SINGLE_OBJECTIVE:
        raise ConfigurationError(f"{name!r}: knows one objective, not {n_objectives}; try 'tpe' or 'nsgaii'")
    with warnings.catch_warnings():
        # Several of them are "experimental" by their interface; ours is the name in the study file.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](derive_seed(seed, "sampler", trial_number), seed)


def continue_sequence(sampler: BaseSampler, study: optuna.Study, past: Sequence[FrozenTrial]) -> None:
    """Move a quasi-random sequence past the points that earlier runs drew; other samplers need nothing.

    Optuna counts the points in the study's own memory, which a new process does not have. The first trial that told
    something fixes the sequence's space, and every trial after it drew one point.
    """
    if not isinstance(sampler, QMCSampler):
        return
    told = (index for index, trial in enumerate(past) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
    first = next(told, None)
    if first is None:
        return
    for trial in past[first + 1 :]:
        sampler.sample_relative(study, trial, dict(past[first].distributions))
