"""Counters are given as figures and files: there is neither RAPL nor a GPU here, and what they do is not tested."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sngd_tune.energy.counters import CpuTimeEstimate, GpuCounter, PackageCounter, busy_seconds, find_packages
from sngd_tune.energy.meter import EnergyMeter, energy_meter
from sngd_tune.energy.watts import named_watts, watts_per_cpu
from sngd_tune.errors import ConfigurationError
from sngd_tune.gpu import energy_counter
from sngd_tune.launch import run_study
from sngd_tune.records.energy import Energy
from tests.tracking.samples import study


def figures(*values: float) -> Callable[[], float]:
    """Reads one after the other."""
    source: Iterator[float] = iter(values)
    return lambda: next(source)


def zone(powercap: Path, name: str, kind: str, microjoules: int = 0, wrap: int = 1_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, with what is inside and around them."""
    for package in (0, 1):
        zone(tmp_path, f"intel-rapl:{package}", f"package-{package}", 100_000 * (package + 1))
        zone(tmp_path, f"intel-rapl:{package}:0", "dram", 7)
    zone(tmp_path, "intel-rapl:2", "psys", 7)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 7)
    return tmp_path


def test_packages_are_counted_once_and_without_their_parts(powercap: Path) -> None:
    assert [package.counter.parent.name for package in find_packages(powercap)] == ["intel-rapl:0", "intel-rapl:1"]


@pytest.mark.parametrize("content", [None, "", "denied"])
def test_a_package_that_cannot_be_read_leaves_no_packages(powercap: Path, content: str | None) -> None:
    """Part of a machine's energy would look like all of it."""
    counter = powercap / "intel-rapl:1" / "energy_uj"
    counter.unlink()
    if content is not None:
        counter.write_text(content)
    assert find_packages(powercap) == []


def test_without_powercap_there_are_no_packages(tmp_path: Path) -> None:
    assert find_packages(tmp_path / "none") == []


def test_a_process_is_given_its_share_of_the_packages(powercap: Path) -> None:
    packages = find_packages(powercap)
    counter = PackageCounter(packages, own=figures(10.0, 13.0), busy=figures(100.0, 112.0))
    with EnergyMeter(counter) as meter:
        for package, microjoules in zip(packages, (500_000, 600_000), strict=True):
            package.counter.write_text(str(microjoules))
    assert meter.energy == Energy(pytest.approx(0.8 * 3 / 12), "rapl_share")


def test_a_counter_that_began_again_is_carried_on(powercap: Path) -> None:
    packages = find_packages(powercap)
    with EnergyMeter(PackageCounter(packages, own=figures(0, 1), busy=figures(0, 1))) as meter:
        packages[1].counter.write_text("50000")  # from 200,000 over 1,000,000
    assert meter.energy == Energy(pytest.approx(0.85), "rapl_share")


@pytest.mark.parametrize(("own", "busy", "joules"), [(0.004, 0.0, 0.1), (0.0, 0.0, 0.0), (0.0, 3.0, 0.0)])
def test_a_share_stays_between_nothing_and_all_where_ticks_are_too_coarse(
    powercap: Path, own: float, busy: float, joules: float
) -> None:
    (package, _) = find_packages(powercap)
    with EnergyMeter(PackageCounter([package], own=figures(0, own), busy=figures(0, busy))) as meter:
        package.counter.write_text("200000")
    assert meter.energy == Energy(pytest.approx(joules), "rapl_share")


def test_a_counter_that_is_closed_meanwhile_makes_energy_unknown(powercap: Path) -> None:
    packages = find_packages(powercap)
    meter = EnergyMeter(PackageCounter(packages))
    with meter:
        packages[0].counter.unlink()
    assert meter.energy is None
    packages[0].counter.write_text("0")
    with meter:
        pass
    assert meter.energy is not None


@pytest.mark.parametrize(
    ("share", "energy"), [(1.0, Energy(8.0, "nvml")), (2.0, Energy(8.0, "nvml")), (0.25, Energy(2.0, "nvml_share"))]
)
def test_a_gpu_counts_by_the_share_that_was_given(share: float, energy: Energy) -> None:
    settled: list[str] = []
    meter = EnergyMeter(GpuCounter(figures(3.0, 11.0), share), lambda: settled.append("device"))
    with meter:
        assert len(settled) == 1
    assert meter.energy == energy
    assert len(settled) == 2


def test_a_gpu_that_is_lost_makes_energy_unknown() -> None:
    def lost() -> float:
        raise OSError("GPU is lost")

    with EnergyMeter(GpuCounter(lost)) as meter:
        pass
    assert meter.energy is None


def test_a_gpu_without_nvml_has_no_counter() -> None:
    assert energy_counter("GPU-00000000-0000-0000-0000-000000000000") is None


def test_a_window_counts_what_was_looked_at_meanwhile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sngd_tune.energy.meter._LOOK_SECONDS", 0.0)
    meter = EnergyMeter(GpuCounter(figures(0.0, 5.0, 7.0, 20.0, 21.0)))
    with meter:
        meter.look()
    assert meter.energy == Energy(7.0, "nvml")
    with meter:
        pass
    assert meter.energy == Energy(1.0, "nvml")


def test_between_two_looks_nothing_is_read() -> None:
    with EnergyMeter(GpuCounter(figures(0.0, 1.0))) as meter:
        for _ in range(100):
            meter.look()
    assert meter.energy == Energy(1.0, "nvml")


def test_what_raised_is_no_measurement() -> None:
    meter = EnergyMeter(CpuTimeEstimate(1.0))
    with pytest.raises(RuntimeError), meter:
        raise RuntimeError
    assert meter.energy is None


def test_an_estimate_is_cpu_time_by_watts_and_waiting_costs_nothing() -> None:
    meter = EnergyMeter(CpuTimeEstimate(2.5))
    with meter:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    assert meter.energy is not None
    assert meter.energy.joules >= 2.5 * 0.05
    assert not meter.energy.measured
    with meter:
        time.sleep(0.05)
    assert meter.energy.joules < 2.5 * 0.05


def test_the_machine_is_at_least_as_busy_as_this_process() -> None:
    own, busy = time.process_time(), busy_seconds()
    while time.process_time() < own + 0.2:
        pass
    assert busy_seconds() - busy >= 0.1  # in ticks of 10 ms


def test_a_cpu_always_has_a_source_and_other_devices_none() -> None:
    nothing = energy_meter(torch.device("cpu")).nothing
    assert nothing is not None
    assert nothing.source in ("rapl_share", "estimate")
    with energy_meter(torch.device("meta")) as meter:
        pass
    assert meter.energy is None


def test_the_users_watts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNGD_TUNE_WATTS", raising=False)
    assert named_watts() is None
    assert 1 < watts_per_cpu() < 10
    monkeypatch.setenv("SNGD_TUNE_WATTS", "7.5")
    assert watts_per_cpu() == 7.5


def test_a_study_with_wrong_watts_does_not_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNGD_TUNE_WATTS", "many")
    with pytest.raises(ConfigurationError, match="SNGD_TUNE_WATTS=many"):
        run_study(study(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["many", "0", "-3", "inf", "nan"])
def test_wrong_watts_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SNGD_TUNE_WATTS", text)
    with pytest.raises(ConfigurationError, match=f"SNGD_TUNE_WATTS={text}: .* > 0"):
        energy_meter(torch.device("cpu"))
