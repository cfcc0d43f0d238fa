"""`LocalFisher`: the running Fisher matrix and the root of one layer, behind its schedule.

The same part serves both forms of the method. As a module it *is* the local Fisher layer, ``a ↦ Rᵀ a``; the fused
optimizer keeps it beside the layer and uses its operator only. Its tensors are buffers, so that `.to()` and
`state_dict()` (tensors and numbers only) need no code.
"""

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.damping import base_damping
from sngd_tune.core.estimates import State, make_estimate
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.passes import Passes
from sngd_tune.core.pending import PendingBatch
from sngd_tune.core.safety import MAX_SKIPPED, all_finite, report
from sngd_tune.core.schedule import SCHEDULES, Offset, refresh_due, statistics_due
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.errors import FisherError, NonFiniteError, ReconstructionError, RootError
from sngd_tune.settings import FisherSettings

__all__ = ["Advance", "LocalFisher", "Stage", "make_local_fisher"]


@dataclass(frozen=True)
class Advance:
    """What one optimizer step brought for a layer.

    Attributes:
        warming: True while only statistics are collected: the parameters stay as they are.
        replaced: the root before, where this step refreshed it; state in the coordinates of ``W′`` has to move along.
    """

    warming: bool
    replaced: RootOperator | None = None


class Stage(Enum):
    """What closing a step's statistics brought for a layer."""

    HELD = "no statistics in this step"
    WARMING = "statistics only: the parameters stay as they are"
    TAKEN = "statistics"
    DUE = "statistics, and a refresh is due"


@dataclass
class _Counters:
    """Plain numbers of a layer, apart from the module, whose attribute assignment costs microseconds a step."""

    seed: int = 0
    calls: int = 0
    refreshes: int = 0
    root_failures: int = 0
    skipped_steps: int = 0
    skipped_steps_in_row: int = 0
    skipped_batches: int = 0
    skipped_batches_in_row: int = 0
    damping_factor: float = 1.0


_TOGETHER = Offset()
_HELD = Advance(warming=False)
_WARMING = Advance(warming=True)


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
        self.estimate = make_estimate(shape, settings)
        self.dtype = dtype if dtype == torch.float64 else torch.float32
        self._passes = Passes(self.estimate, settings.decay, seed)
        #: Batches of the coming step that wait for gradients.
        self.pending: list[PendingBatch] = []
        #: Whether `observe_outputs` has been called for the coming step.
        self.outputs_seen = False
        #: Whether a pass of the coming step was not finite.
        self._spoiled = False
        #: Whether a backward pass under way is the training step's own; `observe_outputs` makes others.
        self.collecting = True
        self._counters = _Counters(seed)
        self._observing = statistics_due(self.step, settings, offset)
        self.stopwatch: Stopwatch | None = None
        #: Batches of statistics in a row that may hold NaN or infinity before it is an error.
        self.max_skipped = MAX_SKIPPED
        #: Seconds that this process has spent on refreshes (on a GPU: on launching them).
        self.refresh_seconds = 0.0
        dtype = self.dtype
        generator = torch.Generator().manual_seed(seed)
        self._state_names = self._register("state", self.estimate.init(dtype, device, generator))
        identity = self.estimate.identity(dtype, device)
        self._root_names = self._register("root", identity.tensors())
        self.damping: Tensor
        self.register_buffer("damping", torch.ones(self.estimate.damping_shape, dtype=dtype, device=device))
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
        if self.settings.needs_gradients and not self.shape.one_hot:
            raise ReconstructionError(
                f"{self.name}: granularity={self.settings.granularity!r} acts on weights, not on inputs alone;"
                " apply LocalFisher.root to the weight matrix"
            )
        rows = a.reshape(-1, a.shape[-1])
        return self.root.apply(rows).view(a.shape)

    @property
    def step(self) -> int:
        """The coming optimizer step; negative during the warm-up."""
        return self._counters.calls - self.settings.warmup_batches

    @property
    def refreshes(self) -> int:
        """Roots computed so far."""
        return self._counters.refreshes

    @property
    def root_failures(self) -> int:
        """Refreshes that failed and kept the root before."""
        return self._counters.root_failures

    @property
    def skipped_steps(self) -> int:
        """Steps that were left out for gradients that were not finite."""
        return self._counters.skipped_steps

    @property
    def skipped_steps_in_row(self) -> int:
        """How many of them since the last good one."""
        return self._counters.skipped_steps_in_row

    @property
    def skipped_batches(self) -> int:
        """Statistics batches, at most one a step, of which something did not enter ``G``, since it was not finite."""
        return self._counters.skipped_batches

    @property
    def damping_factor(self) -> float:
        """What multiplies λ from the next refresh on."""
        return self._counters.damping_factor

    @damping_factor.setter
    def damping_factor(self, value: float) -> None:
        self._counters.damping_factor = value

    @property
    def observing(self) -> bool:
        """Whether the batch of the coming step enters ``G``."""
        return self._observing

    @torch.no_grad()
    def observe(self, seen: Seen) -> None:
        """Take what one forward pass showed into ``G``; gradients, where they are needed, when they come."""
        with self._timed("statistics"):
            inputs = seen.inputs if self.settings.sharing == "expand" else seen.inputs.reduced()
            inputs = inputs.to(self.dtype)
            if not inputs.count:
                return
            index = self._drawn(inputs.count)
            sample = inputs if index is None else inputs.take(index)
            if not self._admit(sample.is_finite(), "its input"):
                return
            if not self.settings.needs_gradients or self.shape.one_hot:
                self._passes.take(self._state(), sample, (), inputs.count)
                return
        batch = PendingBatch(sample, self.dtype, inputs.count, index, seen.arrange)
        assert seen.output is not None  # account refuses sites whose gradients cannot be seen
        if batch.watch(seen.output, self.settings.fisher == "empirical", lambda: self.collecting):
            self.pending.append(batch)

    @property
    def awaits_outputs(self) -> bool:
        """Whether batches wait for `observe_outputs`."""
        return bool(self.pending) and self.settings.fisher != "empirical"

    def generator(self) -> torch.Generator:
        """For targets drawn in the coming step: it depends on the seed, the step and the draws before."""
        draws = sum(len(batch.gradients) for batch in self.pending)
        return torch.Generator().manual_seed((self._counters.seed * 1_000_003 + self._counters.calls) * 1_009 + draws)

    def _drawn(self, count: int) -> Tensor | None:
        """Numbers of the rows that enter ``G``, one from each of `positions` even strata; None for all.

        They depend on the seed and the step alone, so that a resumed run draws the same.
        """
        wanted = self.settings.positions
        if wanted is None or wanted >= count:
            return None
        generator = torch.Generator().manual_seed(self._counters.seed * 1_000_003 + self._counters.calls)
        places = torch.arange(wanted, dtype=torch.float64)
        places += torch.rand(wanted, dtype=torch.float64, generator=generator)
        return (places * (count / wanted)).long().clamp_(max=count - 1).to(self.damping.device)

    def _take_pending(self) -> None:
        """Inputs whose gradients have come enter ``G``; others (no backward pass) are dropped."""
        pending, seen = self.pending, self.outputs_seen
        self._drop_pending()
        if pending and self.settings.fisher != "empirical" and not seen:
            raise FisherError(
                f"{self.name}: fisher={self.settings.fisher!r} needs the model's outputs in steps that take statistics;"
                " call optimizer.observe_outputs(outputs, likelihood) (sngd_tune.observe_outputs for a reconstructed"
                " model) in every step before loss.backward(), or set fisher='empirical'"
            )
        ready = [batch for batch in pending if batch.gradients]
        self._passes.several = self._passes.several or len(ready) > 1
        for batch in ready:
            if self._admit(all_finite(batch.gradients), "its output gradient"):
                self._passes.take(self._state(), batch.inputs, batch.gradients, batch.count)

    def _drop_pending(self) -> None:
        self.pending = []
        self.outputs_seen = False

    def _admit(self, finite: bool, what: str) -> bool:
        """Whether a pass may enter ``G``; a step with one that may not is counted, and named."""
        if not finite and not self._spoiled:
            counters, self._spoiled = self._counters, True
            counters.skipped_batches += 1
            counters.skipped_batches_in_row += 1
            report(f"{self.name}: {what}", counters.skipped_batches_in_row, counters.skipped_batches, self.max_skipped)
        return finite

    @property
    def awaits_training_gradients(self) -> bool:
        """Whether ``G`` takes the gradients of the training step's own backward pass."""
        return self.settings.needs_gradients and self.settings.fisher == "empirical" and not self.shape.one_hot

    def scale_pending(self, factor: float) -> None:
        """Multiply the gradients of the training step that wait: the loss that they come from was scaled."""
        if self.awaits_training_gradients:
            for batch in self.pending:
                batch.gradients = [gradient * factor for gradient in batch.gradients]

    def forget(self) -> None:
        """Drop what waits for its gradients, and begin the step anew."""
        self._drop_pending()
        self._passes.close()
        self._spoiled = False

    def follow(self, weight: Tensor) -> None:
        """Go along with the precision and the device of the layer's weight."""
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        if dtype != self.dtype or weight.device != self.damping.device:
            self.to(device=weight.device, dtype=dtype)

    def skip(self) -> None:
        """Leave the coming step out: what waits for its gradients is dropped, and the schedule stays where it is.

        Inputs that were finite have entered ``G`` in the forward pass and stay there, as those of a step of their own.
        """
        self.forget()
        self._counters.skipped_steps += 1
        self._counters.skipped_steps_in_row += 1

    def advance(self) -> Advance:
        """`close`, and the refresh where it is due.

        Raises:
            NonFiniteError: ``G`` has overflowed, or too many batches in a row were not finite.
            RootError: the first root fails; later failures warn and keep the last good one.
        """
        stage = self.close()
        if stage is not Stage.DUE:
            return _WARMING if stage is Stage.WARMING else _HELD
        before, damping = self.root, self.plan()
        if damping is None:
            return _HELD
        try:
            tensors = self.compute(damping)
        except RootError as error:
            self.keep_last_root(error)
            return _HELD
        self.install(tensors, damping)
        return Advance(warming=False, replaced=before)

    @torch.no_grad()
    def close(self) -> Stage:
        """Close the coming step's statistics, and tell what the step asks for.

        Raises:
            NonFiniteError: too many batches in a row were not finite.
        """
        step = self.step
        self._counters.calls += 1
        self._counters.skipped_steps_in_row = 0
        taken, self._observing = self._observing, statistics_due(step + 1, self.settings, self.offset)
        if not taken:  # a refresh is always due together with statistics
            return Stage.HELD
        with self._timed("statistics"):
            self._take_pending()
            self._passes.close()
        if not self._spoiled:
            self._counters.skipped_batches_in_row = 0
        self._spoiled = False
        if step < 0:
            return Stage.WARMING
        return Stage.DUE if refresh_due(step, self.settings, self.offset) else Stage.TAKEN

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
        if not bool(damping.isfinite().all()):
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
            tensors = self.estimate.refresh(self._state(), damping, self.root).tensors()
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
        self.damping = damping
        self.fingerprint = self.estimate.fingerprint(self._state())
        self._operator = None  # made anew from these tensors, as after a load
        self._counters.refreshes += 1

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
        self._counters.root_failures += 1
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
        return {**asdict(self._counters), **self._passes.counters()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Inverse of `get_extra_state`."""
        self._drop_pending()
        passes = self._passes.counters()
        self._passes.restore({name: state[name] for name in passes})
        self._counters = _Counters(**{name: value for name, value in state.items() if name not in passes})
        self._observing = statistics_due(self.step, self.settings, self.offset)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: pending batches belong to a graph, which neither can hold."""
        return {**self.__dict__, "pending": []}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._operator = None  # it was made of the tensors before

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LocalFisher":
        """As `nn.Module._apply`; under float16 and bfloat16 the statistics stay in float32."""

        def wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            narrow = moved.is_floating_point() and moved.dtype not in (torch.float32, torch.float64)
            return tensor.to(moved.device, torch.float32) if narrow else moved

        super()._apply(wide, recurse)
        self.dtype = self.damping.dtype
        self.forget()
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
