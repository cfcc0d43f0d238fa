"""A recipe trains: the lines printed with it are executed, on the file that a study wrote."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from sngd_tune.core.optimizer import SNGD
from sngd_tune.methods import METHODS
from sngd_tune.recipe import recipe, usage, write_recipe
from sngd_tune.records.trial import TrialConfig
from sngd_tune.settings import FisherSettings, as_settings
from sngd_tune.training import Training
from tests.examples.likelihoods import MoonsWithLikelihood

RECIPES: dict[str, dict[str, Any]] = {
    "sngd": {
        "base": "sgd",
        "lr": 0.05,
        "momentum": 0.8,
        "fisher_interval": 5,
        "relative_damping": 0.1,
        "weight_decay": 1e-3,
    },
    "sngd on adamw": {"base": "adamw", "lr": 2e-3, "beta1": 0.8, "granularity": "block", "block": 2, "root": "eigh"},
    "sngd, diagonal": {"base": "sgd", "granularity": "diagonal", "step_bound": "kl", "kl_bound": 1e-2, "lr": 0.05},
    "sngd, sampled": {"base": "sgd", "granularity": "kron", "root": "eigh", "fisher": "sampled", "lr": 0.05},
    "sngd, by layers": {"base": "sgd", "lr": 0.05, "rank": 2, "granularity@3": "kron", "fisher@3": "sampled"},
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 1e-3},
    "sgd, Nesterov": {"optimizer": "sgd", "lr": 0.1, "momentum_kind": "nesterov"},
    "sngd, Nesterov": {"base": "sgd", "lr": 0.05, "momentum_kind": "nesterov"},
    "adamw": {"optimizer": "adamw", "lr": 2e-3, "beta2": 0.99},
    "nadamw": {"optimizer": "nadamw", "lr": 2e-3, "weight_decay": 1e-2},
    "muon": {"optimizer": "muon", "lr": 1e-2, "momentum": 0.9, "beta1": 0.8, "weight_decay": 1e-2},
    "soap": {"optimizer": "soap", "lr": 1e-2, "precondition_interval": 2},
    "exact_ngd": {"optimizer": "exact_ngd", "lr": 0.1, "relative_damping": 5.0, "momentum": 0.5},
}


@pytest.fixture(params=RECIPES)
def trial(request: pytest.FixtureRequest) -> TrialConfig:
    parameters = {"batch_size": 50, **RECIPES[request.param]}
    return TrialConfig.from_flat(parameters, workload="tests.examples.moons:Moons", epochs=1, seed=0)


def test_every_method_has_its_recipe() -> None:
    assert {str(values.get("optimizer", "sngd")) for values in RECIPES.values()} == set(METHODS)


def test_the_printed_lines_train_as_the_trial_did(trial: TrialConfig, tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    write_recipe(path, trial, "Best of study small: trial 0007")
    workload = MoonsWithLikelihood()
    splits = workload.load(None)
    training = Training(trial, workload, splits, device="cpu")
    training.epoch()

    torch.manual_seed(trial.seed)
    names: dict[str, Any] = {"model": workload.model()}
    exec(usage(trial, path), names)
    model, optimizer = names["model"], names["optimizer"]
    inputs, targets = torch.tensor(splits.train.inputs), torch.tensor(splits.train.targets)
    for batch in torch.randperm(200, generator=torch.Generator().manual_seed(trial.seed)).split(50):
        optimizer.zero_grad()
        outputs = model(inputs[batch])
        if "optimizer.observe_outputs(outputs, likelihood)" in usage(trial, path):
            optimizer.observe_outputs(outputs, workload.likelihood)
        workload.loss(outputs, targets[batch]).backward()
        optimizer.step()
    for one, other in zip(model.parameters(), training.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_file_says_where_it_comes_from_and_how_to_use_it(trial: TrialConfig, tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    write_recipe(path, trial, "Best of study small: trial 0007")
    text = path.read_text()
    assert text.startswith("# Best of study small: trial 0007\n#\n# import ")
    assert all(f"# {line}" in text for line in usage(trial, "best.yaml").splitlines())
    assert yaml.safe_load(text) == recipe(trial)


def test_every_setting_of_the_trial_is_in_it(trial: TrialConfig) -> None:
    found = recipe(trial)
    assert found["batch_size"] == 50
    assert found["lr_schedule"] == trial.optimizer.lr_schedule
    if trial.fisher is None:
        section = "torch" if "torch" in found else trial.optimizer.method
        assert found[section]["lr"] == trial.optimizer.lr
        assert found[section]["weight_decay"] == trial.optimizer.weight_decay
        return
    assert as_settings(found["fisher"]) == trial.fisher
    assert found["sngd"]["weight_decay"] == trial.optimizer.weight_decay


def test_a_path_with_quotes_and_backslashes_is_still_a_line_of_python(tmp_path: Path) -> None:
    folder = tmp_path / 'the "best" \\ folder'
    folder.mkdir()
    config = TrialConfig.from_flat({"lr": 0.05}, workload="digits_mlp", epochs=1, seed=0)
    write_recipe(folder / "best.yaml", config, "origin")
    names: dict[str, Any] = {"model": nn.Sequential(nn.Linear(3, 2))}
    exec(usage(config, folder / "best.yaml"), names)
    assert isinstance(names["optimizer"], SNGD)


def test_a_file_of_an_older_version_still_trains_with_the_lines_of_either(tmp_path: Path) -> None:
    config = TrialConfig.from_flat({"lr": 0.05, "rank": 3}, workload="digits_mlp", epochs=1, seed=0)
    path = tmp_path / "best.yaml"
    write_recipe(path, config, "origin")
    best = yaml.safe_load(path.read_text())
    assert FisherSettings(**best["fisher"]) == config.fisher
    names: dict[str, Any] = {"model": nn.Sequential(nn.Linear(3, 2))}
    exec(usage(config, path), names)
    assert [layer.settings for layer in names["optimizer"].layers.values()] == [config.fisher]
