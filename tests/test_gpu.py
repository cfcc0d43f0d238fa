"""GPUs: there is none here, so that figures of some are given; what NVML itself does is not tested."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from sngd_tune.errors import GpuMemoryError
from sngd_tune.gpu import Gpu, GpuProcess, limit_memory, read_gpus, wait_for_memory

GB = 10**9
FREE = Gpu(index=0, uuid="GPU-aa11", name="A100", total=40 * GB, free=40 * GB)
FULL = Gpu(
    index=1, uuid="GPU-bb22", name="A100", total=40 * GB, free=5 * GB, processes=(GpuProcess(2**22 + 1, 34 * GB),)
)


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_without_nvml_there_is_nothing_to_see_and_nobody_waits() -> None:
    assert read_gpus() == []
    wait_for_memory(1.0, seconds=60)


def test_without_a_gpu_nothing_is_limited() -> None:
    limit_memory(0.5)


@pytest.mark.parametrize(("share", "gpus"), [(1.0, [FREE]), (0.1, [FREE, FULL]), (2.0, [FREE, FREE])])
def test_a_trial_whose_share_is_free_starts_at_once(share: float, gpus: Sequence[Gpu]) -> None:
    wait_for_memory(share, seconds=60, read=lambda: gpus)


def test_a_trial_starts_when_the_memory_of_a_dead_one_has_come_back() -> None:
    states: Iterator[Gpu] = iter([FULL, FULL, FREE])
    wait_for_memory(0.5, seconds=60, read=lambda: [next(states)])
    assert list(states) == []


def test_who_holds_the_memory_is_named_after_the_time() -> None:
    foreign = replace(FULL, processes=(*FULL.processes, GpuProcess(os.getppid(), None)))
    with pytest.raises(GpuMemoryError) as caught:
        wait_for_memory(0.5, seconds=0, read=lambda: [foreign])
    message = str(caught.value)
    assert message.startswith("GPU 1 (A100): 5.0 of 40.0 GB are free after 0 s, and the trial's share is 18.0 GB")
    assert f"PID {2**22 + 1} (dead, or outside this container, 34.0 GB), PID {os.getppid()} (" in message


def test_what_this_process_holds_counts_as_free() -> None:
    own = replace(FULL, processes=(GpuProcess(os.getpid(), 34 * GB),))
    wait_for_memory(0.9, seconds=0, read=lambda: [own])


@pytest.mark.parametrize("visible", ["0", "GPU-aa", "0,", ""])
def test_gpus_of_others_are_not_waited_for(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    wait_for_memory(1.0, seconds=0, read=lambda: [FREE, FULL])


@pytest.mark.parametrize("visible", ["1", "0,1", "GPU-bb22"])
def test_all_of_its_own_gpus_are_waited_for(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(GpuMemoryError, match="GPU 1"):
        wait_for_memory(1.0, seconds=0, read=lambda: [FREE, FULL])
