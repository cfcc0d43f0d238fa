"""The searchers and the scheduler inside a real Ray Tune run."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from sngd_tune.search.scheduler import make_scheduler
from sngd_tune.search.searcher import ListSearcher, StudySearcher
from sngd_tune.tracking.callback import outcome_of_failure
from tests.search.studies import HEAD, study

#: The learning rate decides how a trial ends; the good ones come first, so that ASHA has something to compare with.
ENDS = {0.1: "good", 0.11: "good", 0.2: "bad", 0.3: "nan", 0.4: "raises", 0.5: "last epoch is infinite"}
STUDY = (
    HEAD
    + "space: {lr: {low: 0.05, high: 1}}\n"
    + f"start: [{', '.join(f'{{lr: {lr}}}' for lr in ENDS)}]\n"
    + f"search: {{trials: {len(ENDS)}, sampler: random, scheduler: {{name: asha, reduction_factor: 2}}}}\n"
)


class Trainable(tune.Trainable):
    """Four epochs, reported as the real trainable reports them."""

    def setup(self, config: dict[str, Any]) -> None:
        self.end = ENDS.get(config["parameters"].get("lr"), "good")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        epoch = self.iteration + 1
        if self.end == "raises" and epoch == 2:
            raise RuntimeError("on purpose")
        diverged = self.end == "nan" and epoch == 2
        loss = math.nan if diverged else {"bad": 9.0}.get(self.end, 1.0) / epoch
        if self.end.startswith("last") and epoch == 4:
            loss = math.inf
        outcome = "diverged" if diverged else ("completed" if epoch == 4 else "running")
        return {"epoch": epoch, "validation_loss": loss, "outcome": outcome, "done": outcome != "running"}


class Failures(tune.Callback):
    """The recorder's part: a searcher learns the class of a failure from it."""

    def __init__(self, searcher: Any) -> None:
        self._searcher = searcher

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        assert not self._searcher.on_trial_failed(trial.trial_id, outcome_of_failure(trial))


def fit(searcher: Any, scheduler: Any, directory: Path, concurrent: int) -> tune.ResultGrid:
    tuner = tune.Tuner(
        tune.with_resources(Trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(directory),
            verbose=0,
            callbacks=[Failures(searcher)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    return tuner.fit()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # Ray's own
def test_every_end_of_a_trial_reaches_optuna(ray_session: None, tmp_path: Path) -> None:
    config = study(STUDY)
    searcher = StudySearcher(config)
    fit(searcher, make_scheduler(config), tmp_path, concurrent=1)
    searcher.close()
    ends = [(ENDS[trial.params["lr"]], trial.state) for trial in searcher.study.trials]
    assert ends == [
        ("good", TrialState.COMPLETE),
        ("good", TrialState.COMPLETE),
        ("bad", TrialState.PRUNED),
        ("nan", TrialState.FAIL),
        ("raises", TrialState.FAIL),
        ("last epoch is infinite", TrialState.FAIL),
    ]
    assert searcher.study.trials[0].intermediate_values == {1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25}
    assert searcher.study.trials[2].value == 9.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_list_runs_whole_and_two_at_a_time(ray_session: None, tmp_path: Path) -> None:
    configs = [{"trial": f"c{index}", "parameters": {"lr": 0.1}, "seed": index, "attempt": 0} for index in range(5)]
    results = fit(ListSearcher(configs, 0), FIFOScheduler(), tmp_path, concurrent=2)
    assert Counter(result.metrics["outcome"] for result in results) == {"completed": 5}
    assert sorted(result.config["trial"] for result in results) == [config["trial"] for config in configs]


def test_the_scheduler_follows_the_study() -> None:
    assert isinstance(make_scheduler(study(STUDY)), ASHAScheduler)
    assert isinstance(make_scheduler(study(STUDY, "search.scheduler.name=none")), FIFOScheduler)
    assert isinstance(
        make_scheduler(study(STUDY, "search.scheduler=null", "objectives=[validation_loss, training_seconds]")),
        FIFOScheduler,
    )
