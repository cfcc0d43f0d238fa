"""`LocalFisher`: the running Fisher matrix and the root of one layer, behind its schedule.

The same part serves both forms of the method. As a module it *is* the local Fisher layer, ``a ↦ Rᵀ a``; the fused
optimizer keeps it beside the layer and uses its operator only. Its tensors are buffers, so that `.to()` and
`state_dict()` (tensors and numbers only) need no code.
"""

import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.core.account import Match
from sngd_tune.core.estimates import State, make_estimate
from sngd_tune.core.inputs import Inputs
from sngd_tune.core.layers.base import Seen, Shape
from sngd_tune.core.operators import RootOperator
from sngd_tune.core.schedule import refresh_due, statistics_due
from sngd_tune.core.snapshots import Snapshot
from sngd_tune.core.stopwatch import Stopwatch
from sngd_tune.errors import NonFiniteError, RootError
from sngd_tune.settings import FisherSettings

__all__ = ["Advance", "LocalFisher", "gradient_error", "make_local_fisher"]

_DIVERGED = "training has diverged, or the data does; try a smaller lr or more damping"


def gradient_error(layer: str) -> NonFiniteError:
    """The error for a gradient that holds NaN or infinity, found at a refresh."""
    return NonFiniteError(f"{layer}: its gradient holds NaN or infinity; {_DIVERGED}")


@dataclass(frozen=True)
class Advance:
    """What one optimizer step brought for a layer.

    Attributes:
        warming: True while only statistics are collected: the parameters stay as they are.
        replaced: the root before, where this step refreshed it; state in the coordinates of ``W′`` has to move along.
    """

    warming: bool
    replaced: RootOperator | None = None


@dataclass
class _Batch:
    """Inputs of one forward pass that wait for the gradients of its outputs, one entry a backward pass."""

    inputs: Inputs
    gradients: list[Tensor] = field(default_factory=list)


@dataclass
class _Counters:
    """Plain numbers of a layer, apart from the module, whose attribute assignment costs microseconds a step."""

    calls: int = 0
    refreshes: int = 0
    root_failures: int = 0


_HELD = Advance(warming=False)
_WARMING = Advance(warming=True)


class LocalFisher(nn.Module):
    """Running ``G``, root ``R`` and schedule of one layer.

    Args:
        shape: of the layer's weight matrices.
        settings: granularity, root, damping and intervals.
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
        name: str = "layer",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.settings = settings
        self.name = name
        self.shape = shape
        self.estimate = make_estimate(shape, settings)
        self.dtype = dtype if dtype == torch.float64 else torch.float32
        self._seed = seed
        self._pending: list[_Batch] = []
        #: Whether the backward pass under way brings gradients for ``G``; the optimizer sets it for drawn targets.
        self.collecting = settings.fisher == "empirical"
        self._counters = _Counters()
        self._observing = statistics_due(self.step, settings)
        self.stopwatch: Stopwatch | None = None
        dtype = self.dtype
        generator = torch.Generator().manual_seed(seed)
        self._state_names = self._register("state", self.estimate.init(dtype, device, generator))
        identity = self.estimate.identity(dtype, device)
        self._root_names = self._register("root", identity.tensors())
        self.damping: Tensor
        self.register_buffer("damping", torch.ones(shape.lead, dtype=dtype, device=device))
        self._operator: RootOperator | None = identity

    @property
    def root(self) -> RootOperator:
        """The root in force; the identity before the first refresh."""
        if self._operator is None:
            self._operator = self.estimate.operator({name: getattr(self, f"root_{name}") for name in self._root_names})
        return self._operator

    def forward(self, a: Tensor) -> Tensor:
        """The local Fisher layer: ``Rᵀ a`` for each row of ``a: [..., d]``."""
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
            if not self.settings.needs_gradients or self.shape.one_hot:
                self.estimate.update(self._state(), sample, (), self.settings.decay)
                return
        self._await_gradients(seen, inputs, _Batch(sample), index)

    def _await_gradients(self, seen: Seen, inputs: Inputs, batch: _Batch, index: Tensor | None) -> None:
        assert seen.output is not None  # account refuses sites whose gradients cannot be seen
        self._pending.append(batch)

        def collect(gradient: Tensor) -> None:
            if not self.collecting:
                return
            with self._timed("statistics"):
                g = seen.arrange(gradient.detach()).to(self.dtype)
                if g.shape[-2] != inputs.count:
                    g = g.unflatten(-2, (inputs.count, -1)).sum(-2)
                # The loss is a mean over examples: each one's own gradient is `count` times as large.
                g = g * inputs.count
                batch.gradients.append(g if index is None else g.index_select(-2, index))

        seen.output.register_hook(collect)

    def _drawn(self, count: int) -> Tensor | None:
        """Numbers of the rows that enter ``G``, one from each of `positions` even strata; None for all.

        They depend on the seed and the step alone, so that a resumed run draws the same.
        """
        wanted = self.settings.positions
        if wanted is None or wanted >= count:
            return None
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._counters.calls)
        places = torch.arange(wanted, dtype=torch.float64)
        places += torch.rand(wanted, dtype=torch.float64, generator=generator)
        return (places * (count / wanted)).long().clamp_(max=count - 1).to(self.damping.device)

    def _take_pending(self) -> None:
        """Inputs whose gradients have come enter ``G``; others (no backward pass) are dropped."""
        for batch in self._pending:
            if batch.gradients:
                self.estimate.update(self._state(), batch.inputs, batch.gradients, self.settings.decay)
        self._pending.clear()

    @torch.no_grad()
    def advance(self) -> Advance:
        """Close the coming step's statistics and refresh the root where it is due.

        Raises:
            NonFiniteError: ``G`` holds NaN or infinity.
            RootError: the first root fails; later failures warn and keep the last good one.
        """
        step = self.step
        self._counters.calls += 1
        due, self._observing = self._observing, statistics_due(step + 1, self.settings)
        if not due:  # a refresh is always due together with statistics
            return _HELD
        with self._timed("statistics"):
            self._take_pending()
        if step < 0:
            return _WARMING
        if not refresh_due(step, self.settings):
            return _HELD
        before = self.root
        with self._timed("refresh"):
            return Advance(warming=False, replaced=before if self._refresh(before) else None)

    def snapshot(self) -> Snapshot | None:
        """``G`` as it stands, for diagnosis; None before the first batch."""
        return self.estimate.snapshot(self._state()) if bool(self._state()["weight"] > 0) else None

    def _refresh(self, before: RootOperator) -> bool:
        """Compute a new root; False where the old one stays."""
        if not bool(self._state()["weight"] > 0):
            warnings.warn(
                f"{self.name}: its forward pass has not been seen, so it trains without a local Fisher layer;"
                " is it called, in training mode?",
                stacklevel=2,
            )
            return False
        mean = self.estimate.mean_diagonal(self._state())
        damping = self.settings.relative_damping * mean + self.settings.absolute_damping
        if not bool(damping.isfinite().all()):
            raise NonFiniteError(f"{self.name}: its inputs hold NaN or infinity; {_DIVERGED}")
        try:
            if not bool((damping > 0).all()):
                raise RootError(
                    f"λ={float(damping.min()):g}: all inputs are 0 and absolute_damping is 0; set absolute_damping > 0"
                )
            operator = self.estimate.refresh(self._state(), damping, before)
        except RootError as error:
            self._keep_last_root(error)
            return False
        # LAPACK's results are column-major, a loaded state is row-major: the layout must not change the rounding.
        for name, tensor in operator.tensors().items():
            setattr(self, f"root_{name}", tensor.contiguous())
        self.damping = damping
        self._operator = None  # made anew from these tensors, as after a load
        self._counters.refreshes += 1
        return True

    def _keep_last_root(self, error: RootError) -> None:
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

    def get_extra_state(self) -> dict[str, int]:
        """Counters beside the buffers: plain numbers, so that ``weights_only=True`` loads them."""
        return asdict(self._counters)

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Inverse of `get_extra_state`."""
        self._counters = _Counters(**state)
        self._observing = statistics_due(self.step, self.settings)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._operator = None  # it was made of the tensors before

    def _apply(self, *args: Any, **kwargs: Any) -> "LocalFisher":
        super()._apply(*args, **kwargs)
        self._operator = None
        return self


def make_local_fisher(match: Match, seed: int) -> LocalFisher:
    """The `LocalFisher` of a site, in the precision and on the device of its weight."""
    weight = match.parameters[0]
    return LocalFisher(
        match.site.shape,
        match.settings,
        name=match.name or "model",
        seed=seed,
        dtype=weight.dtype,
        device=weight.device,
    )
