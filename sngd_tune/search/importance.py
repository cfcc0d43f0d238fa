"""Which parameters decided: functional ANOVA (Hutter, Hoos and Leyton-Brown 2014) over the completed trials.

Optuna's `FanovaImportanceEvaluator` fits the forest and decomposes it. Three things are done around it:

- **Conditional parameters.** Optuna looks only at trials that have every parameter it is asked for. So each parameter
  is assessed among the trials in which it is active, beside those that are active in all of them. Its share is of the
  variance among these trials, and is stated with their number; shares of parameters with different numbers of trials
  are not parts of one whole.
- **Log scales.** Optuna averages over a range uniformly, whatever its scale: between 1e-4 and 1 all that happens below
  0.1 would count for a tenth. Here a log range is one over the logarithms, as it was searched.
- **Outliers.** One completed trial with an enormous loss has nearly all of the variance. The trials' ranks do not.

Stopped trials have no final value and do not count.
"""

import math
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sngd_tune.records.importance import Importance
from sngd_tune.records.past import PastTrial
from sngd_tune.records.study import StudyConfig
from sngd_tune.search.memory import quiet_storage
from sngd_tune.search.repeats import joined
from sngd_tune.search.searcher import StudySearcher
from sngd_tune.search.seeds import derive_seed

__all__ = ["importances"]

#: Below this many trials the forest would tell more about chance than about the parameters.
MIN_TRIALS = 10


def importances(config: StudyConfig, past: Sequence[PastTrial]) -> tuple[Importance, ...]:
    """The share of each searched parameter in the order of the trials by the first objective, largest first.

    What a parameter does only together with others (an interaction) belongs to none of them, so the shares of
    parameters with the same trials add up to 1 at most. Left out are parameters that were active in fewer than
    `MIN_TRIALS` completed trials, and those among whose trials there is no difference.

    Raises:
        ConfigurationError: the study's space breaks a rule.
    """
    if not config.space:  # a variant of a scaling study: its trials were given
        return ()
    trials = StudySearcher(config, joined(past, config.search.seeds)).study.get_trials(
        deepcopy=False, states=(TrialState.COMPLETE,)
    )
    together: dict[tuple[int, ...], list[str]] = {}
    for label in dict.fromkeys(label for trial in trials for label in trial.params):
        active = tuple(index for index, trial in enumerate(trials) if label in trial.params)
        together.setdefault(active, []).append(label)
    seed = derive_seed(config.search.seed, "importance")
    found = []
    for active, labels in together.items():
        if len(active) >= MIN_TRIALS:
            shares = _shares([trials[index] for index in active], seed)
            found += [
                Importance(parameter=label, share=shares[label], trials=len(active))
                for label in labels
                if label in shares
            ]
    return tuple(sorted(found, key=lambda importance: (-importance.share, importance.parameter)))


def _shares(trials: Sequence[FrozenTrial], seed: int) -> dict[str, float]:
    """The share of each parameter that all these trials have; empty where the forest sees no variance."""
    labels = [label for label in trials[0].params if all(label in trial.params for trial in trials)]
    study = optuna.Study("importance", quiet_storage("importance"))
    for trial, rank in zip(trials, _ranks([trial.values[0] for trial in trials]), strict=True):
        study.add_trial(
            optuna.create_trial(
                value=rank,
                params={label: _on_scale(trial.distributions[label], trial.params[label]) for label in labels},
                distributions={label: _linear(trial.distributions[label]) for label in labels},
            )
        )
    try:
        shares = optuna.importance.FanovaImportanceEvaluator(seed=seed).evaluate(study)
    except RuntimeError:  # Optuna's word for "all trees are flat"
        return {}
    return {label: float(share) for label, share in shares.items()}


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 1; equal values share the mean of theirs."""
    from scipy.stats import rankdata  # a second to import

    return [float(rank) for rank in rankdata(values)]


def _linear(distribution: BaseDistribution) -> BaseDistribution:
    """A log range as a range over the logarithms; others as they are."""
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
        return FloatDistribution(math.log(distribution.low), math.log(distribution.high))
    return distribution


def _on_scale(distribution: BaseDistribution, value: object) -> object:
    """The value on the scale of `_linear`, inside its range."""
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
        assert isinstance(value, int | float)
        return min(max(math.log(value), math.log(distribution.low)), math.log(distribution.high))
    return value
