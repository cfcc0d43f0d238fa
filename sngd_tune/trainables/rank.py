"""`Rank`: one of the processes that train a trial together; `trainables.distributed` makes and asks them."""

import copy
import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil
import ray
import torch
from torch import Tensor
from torch import distributed as dist

from sngd_tune.notice import notice_given
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.trainables.plan import TrialPlan
from sngd_tune.trainables.session import start_training
from sngd_tune.trainables.system import Trained

__all__ = ["Rank", "RankEpoch"]


@dataclass(frozen=True)
class RankEpoch:
    """What a rank says after an epoch: `leaving` where its node will be taken away."""

    metrics: EpochMetrics
    finished: bool
    leaving: bool


class Rank:
    """An actor that holds its share of one training after another.

    Args:
        plan: of the study.
        splits: a list with a reference to the data in Ray's object store, of which each node has one copy.
    """

    def __init__(self, plan: TrialPlan, splits: Any) -> None:
        self._plan, self._splits = plan, ray.get(splits[0])
        self._store: dist.Store | None = None
        self._training: Trained | None = None

    def ping(self) -> None:
        """Answer, also while the training waits for other ranks."""

    def node(self) -> tuple[str, str]:
        """Where it runs: Ray's id of the node, and its address."""
        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def listen(self, address: str) -> int:
        """Open the place where ranks meet, at this address alone; its port."""
        with socket.create_server((address, 0)) as server:
            port = int(server.getsockname()[1])
            self._store = dist.TCPStore(
                address, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach()
            )
        return port

    def join(self, rank: int, ranks: int, backend: str, meeting: tuple[str, int], address: str) -> None:
        """Make the process group, at this address of the rank's own; returns when all are there."""
        _use_interface(address)
        if self._store is None:
            self._store = dist.TCPStore(*meeting, is_master=False)
        dist.init_process_group(backend, store=self._store, rank=rank, world_size=ranks)

    def begin(self, trial: TrialConfig) -> None:
        """Prepare a training in the place of the last one."""
        torch.set_num_threads(self._plan.threads)  # here, as it holds for a thread
        self._training = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._training = start_training(self._plan, trial, self._splits)

    def epoch(self) -> RankEpoch:
        """The rank's share of the next epoch."""
        assert self._training is not None
        metrics = self._training.epoch()
        return RankEpoch(metrics, self._training.finished, notice_given(self.node()[0]))

    def state_dict(self) -> dict[str, Any]:
        """Of the training, on the CPU: who asks may have no GPU."""
        assert self._training is not None
        state: dict[str, Any] = _on_cpu(self._training.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of any rank."""
        assert self._training is not None
        self._training.load_state_dict(state)


def _use_interface(address: str) -> None:
    """Talk to other ranks by the interface that has the address; by default it is the one of the host's name."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(variable, name)


def _on_cpu(state: Any) -> Any:
    """The state with all tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        moved = copy.copy(state)  # a module's carries the versions of its parts as an attribute
        moved.update((name, _on_cpu(value)) for name, value in state.items())
        return moved
    if isinstance(state, list | tuple):
        return type(state)(map(_on_cpu, state))
    return state
