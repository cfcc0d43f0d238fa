"""``sngd-tune bench step``: time of a step over a step of torch.optim.SGD, refreshes and statistics included.

Four tasks (`bench.tasks`), each on the numbers of threads asked for. Each candidate trains its own copy of the model,
in one process, by turns: a turn is a tenth of a second of SGD's steps, at most a block. A block is 50 steps, one Fisher
interval: every block of SNGD holds one refresh and three batches of statistics. The ratio is that of whole blocks,
candidate over SGD. Not counted: the warm-up, with SNGD its first interval with the dense refreshes.

The last row of each table, ``sgd, again``, is a second SGD: the further its ratio is from 1, the less the table says.
(With peers and one block on a busy machine, SGD once came out at twice its time; nothing else would have told.)

**The floor.** In multiply-adds an SNGD step adds to SGD's, per layer: ``n d_in²`` times the share of steps that collect
statistics, ``d_in³`` over the Fisher interval, and ``d_out d_in²`` for the update; at rank ``r`` ``2 n d_in (r + 8)``,
``d_in (r + 8)²`` and ``2 d_out d_in r`` (twice that under Adam, which maps there and back). The floor of a row is
``1 + extra / base``, with `base` the multiply-adds that this machine's fastest matrix product does in the time of the
measured SGD step; the distance to it is what the code can still gain. (SGD's own ``3 n Σ d_in d_out`` would be no base:
on the 784-80-80-80-10 network they take twice the time of as many in one product and more, and ``input`` would have a
floor of 3.2 above its measured 2.7.) A floor is given where all layers are Linear or convolutions. The speed is the
best of two moments, before and after; a floor above its own ratio says that the machine was busy at both.
"""

import gc
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.bench.interleave import interleave_steps, median_ratio, p95_over_median
from sngd_tune.bench.peers import PEERS
from sngd_tune.bench.tasks import BLOCK, TASKS, LayerShape, Learner, Task, extra_multiply_adds, floor, layer_shapes
from sngd_tune.core.bases import BASES
from sngd_tune.core.optimizer import SNGD
from sngd_tune.errors import ConfigurationError, MissingDependencyError, SngdTuneError
from sngd_tune.settings import FisherSettings

__all__ = ["CANDIDATES", "Candidate", "measure"]

_BASELINE = "sgd"
_CONTROL = "sgd, again"
_TURN_SECONDS = 0.1
_WARM_UP = 10  # steps of what is not SNGD
_SLOW = 5  # times SGD's time, from where a candidate is measured on its warm-up alone; but never below
_SLOW_SECONDS = 0.01
_PATIENCE = 10.0  # seconds that any warm-up may take
_LR = 1e-3  # of no effect on the price, and none may diverge


@dataclass(frozen=True)
class Candidate:
    """An optimizer to time.

    Attributes:
        make: what trains a model with it.
        settings: of SNGD, for the floor; None for others.
        base: base optimizer of SNGD.
        warm_up: steps before the measurement.
    """

    make: Callable[[nn.Module], Learner]
    settings: FisherSettings | None = None
    base: str = "sgd"
    warm_up: int = _WARM_UP


def _sngd(settings: FisherSettings | None = None, base: str | None = "sgd") -> Candidate:
    def make(model: nn.Module) -> Learner:
        return Learner(model, [SNGD(model, settings, base=base, lr=_LR)])

    return Candidate(make, settings or FisherSettings(), base or next(iter(BASES)), BLOCK)


def _plain(make: Callable[[Any], torch.optim.Optimizer]) -> Candidate:
    return Candidate(lambda model: Learner(model, [make(model.parameters())]))


#: By name. ``default`` is what `SNGD(model)` is: rank 16 on AdamW. The granularities below it are on SGD, with what
#: they leave out at its default: fisher_interval 50, statistics_interval 25, grafted, momentum 0.9.
CANDIDATES: dict[str, Candidate] = {
    _BASELINE: _plain(lambda parameters: torch.optim.SGD(parameters, lr=_LR, momentum=0.9, fused=True)),
    "adamw": _plain(lambda parameters: torch.optim.AdamW(parameters, lr=_LR, fused=True)),
    "default": _sngd(base=None),
    "rank 16": _sngd(FisherSettings(rank=16)),
    "rank 64": _sngd(FisherSettings(rank=64)),
    "diagonal": _sngd(FisherSettings(granularity="diagonal")),
    "block:64": _sngd(FisherSettings(granularity="block:64")),
    "input": _sngd(FisherSettings(granularity="input", root="cholesky")),
    "kron": _sngd(FisherSettings(granularity="kron")),
}
_MLP_ONLY = ("block:64", "rank 64")


def measure(
    rounds: int = 25,
    threads: Sequence[int] = (1, 2),
    tasks: Sequence[str] = tuple(TASKS),
    peers: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per task, number of threads and candidate.

    ``task, setting, threads, milliseconds, ratio_amortized, lower_quartile, upper_quartile, p95_over_median`` (of
    single steps), ``extra_memory_bytes`` (of the optimizer's state, beyond SGD's), for SNGD ``local_fisher`` (share of
    the parameters that have a local Fisher layer: the others cost nothing) and ``floor`` (of these layers, where it can
    be said), ``note`` (where there is one). A candidate that could not be measured has its message under ``refused``
    (by sngd_tune itself), ``failed`` or ``not_installed`` instead of figures.

    Args:
        rounds: blocks of 50 steps per candidate, ≥ 1; tasks with a slow step get a fraction of them.
        threads: numbers of CPU threads of torch, each measured by itself.
        tasks: names from `TASKS`.
        peers: whether the optimizers of `PEERS` run beside it.
        announce: is told what is measured next.

    Raises:
        ConfigurationError: an unknown task.
    """
    for name in tasks:
        if name not in TASKS:
            raise ConfigurationError(f"task {name!r}: must be one of {', '.join(TASKS)}")
    before = torch.get_num_threads()
    gc.disable()  # a collection would hit one candidate
    rows = []
    try:
        # What peers print is no data, and what they compile takes minutes.
        with warnings.catch_warnings(), redirect_stdout(sys.stderr), torch.compiler.set_stance("force_eager"):
            warnings.simplefilter("ignore")
            for name, count in product(tasks, threads):
                announce(f"{name}, threads {count}")
                torch.set_num_threads(count)
                rows += _measure_task(TASKS[name], _candidates(name, peers), rounds, count)
                gc.collect()
    finally:
        gc.enable()
        torch.set_num_threads(before)
    return rows


def _candidates(task: str, peers: bool) -> dict[str, Candidate]:
    chosen = {name: one for name, one in CANDIDATES.items() if task == "mnist_mlp" or name not in _MLP_ONLY}
    others = {name: Candidate(peer.make) for name, peer in PEERS.items()} if peers else {}
    return {**chosen, **others, _CONTROL: CANDIDATES[_BASELINE]}


class _Entrant:
    """A candidate on a task: each call is one step on the next batch; after an error the calls do nothing."""

    def __init__(self, candidate: Candidate, task: Task, batches: Sequence[tuple[Tensor, Tensor]]):
        self.candidate = candidate
        self.error: dict[str, str] = {}
        self.warm_up: list[float] = []
        self.learner: Learner
        self._batches = cycle(batches)
        torch.manual_seed(0)
        with self._guarded():
            self.learner = candidate.make(task.model())

    def __call__(self) -> None:
        if not self.error:
            with self._guarded():
                self.learner(*next(self._batches))

    def warm(self, patience: float) -> None:
        """Take the steps that do not count, as long as they do not take longer than `patience` seconds."""
        while not self.error and len(self.warm_up) < self.candidate.warm_up and sum(self.warm_up) < patience:
            start = time.perf_counter()
            self()
            self.warm_up.append(time.perf_counter() - start)

    @property
    def mean(self) -> float:
        """Seconds of a warm-up step, the first one, which also allocates, left out where there are others."""
        return statistics.fmean(self.warm_up[1:] or self.warm_up)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns errors into the row that tells of them."""
        try:
            yield
        except MissingDependencyError as error:
            self.error = {"not_installed": str(error)}
        except (SngdTuneError, NotImplementedError) as error:
            self.error = {"refused": _message(error)}
        except Exception as error:  # a peer may raise anything, and the others are still to be measured
            self.error = {"failed": _message(error)}


def _measure_task(task: Task, candidates: dict[str, Candidate], rounds: int, threads: int) -> list[dict[str, Any]]:
    batches = task.batches()
    speed = _multiply_adds_a_second()
    entrants = {name: _Entrant(candidate, task, batches) for name, candidate in candidates.items()}
    sgd = entrants[_BASELINE]
    for entrant in entrants.values():  # SGD first
        entrant.warm(sgd.mean * _SLOW * BLOCK + _PATIENCE if sgd.warm_up else math.inf)
    slow = max(_SLOW * sgd.mean, _SLOW_SECONDS)
    running = {name: entrant for name, entrant in entrants.items() if not entrant.error and entrant.mean <= slow}
    turn = min(BLOCK, math.ceil(_TURN_SECONDS / sgd.mean))
    seconds = interleave_steps(running, task.rounds(rounds), BLOCK, turn)
    base = [statistics.fmean(block) for block in seconds[_BASELINE]]
    speed = max(speed, _multiply_adds_a_second())  # a busy moment must not raise the floor
    shapes, work = layer_shapes(task.model(), batches[0][0]), statistics.median(base) * speed
    rows = []
    for name, entrant in entrants.items():
        row: dict[str, Any] = {"task": task.name, "setting": name, "threads": threads}
        if not entrant.error:
            row |= _figures(seconds[name], base) if name in seconds else _slow_figures(entrant, base)
            row |= _extra_bytes(entrant, sgd) | _coverage(entrant) | _floor(entrant, shapes, work)
        rows.append(row | entrant.error)
    return rows


def _figures(blocks: list[list[float]], base: list[float]) -> dict[str, Any]:
    means = [statistics.fmean(block) for block in blocks]
    median, lower, upper = median_ratio(means, base)
    return {
        "milliseconds": round(statistics.median(means) * 1e3, 3),
        "ratio_amortized": round(median, 3),
        "lower_quartile": round(lower, 3),
        "upper_quartile": round(upper, 3),
        "p95_over_median": round(p95_over_median([second for block in blocks for second in block]), 3),
    }


def _slow_figures(entrant: _Entrant, base: list[float]) -> dict[str, Any]:
    """From the warm-up alone: its mean, as the updates of the curvature are part of the price."""
    ratio = round(entrant.mean / statistics.median(base), 3)
    return {
        "milliseconds": round(entrant.mean * 1e3, 3),
        "ratio_amortized": ratio,
        "lower_quartile": ratio,
        "upper_quartile": ratio,
        "p95_over_median": None,
        "note": f"slow: mean of {max(len(entrant.warm_up) - 1, 1)} steps",
    }


def _extra_bytes(entrant: _Entrant, sgd: _Entrant) -> dict[str, Any]:
    kept, plain = entrant.learner.state_bytes(), sgd.learner.state_bytes()
    return {} if kept is None or plain is None else {"extra_memory_bytes": kept - plain}


def _coverage(entrant: _Entrant) -> dict[str, Any]:
    """Share of the numbers in the parameters that train with a local Fisher layer: little costs little."""
    if not entrant.candidate.settings:
        return {}
    sizes = {name: parameter.numel() for name, parameter in entrant.learner.model.named_parameters()}
    share = sum(sizes[name] for name in _with_local_fisher(entrant)) / sum(sizes.values())
    return {"local_fisher": round(share, 3)}


def _with_local_fisher(entrant: _Entrant) -> set[str]:
    entries = (entry for o in entrant.learner.optimizers if isinstance(o, SNGD) for entry in o.account)
    return {entry.parameter for entry in entries if entry.treatment == "local Fisher"}


def _floor(entrant: _Entrant, shapes: dict[str, LayerShape] | None, work: float) -> dict[str, Any]:
    candidate = entrant.candidate
    if candidate.settings is None or shapes is None:
        return {}
    treated = _with_local_fisher(entrant)
    rebuilt = [shape for name, shape in shapes.items() if f"{name}.weight" in treated]
    extra = extra_multiply_adds(rebuilt, candidate.settings, applications=2 if candidate.base == "adamw" else 1)
    return {} if extra is None else {"floor": round(floor(extra, work), 3)}


def _multiply_adds_a_second(size: int = 768, tries: int = 20) -> float:
    """Speed of the fastest of some float32 products of two matrices `size` wide, with torch's present threads."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    left @ right
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def _message(error: Exception) -> str:
    """Type and first line; the rest of a peer's message is often a stack of its own."""
    text = next(iter(str(error).strip().splitlines()), "")
    return text if isinstance(error, SngdTuneError) else f"{type(error).__name__}: {text}"
