import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.study import StudyConfig
from sngd_tune.records.trial import TrialConfig
from sngd_tune.search.load import load_study
from sngd_tune.search.space import SearchSpace
from sngd_tune.settings import LayerSettings
from tests.search.studies import CONDITIONAL, HEAD, LAYERED, SEARCH_SPACES, study

CONFIGS = [study(CONDITIONAL), study(LAYERED), *(load_study(path) for path in sorted(SEARCH_SPACES.glob("*.yaml")))]


def sampled(config: StudyConfig, seed: int) -> tuple[SearchSpace, optuna.Trial, dict[str, object]]:
    space = SearchSpace(config)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    return space, trial, space.suggest(trial)


@given(st.sampled_from(CONFIGS), st.integers(0, 2**31 - 1))
def test_every_proposal_is_a_valid_trial(config: StudyConfig, seed: int) -> None:
    _, _, parameters = sampled(config, seed)
    trial = TrialConfig.from_flat(parameters, workload=config.workload, epochs=config.epochs, seed=seed)
    assert trial.parameters == parameters


@given(st.sampled_from(CONFIGS), st.integers(0, 2**31 - 1))
def test_flat_parameters_give_back_what_optuna_saw(config: StudyConfig, seed: int) -> None:
    space, trial, parameters = sampled(config, seed)
    assert space.labelled(parameters) == trial.params
    assert space.distributions(parameters) == trial.distributions


def test_conditions_hold_and_fixed_values_appear_where_they_have_a_meaning() -> None:
    proposals = [sampled(study(CONDITIONAL), seed)[2] for seed in range(200)]
    for proposal in proposals:
        assert proposal["optimizer"] == "sngd"
        assert ("block" in proposal) == (proposal["granularity"] == "block")
        assert ("rank" in proposal) == (proposal.get("root") == "nystrom")
        assert ("step_bound" in proposal) == (proposal["base"] == "sgd")
        assert ("kl_bound" in proposal) == (proposal.get("step_bound") == "kl")
        low, high = (1e-2, 1) if proposal["base"] == "sgd" else (1e-4, 5e-3)
        assert low <= proposal["lr"] <= high  # type: ignore[operator]
    assert {proposal["block"] for proposal in proposals if "block" in proposal} == set(range(8, 65, 8))
    assert any("kl_bound" in proposal for proposal in proposals)


def test_alternatives_have_names_of_their_own() -> None:
    space, trial, _ = sampled(study(CONDITIONAL), 0)
    assert {"lr[base=sgd]", "lr[base=adamw]"} & trial.params.keys()
    assert "lr" not in trial.params
    assert space.start_points() == ({"base": "adamw", "granularity": "block", "block": 16},)


def test_values_keep_the_kind_of_their_parameter() -> None:
    config = study(
        HEAD + "space: {rank: {choices: [4.0, 8]}, lr: {choices: [1, 0.5]}, fisher_interval: {low: 1, high: 9}}\n"
    )
    _, _, parameters = sampled(config, 0)
    assert [type(parameters[name]) for name in ("rank", "lr", "fisher_interval")] == [int, float, int]


def test_rows_show_the_space_and_the_fixed_values() -> None:
    rows = {(row.name, row.condition): row for row in SearchSpace(study(CONDITIONAL)).rows()}
    assert (rows["lr", "base=sgd"].range, rows["lr", "base=sgd"].scale, rows["lr", "base=sgd"].default) == (
        "0.01 … 1",
        "log",
        "0.1",
    )
    assert rows["block", "granularity=block"].scale == "step 8"
    assert rows["base", ""].range == "sgd, adamw"
    assert (rows["kl_bound", ""].range, rows["kl_bound", ""].scale) == ("0.001", "fixed")


def test_a_broken_space_is_refused_with_its_path() -> None:
    config = StudyConfig.model_validate(
        {"schema": 1, "name": "x", "workload": "w", "epochs": 1, "space": {"lr": {"low": 2.0, "high": 1.0}}}
    )
    with pytest.raises(ConfigurationError, match=r"space\.lr\.0: low=2: must be < high=1"):
        SearchSpace(config)


def test_single_layers_have_parameters_and_conditions_of_their_own() -> None:
    proposals = [sampled(study(LAYERED), seed)[2] for seed in range(100)]
    for proposal in proposals:
        assert ("rank" in proposal) == ("rank@[02]" in proposal) == (proposal["granularity"] == "input")
        assert ("rank@0" in proposal) == (proposal["granularity@0"] == "input")
        assert ("block@0" in proposal) == (proposal["granularity@0"] == "block")
        assert proposal["fisher_interval@[02]"] == 20
        settings = TrialConfig.from_flat(proposal, workload="digits_mlp", epochs=1, seed=0).fisher
        assert isinstance(settings, LayerSettings)
        assert list(settings) == ["[02]", "0", "*"]  # as the file has them: those of `fixed` first
        assert settings["0"].granularity.startswith(proposal["granularity@0"])  # type: ignore[arg-type]
        assert settings["*"].granularity == settings["[02]"].granularity == proposal["granularity"]
    assert {proposal["granularity@0"] for proposal in proposals} == {"block", "input", "kron"}


def test_single_layers_are_rows_and_starting_points_like_others() -> None:
    space = SearchSpace(study(LAYERED))
    rows = {(row.name, row.condition): row for row in space.rows()}
    row = rows["rank@0", "granularity@0=input,base=adamw"]
    assert (row.range, row.default, row.doc) == ("9 … 32", "as rank", "eigenpairs kept, at most, in layers 0")
    assert rows["decay@0", ""].scale == "fixed"
    (point,) = space.start_points()
    assert space.labelled(point) == {
        "base": "sgd",
        "granularity@0": "input",
        "rank@0[granularity@0=input,base=sgd]": 4,
    }
    assert space.defaults() == {"optimizer": "sngd", "fisher_interval@[02]": 20, "decay@0": 0.5}
