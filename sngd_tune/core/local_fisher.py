"""`LocalFisher`: the running Fisher matrix and the root of one layer, behind its schedule.

The same part serves both forms of the method. As a module it *is* the local Fisher layer, ``a ↦ Rᵀ a``; the fused
optimizer keeps it beside the layer and uses its operator only. Its tensors are buffers, so that `.to()` and
`state_dict()` (tensors and numbers only) need no code.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.clock import Clock
from sngd_tune.core.collector import Collector
from sngd_tune.core.damping import base_damping
from sngd_tune.core.estimates import State, make_estimate
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.schedule import SCHEDULES, Offset
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.errors import NonFiniteError, ReconstructionError, RootError
from sngd_tune.settings import FisherSettings

__all__ = ["LocalFisher", "Stage", "make_local_fisher"]


class Stage(Enum):
    """What closing a step's statistics brought for a layer."""

    HELD = "no statistics in this step"
    WARMING = "statistics only: the parameters stay as they are"
    TAKEN = "statistics"
    DUE = "statistics, and a refresh is due"


_TOGETHER = Offset()
_COUNTERS = ("refreshes", "root_failures", "skipped_steps", "skipped_steps_in_row", "damping_factor")


class LocalFisher(nn.Module):
    """Running ``G``, root ``R`` and schedule of one layer.

    Args:
        shape: of the layer's weight matrices.
        settings: granularity, root, damping and intervals.
        offset: where its regular steps lie in the intervals.
        name: module name of the layer, for messages.
        seed: of the sketch's random start.
        dtype: of the parameters; float16 and bfloat16 keep their statistics in float32.
        device: of the parameters.

    Attributes:
        collector: what brings batches into ``G``.
        damping_factor: what multiplies λ from the next refresh on.
        root_failures: refreshes that failed and kept the root before.
        refreshes: roots computed so far.
        skipped_steps: steps that were left out for gradients that were not finite.
        skipped_steps_in_row: how many of them since the last good one.
        refresh_seconds: that this process has spent on refreshes (on a GPU: on launching them).
    """

    def __init__(
        self,
        shape: Shape,
        settings: FisherSettings,
        *,
        offset: Offset = _TOGETHER,
        name: str = "layer",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.settings = settings
        self.offset = offset
        self.name = name
        self.shape = shape
        self.dtype = dtype = dtype if dtype == torch.float64 else torch.float32
        self.estimate = make_estimate(shape, settings)
        self.collector = Collector(name, settings, self.estimate, seed)
        self._clock = Clock(settings, offset)
        self.damping_factor = 1.0
        self.refreshes = 0
        self.root_failures = 0
        self.skipped_steps = 0
        self.skipped_steps_in_row = 0
        self.refresh_seconds = 0.0
        self.stopwatch: Stopwatch | None = None
        generator = torch.Generator().manual_seed(seed)
        self._state_names = self._register("state", self.estimate.init(dtype, device, generator))
        identity = self.estimate.identity(dtype, device)
        self._root_names = self._register("root", identity.tensors())
        self.damping: Tensor
        self.register_buffer("damping", torch.ones(self.estimate.damping_shape, dtype=dtype, device=device))
        #: ``c`` of the root in force, ``R Rᵀ = c² (G + λI)⁻¹``, of the shape of λ; 1 before the first refresh.
        self.scale: Tensor
        self.register_buffer("scale", torch.ones_like(self.damping))
        #: Of ``G`` at the last refresh.
        self.fingerprint: Tensor
        self.register_buffer("fingerprint", torch.zeros_like(self.estimate.fingerprint(self._state())))
        self._operator: RootOperator | None = identity

    @property
    def root(self) -> RootOperator:
        """The root in force; the identity before the first refresh."""
        if self._operator is None:
            self._operator = self.estimate.operator({name: getattr(self, f"root_{name}") for name in self._root_names})
        return self._operator

    def forward(self, a: Tensor) -> Tensor:
        """The local Fisher layer: ``Rᵀ a`` for each row of ``a: [..., d]``; where ``G`` is of inputs alone."""
        if self.collector.waits:
            raise ReconstructionError(
                f"{self.name}: granularity={self.settings.granularity!r} acts on weights, not on inputs alone;"
                " apply LocalFisher.root to the weight matrix"
            )
        rows = a.reshape(-1, a.shape[-1])
        return self.root.apply(rows).view(a.shape)

    @property
    def step(self) -> int:
        """The coming optimizer step; negative during the warm-up."""
        return self._clock.step

    @property
    def observing(self) -> bool:
        """Whether the batch of the coming step enters ``G``."""
        return self._clock.observing

    @property
    def skipped_batches(self) -> int:
        """Statistics batches, at most one a step, of which something did not enter ``G``, since it was not finite."""
        return self.collector.skipped.total

    @torch.no_grad()
    def observe(self, seen: Seen) -> None:
        """Take what one forward pass showed into ``G``; gradients, where they are needed, when they come."""
        with self._timed("statistics"):
            self.collector.take(self._state(), seen, self.dtype, self._clock.calls)

    def generator(self) -> torch.Generator:
        """For targets drawn in the coming step."""
        return self.collector.generator(self._clock.calls)

    def follow(self, weight: Tensor) -> None:
        """Go along with the precision and the device of the layer's weight."""
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        if dtype != self.dtype or weight.device != self.damping.device:
            self.to(device=weight.device, dtype=dtype)

    def skip(self) -> None:
        """Leave the coming step out: what waits for its gradients is dropped, and the schedule stays where it is.

        Inputs that were finite have entered ``G`` in the forward pass and stay there, as those of a step of their own.
        """
        self.collector.forget()
        self.skipped_steps += 1
        self.skipped_steps_in_row += 1

    def advance(self) -> RootOperator | None:
        """`close`, and the refresh where it is due.

        Returns:
            the root before, where this step refreshed it: state in the coordinates of ``W′`` has to move along.

        Raises:
            NonFiniteError: ``G`` has overflowed, or too many batches in a row were not finite.
            RootError: the first root fails; later failures warn and keep the last good one.
        """
        if self.close() is not Stage.DUE:
            return None
        before, damping = self.root, self.plan()
        if damping is None:
            return None
        try:
            tensors = self.compute(damping)
        except RootError as error:
            self.keep_last_root(error)
            return None
        self.install(tensors, damping)
        return before

    def close(self) -> Stage:
        """Close the coming step's statistics, and tell what the step asks for.

        Raises:
            NonFiniteError: too many batches in a row were not finite.
        """
        clock = self._clock
        step, taken = clock.step, clock.observing
        clock.tick()
        if self.skipped_steps_in_row:
            self.skipped_steps_in_row = 0
        if not taken:  # a refresh is always due together with statistics
            return Stage.HELD
        with self._timed("statistics"):
            self.collector.close(self._state())
        if step < 0:
            return Stage.WARMING
        return Stage.DUE if clock.refresh_due(step) else Stage.TAKEN

    def averaged(self) -> list[Tensor]:
        """The statistics that are linear in the batches, so that ranks can average them."""
        return [value for name, value in self._state().items() if name not in self.estimate.fixed]

    @torch.no_grad()
    def plan(self) -> Tensor | None:
        """The damping of a refresh; None where the root stays.

        Raises:
            NonFiniteError: ``G`` has overflowed.
        """
        if not bool(self._state()["weight"] > 0):
            self._report_unseen()
            return None
        damping = base_damping(self.estimate.mean_diagonal(self._state()), self.settings) * self.damping_factor
        if not bool(self.estimate.damped_mean(self._state(), damping).isfinite().all()):
            raise NonFiniteError(
                f"{self.name}: its statistics overflow {self.dtype}; scale its inputs, or try another lr"
            )
        return None if self._still_good(damping) else damping

    @torch.no_grad()
    def compute(self, damping: Tensor) -> State:
        """The tensors of a new root, which `install` puts in force.

        Raises:
            RootError: there is none.
        """
        start = time.perf_counter()
        with self._timed("refresh"):
            if not bool((damping > 0).all()):
                raise RootError(
                    f"λ={float(damping.min()):g}: all inputs are 0 and absolute_damping is 0; set absolute_damping > 0"
                )
            root = self.estimate.refresh(self._state(), damping, self._last())
            if self.settings.root_scale == "unit":
                root = root.scaled(self._root_scale(damping))
            tensors = root.tensors()
        self.refresh_seconds += time.perf_counter() - start
        # LAPACK's results are column-major, a loaded state is row-major: the layout must not change the rounding.
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def blank(self) -> tuple[State, list[Tensor]]:
        """For a root that another rank computes: empty tensors to receive it, and the statistics that it moves."""
        root = {name: torch.empty_like(getattr(self, f"root_{name}")) for name in self._root_names}
        return root, [value for name, value in self._state().items() if name in self.estimate.moved]

    @torch.no_grad()
    def install(self, tensors: State, damping: Tensor) -> None:
        """Put the root of these tensors in force."""
        for name, tensor in tensors.items():
            setattr(self, f"root_{name}", tensor)
        self.damping, self.scale = damping, self._root_scale(damping)
        self.fingerprint = self.estimate.fingerprint(self._state())
        self._operator = None  # made anew from these tensors, as after a load
        self.refreshes += 1

    def _root_scale(self, damping: Tensor) -> Tensor:
        """``c`` of a new root; no refresh moves what it is made of, so every rank knows it, whichever has the root."""
        if self.settings.root_scale == "natural":
            return torch.ones_like(damping)
        return self.estimate.damped_mean(self._state(), damping).sqrt()

    def _last(self) -> RootOperator:
        """The root in force, with ``c = 1`` for a refresh that starts from it."""
        as_it_is = not self.estimate.starts_from_last or bool((self.scale == 1).all())
        return self.root if as_it_is else self.root.scaled(self.scale.reciprocal())

    @torch.no_grad()
    def drift(self) -> float | None:
        """``‖G − G_last‖ / ‖G_last‖`` (Frobenius) since the last refresh, estimated; None before the first."""
        if not self.refreshes:
            return None
        moved = torch.linalg.vector_norm(self.estimate.fingerprint(self._state()) - self.fingerprint)
        return float(moved / torch.linalg.vector_norm(self.fingerprint).clamp(min=torch.finfo(self.dtype).tiny))

    def snapshot(self) -> Snapshot | None:
        """``G`` as it stands, for diagnosis; None before the first batch."""
        return self.estimate.snapshot(self._state()) if bool(self._state()["weight"] > 0) else None

    def mean_diagonal(self) -> float | None:
        """Mean of the diagonal of ``G``; None before the first batch."""
        return float(self.estimate.mean_diagonal(self._state()).mean()) if bool(self._state()["weight"] > 0) else None

    def _report_unseen(self) -> None:
        if not self.skipped_batches:  # else it was seen, but never finite, and this has been said
            warnings.warn(
                f"{self.name}: its forward pass has not been seen, so it trains without a local Fisher layer;"
                " is it called, in training mode?",
                stacklevel=2,
            )

    def _still_good(self, damping: Tensor) -> bool:
        """Whether the schedule goes by drift, and neither ``G`` nor λ has moved enough for a refresh."""
        if not SCHEDULES[self.settings.refresh_schedule].by_drift or not self.refreshes:
            return False
        threshold, drift = self.settings.drift_threshold, self.drift()
        moved = ((damping - self.damping).abs() / self.damping).max()
        return drift is not None and drift < threshold and bool(moved < threshold)

    def keep_last_root(self, error: RootError) -> None:
        """Go on without the refresh that failed (RootError where it was the first)."""
        self.root_failures += 1
        if not self.refreshes:
            raise RootError(f"{self.name}: {error}") from error
        warnings.warn(f"{self.name}: refresh failed ({error}); it keeps its last good root", stacklevel=4)

    def _state(self) -> State:
        return {name: getattr(self, f"state_{name}") for name in self._state_names}

    def _register(self, prefix: str, tensors: State) -> tuple[str, ...]:
        for name, tensor in tensors.items():
            self.register_buffer(f"{prefix}_{name}", tensor)
        return tuple(tensors)

    def _timed(self, part: str) -> Any:
        return self.stopwatch(part) if self.stopwatch is not None else nullcontext()

    def get_extra_state(self) -> dict[str, Any]:
        """Counters beside the buffers: plain numbers, so that ``weights_only=True`` loads them."""
        own = {name: getattr(self, name) for name in _COUNTERS}
        return {"calls": self._clock.calls, **own, **self.collector.counters()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Inverse of `get_extra_state`."""
        self._clock.set(state["calls"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.collector.restore(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}damping" in state_dict:  # a state from before `root_scale` has roots of scale 1
            state_dict.setdefault(f"{prefix}scale", torch.ones_like(self.scale))  # torch copied the caller's dictionary
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._operator = None  # it was made of the tensors before

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LocalFisher":
        """As `nn.Module._apply`; under float16 and bfloat16 the statistics stay in float32."""

        def wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            narrow = moved.is_floating_point() and moved.dtype not in (torch.float32, torch.float64)
            return tensor.to(moved.device, torch.float32) if narrow else moved

        super()._apply(wide, recurse)
        self.dtype = self.damping.dtype
        self.collector.forget()
        self._operator = None
        return self


def make_local_fisher(match: Match, seed: int) -> LocalFisher:
    """The `LocalFisher` of a site, in the precision and on the device of its weight."""
    weight = match.parameters[0]
    return LocalFisher(
        match.site.shape,
        match.settings,
        offset=match.offset,
        name=match.name or "model",
        seed=seed,
        dtype=weight.dtype,
        device=weight.device,
    )
