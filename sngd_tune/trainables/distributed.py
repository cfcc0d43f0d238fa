"""A trial that several processes train together, data-parallel: a group of ranks behind one Tune trainable.

Tune reserves a placement group with a bundle for each rank and none for the trainable, which only coordinates. So
trials that wait for ranks take nothing from those that run, and what Tune stops is free as a whole. Ranks live on from
trial to trial as other actors do; one process group serves all trials of theirs.

Ray Train's `TorchTrainer`, nested in a Tune trial, does the same at another price. Measured with Ray 2.60, gloo, two
workers and trials that do next to nothing, on two CPUs: ``TorchTrainer.fit`` took 16 to 19 s a trial where they were
idle, and 29 to 31 s beside other work, where the ranks here took 11 s once and 0.15 s a trial. It also reserves its
workers in a placement group of its own, of which Tune knows nothing: Tune would start trials that have no room. And it
polls for results, every two seconds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.trainables.plan import TrialPlan
from sngd_tune.trainables.rank import Rank
from sngd_tune.trainables.system import joint_system
from sngd_tune.trainables.trial import TrialTrainable

__all__ = ["DistributedTrainable"]

_LOOPBACK = "127.0.0.1"
#: For a process to say that it lives. One that does not say so in time counts as dead.
_PING_SECONDS = 30.0


class _Group:
    """The ranks of a placement group's bundles: to a `TrialSession` they are one `Training`.

    Attributes:
        lost: why a process has died.
        ended: whether another group has to be made.
        leaving: whether a node of the group will be taken away.
    """

    def __init__(self, plan: TrialPlan, splits: Any) -> None:
        self.lost: RayError | None = None
        self.ended, self.leaving, self.finished = False, False, False
        group = get_current_placement_group()
        assert group is not None  # Tune has made one
        remote: Any = ray.remote(concurrency_groups={"health": 1})(Rank)  # type: ignore[call-overload]
        self._ranks = [
            remote.options(
                num_cpus=bundle.get("CPU", 0.0),
                num_gpus=bundle.get("GPU", 0.0),
                memory=bundle.get("memory"),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i),
            ).remote(plan, splits)
            for i, bundle in enumerate(group.bundle_specs)
        ]
        # NCCL wants a GPU for each rank; gloo serves ranks that share one, and CPUs.
        self._backend = "nccl" if all(bundle.get("GPU", 0.0) >= 1 for bundle in group.bundle_specs) else "gloo"

    def meet(self) -> None:
        """Make the ranks' process group."""
        self._nodes, addresses = zip(*self._all("node"), strict=True)
        if len(set(self._nodes)) == 1:
            addresses = (_LOOPBACK,) * len(self._nodes)  # nobody else has to reach them
        (port,) = self._results([self._ranks[0].listen.remote(addresses[0])])
        common = len(self._ranks), self._backend, (addresses[0], port)
        self._results(
            [
                rank.join.remote(i, *common, address)
                for i, (rank, address) in enumerate(zip(self._ranks, addresses, strict=True))
            ]
        )

    def begin(self, trial: TrialConfig) -> None:
        """Prepare a training on all ranks."""
        self.finished = self.leaving = False
        self._all("begin", trial)

    def epoch(self) -> EpochMetrics:
        """The next epoch, as `Training.epoch`; metrics are those of rank 0, but for what all nodes did."""
        said = self._all("epoch")
        self.finished, self.leaving = said[0].finished, any(each.leaving for each in said)
        metrics: EpochMetrics = said[0].metrics
        return replace(metrics, system=joint_system(self._nodes, [each.metrics.system for each in said]))

    def state_dict(self) -> dict[str, Any]:
        """That of rank 0, which is complete."""
        state: dict[str, Any] = self._results([self._ranks[0].state_dict.remote()])[0]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it on all ranks."""
        self._all("load_state_dict", ray.put(state))

    def end(self) -> None:
        """Let the processes go."""
        self.ended = True
        for rank in self._ranks:
            ray.kill(rank)

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        return self._results([getattr(rank, method).remote(*arguments) for rank in self._ranks])

    def _results(self, calls: Sequence[Any]) -> list[Any]:
        """The results of calls. What one rank raises is raised here at once: the others wait for it, and are ended."""
        pending = list(calls)
        try:
            while pending:
                (done,), pending = ray.wait(pending)
                ray.get(done)
        except RayError as error:
            self.lost = self._death()
            self.end()
            raise (error.cause if isinstance(error, RayTaskError) else error) from error
        return ray.get(list(calls))

    def _death(self) -> RayError | None:
        """Why a process has died: the others may have noticed first, and call it an error of the network."""
        for rank in self._ranks:
            try:
                ray.get(rank.ping.options(concurrency_group="health").remote(), timeout=_PING_SECONDS)
            except RayError as error:
                return error
        return None


class DistributedTrainable(TrialTrainable):
    """As `TrialTrainable`; each trial is trained by one rank per bundle of its placement group.

    `setup` is given a list with a reference to the data in the place of `splits`: the trainable itself needs none.
    A rank that dies is an error to Tune, as the death of a trial's only process is.
    """

    _group: _Group | None = None

    def step(self) -> dict[str, Any]:
        """As `TrialTrainable.step`.

        Raises:
            RayError: a rank has died.
            PreemptedError: the node of a rank will be taken away; a checkpoint has been written.
        """
        result = super().step()
        if self._group is not None and self._group.lost is not None:
            raise self._group.lost
        return result

    def cleanup(self) -> None:
        """The end of the ranks' work, too."""
        super().cleanup()
        if self._group is not None and not self._group.ended:
            self._group.end()

    def _start(self, trial: TrialConfig) -> _Group:
        """The trial on a group: the one of the trial before, or another where a rank of that raised."""
        if self._group is not None and self._group.lost is not None:
            raise self._group.lost
        if self._group is None or self._group.ended:
            self._group = _Group(self._plan, self._splits)
            self._group.meet()
        self._group.begin(trial)
        return self._group

    def _leaving(self) -> bool:
        return super()._leaving() or (self._group is not None and self._group.leaving)
