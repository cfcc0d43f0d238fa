"""What a trial takes for each method: defaults, parameters without a meaning, a package that is missing."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sngd_tune.errors import ConfigurationError, MissingDependencyError
from sngd_tune.methods import build, local_fishers
from sngd_tune.records.parameters import PARAMETERS, is_active
from sngd_tune.records.trial import OptimizerConfig
from sngd_tune.search.load import load_study, parse_study
from sngd_tune.settings import FisherSettings
from sngd_tune.training import Training
from tests.methods.problems import METHODS, Digitlike, training, trial
from tests.search.studies import HEAD


def config(**parameters: Any) -> OptimizerConfig:
    return trial(**parameters).optimizer


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"optimizer": "sgd"}, {"lr": 0.1, "momentum": 0.9, "momentum_kind": "heavy_ball"}),
        ({"optimizer": "adamw"}, {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999}),
        ({"optimizer": "nadamw"}, {"lr": 2e-3, "beta1": 0.9, "beta2": 0.999}),
        ({"optimizer": "muon"}, {"lr": 1e-3, "momentum": 0.95, "beta2": 0.999}),
        ({"optimizer": "soap"}, {"lr": 3e-3, "beta1": 0.95, "beta2": 0.95, "precondition_interval": 10}),
        ({"optimizer": "exact_ngd"}, {"lr": 0.1, "momentum": 0.0, "relative_damping": 1.0}),
        ({"base": "adamw"}, {"lr": 1e-3}),
        ({"base": "sgd"}, {"lr": 0.1, "momentum": 0.9}),
        ({"optimizer": "muon", "lr": 0.5, "momentum": 0.1}, {"lr": 0.5, "momentum": 0.1}),
    ],
)
def test_each_method_has_its_defaults(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = config(**given)
    assert {name: getattr(found, name) for name in expected} == expected


SHARED = {"optimizer", "lr", "lr_schedule", "weight_decay", "batch_size"}


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("sgd", {"momentum", "momentum_kind"}),
        ("adamw", {"beta1", "beta2"}),
        ("nadamw", {"beta1", "beta2"}),
        ("muon", {"momentum", "beta1", "beta2"}),
        ("soap", {"beta1", "beta2", "precondition_interval"}),
        ("exact_ngd", {"momentum", "relative_damping"}),
    ],
)
def test_a_method_has_its_own_parameters_and_no_others(method: str, own: set[str]) -> None:
    assert {name for name in PARAMETERS if is_active(name, {"optimizer": method})} == SHARED | own
    with pytest.raises(ConfigurationError, match="has a meaning only where optimizer in"):
        trial(optimizer=method, fisher_interval=10)


def test_nesterov_without_momentum_is_plain_sgd() -> None:
    assert config(optimizer="sgd", momentum=0.0, momentum_kind="nesterov").momentum == 0
    assert training(trial(optimizer="sgd", momentum=0.0, momentum_kind="nesterov")).epoch().finite


def test_exact_ngd_needs_damping_and_a_likelihood() -> None:
    with pytest.raises(ConfigurationError, match=r"relative_damping=0.0: must be > 0 for exact_ngd"):
        trial(optimizer="exact_ngd", relative_damping=0.0)
    assert {name for name, values in METHODS.items() if trial(**values).needs_likelihood} == {"exact_ngd"}
    assert trial(granularity="kron", fisher="sampled").needs_likelihood


def test_a_workload_without_likelihood_is_refused_before_its_model_is_made() -> None:
    class Untouched(Digitlike):
        likelihood = None

        def model(self) -> nn.Module:
            raise AssertionError("has been started")

    workload = Untouched()
    with pytest.raises(ConfigurationError, match="likelihood=None of workload Untouched: must be one of softmax"):
        Training(trial(optimizer="exact_ngd"), workload, workload.load(None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fixed: {optimizer: exact_ngd}\nspace: {lr: {low: 1, high: 2}}\n", {"empirical", "exact"}),
        ("space: {optimizer: {choices: [sgd, exact_ngd]}}\n", {"empirical", "exact"}),
        ("space: {optimizer: {choices: [sgd, muon]}}\n", {"empirical"}),
        ("fixed: {optimizer: soap}\nspace: {lr: {low: 1, high: 2}}\n", {"empirical"}),
    ],
)
def test_a_study_knows_whether_a_method_needs_the_likelihood(text: str, expected: set[str]) -> None:
    assert parse_study(HEAD + text, "f.yaml").fishers == expected


def test_a_missing_package_is_found_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where `sys.modules` has None, Python does not find a module."""
    path = tmp_path / "f.yaml"
    path.write_text(HEAD + "space: {optimizer: {choices: [sgd, soap]}}\n")
    assert load_study(path).name == "small"
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(MissingDependencyError, match=r"optimizer='soap': needs pytorch_optimizer: pip install .*peers"):
        load_study(path)
    with pytest.raises(MissingDependencyError):
        trial(optimizer="soap")
    assert trial(optimizer="muon").optimizer.method == "muon"


@pytest.mark.parametrize("form", ["fused", "explicit"])
def test_single_layers_train_with_settings_of_their_own(form: str) -> None:
    config = trial(base="sgd", form=form, **{"rank": 2, "granularity@2": "kron", "fisher_interval@2": 3})
    model, optimizer = build(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), config)
    assert {name: layer.settings for name, layer in local_fishers(model, optimizer).items()} == {
        "0": FisherSettings(rank=2),
        "2": FisherSettings(granularity="kron", fisher_interval=3),
    }


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_torchs_fused_kernels_are_taken_but_for_numbers_that_they_refuse(method: str) -> None:
    real = nn.Linear(3, 2)
    assert build(real, trial(optimizer=method))[1].defaults["fused"] is True
    imaginary = nn.Linear(3, 2, dtype=torch.complex64)
    optimizer = build(imaginary, trial(optimizer=method))[1]
    before = imaginary.weight.detach().clone()
    imaginary(torch.ones(1, 3, dtype=torch.complex64)).abs().sum().backward()
    optimizer.step()
    assert not torch.equal(imaginary.weight, before)
