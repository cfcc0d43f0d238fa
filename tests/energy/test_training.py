"""What a training says of its energy, through checkpoints too."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from sngd_tune.energy.counters import CpuTimeEstimate, GpuCounter
from sngd_tune.energy.meter import EnergyMeter
from sngd_tune.records.energy import Energy
from sngd_tune.records.trial import TrialConfig
from sngd_tune.training import Training
from tests.examples.moons import Moons


def training(workload: Moons | None = None) -> Training:
    values: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "batch_size": 50}
    config = TrialConfig.from_flat(values, workload="moons", epochs=4, seed=1, test=False)
    workload = workload or Moons()
    return Training(config, workload, workload.load(None), device="cpu")


@pytest.fixture(autouse=True)
def watts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 W, by estimate, also on a machine with counters."""
    monkeypatch.setattr("sngd_tune.training.energy_meter", lambda *_: EnergyMeter(CpuTimeEstimate(3.0)))


def test_energy_grows_with_the_training_and_names_its_source() -> None:
    run = training()
    first, second = run.epoch(), run.epoch()
    assert first.energy is not None
    assert second.energy is not None
    assert 0 < first.energy.joules < second.energy.joules
    assert first.energy_source == "estimate"
    assert "energy_source" not in second.scalars()


def test_evaluation_is_not_counted() -> None:
    class Slow(Moons):
        def correct(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass
            return super().correct(outputs, targets)

    before = time.process_time()
    metrics = training(Slow()).epoch()
    spent = time.process_time() - before
    assert metrics.energy_joules is not None
    assert metrics.energy_joules <= 3.0 * (spent - 0.2)


def test_energy_of_before_an_interruption_counts() -> None:
    begun = training()
    before = begun.epoch().energy
    resumed = training()
    resumed.load_state_dict(begun.state_dict())
    after = resumed.epoch().energy
    assert before is not None
    assert after is not None
    assert after.joules > before.joules


def test_a_checkpoint_of_before_energy_was_measured_loads_and_its_energy_stays_unknown() -> None:
    begun = training()
    begun.epoch()
    state = begun.state_dict()
    del state["energy"]
    resumed = training()
    resumed.load_state_dict(state)
    assert resumed.epoch().energy is None
    again = training()
    again.load_state_dict(resumed.state_dict())
    assert again.epoch().energy is None


def test_a_training_that_goes_on_with_another_source_adds_nothing_to_what_it_had() -> None:
    begun = training()
    begun.epoch()
    resumed = training()
    resumed._meter = EnergyMeter(GpuCounter(time.monotonic))
    resumed.load_state_dict(begun.state_dict())
    assert resumed.epoch().energy is None


def test_a_source_that_fails_once_leaves_the_sum_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.0, 1.0, 2.0, None, 4.0, 5.0])

    def read() -> float:
        value = next(readings)
        if value is None:
            raise OSError("gone")
        return value

    monkeypatch.setattr("sngd_tune.training.energy_meter", lambda *_: EnergyMeter(GpuCounter(read)))
    run = training()
    assert [run.epoch().energy for _ in range(3)] == [Energy(1.0, "nvml"), None, None]


def test_measuring_changes_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = training()
    measured.epoch()
    monkeypatch.setattr("sngd_tune.training.energy_meter", lambda *_: EnergyMeter(None))
    plain = training()
    assert plain.epoch().energy is None
    assert all(map(torch.equal, measured.model.parameters(), plain.model.parameters()))
