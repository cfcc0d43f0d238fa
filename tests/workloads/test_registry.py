"""Workloads by name: what is found, and what is said where nothing is."""

import sys
from pathlib import Path

import pytest
import torch

from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.registry import find_workload, load_data
from tests.examples.moons import MOONS, Moons

HERE = "tests.examples"


@pytest.mark.parametrize("attribute", ["Moons", "MOONS", "make_moons"])
def test_a_workload_is_a_class_an_instance_or_a_function(attribute: str) -> None:
    found = find_workload(f"{HERE}.moons:{attribute}")
    assert isinstance(found, Moons)
    assert (found is MOONS) == (attribute == "MOONS")


def test_the_users_module_is_imported_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_of_the_test.py").write_text("from tests.examples.moons import Moons as Mine\n")
    assert isinstance(find_workload("mine_of_the_test:Mine", tmp_path), Moons)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_mpl", "workload='digits_mpl': not registered; did you mean 'digits_mlp'?; your own is named module:a"),
        ("no_such_module:Mine", "importing no_such_module failed (ModuleNotFoundError: No module named"),
        (":Mine", "importing  failed (ValueError"),
        (f"{HERE}.moons:Moon", f"{HERE}.moons has no 'Moon'; did you mean 'Moons'?"),
        (f"{HERE}.moons:", f"{HERE}.moons has no ''"),
        (f"{HERE}.moons:NUMBER", "is a int; it must be a sngd_tune.workloads.workload.Workload"),
        (f"{HERE}.moons:needs_an_argument", "making it failed (TypeError: needs_an_argument() missing 1 required"),
        (f"{HERE}.moons:breaks", "making it failed (KeyError: 'no such column'; "),
        (f"{HERE}.faults:Unfinished", "making it failed (TypeError: Can't instantiate abstract class Unfinished"),
    ],
)
def test_what_is_no_workload_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_workload(name)
    assert message in str(caught.value)


def test_a_module_that_raises_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken_of_the_test.py").write_text("1 / 0\n")
    with pytest.raises(ConfigurationError, match=r"importing broken_of_the_test failed \(ZeroDiv"):
        find_workload("broken_of_the_test:Mine", tmp_path)


@pytest.mark.parametrize(
    ("attribute", "objectives", "message"),
    [
        (
            "RaisesWhenLoading",
            (),
            r"loading its data failed \(ZeroDivisionError: nothing to divide; .*faults\.py:\d+\)",
        ),
        ("LoadsNothing", (), r"its load\(\) gave a NoneType; it must give Splits"),
        ("WithoutAccuracy", ("validation_accuracy",), "has no accuracy; choose validation_loss"),
    ],
)
def test_data_that_cannot_serve_is_refused(attribute: str, objectives: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_data(f"{HERE}.faults:{attribute}", None, objectives)


def test_accuracy_is_an_objective_where_there_is_one() -> None:
    assert len(load_data(f"{HERE}.moons:Moons", None, ("validation_accuracy",)).train) == 200


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("moons:Moons", "likelihood=None of workload Moons: must be one of softmax, gaussian, bernoulli for optimizer"),
        ("likelihoods:Doubled", "likelihood='softmax' of workload Doubled: .* it is 2 times that: divide it by 2, or"),
        ("likelihoods:RaisesInLoss", r"trying its model and loss failed \(RuntimeError: no batch.*faults\.py:\d+\)"),
    ],
)
def test_a_likelihood_that_cannot_serve_is_refused(attribute: str, message: str) -> None:
    for fishers in ({"sampled"}, {"empirical", "exact"}):
        with pytest.raises(ConfigurationError, match=message):
            load_data(f"{HERE}.{attribute}", None, (), fishers)
    assert load_data(f"{HERE}.{attribute}", None, (), {"empirical"})


@pytest.mark.parametrize(
    ("attribute", "patterns", "message"),
    [
        (
            "moons:Moons",
            {"0", "head.*", "*"},
            r"workload='.*Moons': 'head\.\*': matches no module; the modules are 0, 1",
        ),
        ("faults:RaisesInModel", {"0"}, r"making its model failed \(RuntimeError: .*linear\.py:\d+\)"),
    ],
)
def test_patterns_have_to_match_a_module_of_the_model(attribute: str, patterns: set[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_data(f"{HERE}.{attribute}", None, patterns=patterns)
    random = torch.get_rng_state()
    assert load_data(f"{HERE}.moons:Moons", None, patterns={"0", "[13]"})
    assert torch.equal(torch.get_rng_state(), random)


def test_a_likelihood_is_missed_before_the_data_is_read() -> None:
    with pytest.raises(ConfigurationError, match="likelihood=None"):
        load_data(f"{HERE}.faults:RaisesWhenLoading", None, (), {"sampled"})
