"""The learning rate: short trainings with the chosen settings, judged on batches that they have not seen.

With a unit root scale the best peak rate of the Adam base lies between 4e-3 and 2e-2 whatever the features, the damping
and the network (measured on an MLP, a CNN, an autoencoder and unscaled tabular data), so the search begins at 1e-2
and climbs by factors of two. Each training runs under the whole schedule, warm-up and decay, on as many steps as time
allows: a constant rate's first steps would favour rates that are too large.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sngd_tune.core.optimizer import SNGD
from sngd_tune.errors import FisherError
from sngd_tune.lr_schedule import LrSchedule
from sngd_tune.records.selection import RatePoint
from sngd_tune.selection.pricing import BASE
from sngd_tune.selection.source import Batch, Batches, LossFunction, loss_of, outputs_of
from sngd_tune.settings import FisherSettings

__all__ = ["SCHEDULE", "Race", "find_rate"]

#: Under which learning rates are compared, as `sngd_tune.lr_schedule` names it.
SCHEDULE = "warmup_cosine"

_FIRST, _FACTOR = 1e-2, 2.0
_LOWEST, _HIGHEST = 6e-4, 9e-2
_NEAR = 1.3  # times the lowest loss: beyond that a rate is too slow, or near the cliff, and no parabola describes it
#: Decays that are tried where a training is long enough to show what they are good for.
_DECAYS = (0.1, 0.3)
_DEFAULT_DECAY = 0.01


@dataclass(frozen=True)
class Race:
    """Under which trainings are compared.

    Attributes:
        model: as training begins; it stays as it is.
        settings: of the local Fisher layers, by name of the layer.
        loss_fn: of outputs and targets.
        batches: to train on.
        held_out: to judge by, at least one.
        steps: of each training, ≥ 1.
        seed: of the sketches.
    """

    model: nn.Module
    settings: Mapping[str, FisherSettings]
    loss_fn: LossFunction
    batches: Batches
    held_out: Sequence[Batch]
    steps: int
    seed: int

    def run(self, lr: float, weight_decay: float) -> RatePoint:
        """One training from the beginning; one that diverges has the loss NaN."""
        model = copy.deepcopy(self.model).train()
        optimizer = SNGD(model, dict(self.settings), base=BASE, lr=lr, weight_decay=weight_decay, seed=self.seed)
        schedule = LrSchedule(optimizer, SCHEDULE)
        began = time.perf_counter()
        try:
            for step in range(self.steps):
                schedule.at(step / self.steps)
                optimizer.zero_grad()
                loss_of(model, self.loss_fn, self.batches.take()).backward()
                optimizer.step()
            seconds = (time.perf_counter() - began) / self.steps
            loss = self._held_out_loss(model)
        except FisherError:
            seconds, loss = math.nan, math.nan
        return RatePoint(lr=lr, weight_decay=weight_decay, steps=self.steps, loss=loss, step_seconds=seconds)

    def _held_out_loss(self, model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            losses = [float(self.loss_fn(outputs_of(model, batch), batch[1])) for batch in self.held_out]
        return sum(losses) / len(losses)


def find_rate(race: Race, seconds: float, whole: bool) -> tuple[RatePoint, ...]:
    """Short trainings: the chosen one first, then the others, best first.

    Two trainings with the same settings end some per cent apart, and one with half the rate is often no further away.
    So among rates that are about as good it is not the one of the lowest loss, but the lowest point of a parabola.

    Args:
        race: what is compared.
        seconds: within which trainings have to end, as long as the ones before; there are two at the least.
        whole: whether a training here is about as long as the real one, so that it shows what weight decay is good for.
    """
    began = time.perf_counter()
    found: dict[tuple[float, float], RatePoint] = {}

    def over() -> bool:
        spent = time.perf_counter() - began
        return len(found) >= 2 and spent * (len(found) + 1) / len(found) > seconds

    def loss(lr: float, decay: float) -> float:
        """Of a training; ∞ where it diverged, or where the time is over."""
        key = lr, decay
        if key not in found:
            if over():
                return math.inf
            found[key] = race.run(lr, decay)
        return _finite(found[key])

    best = _climb(lambda lr: loss(lr, _DEFAULT_DECAY))
    ended = [point for point in found.values() if math.isfinite(point.loss)]
    lowest = min((point.loss for point in ended), default=math.inf)
    smooth = _lowest_point([point for point in ended if point.loss <= _NEAR * lowest], best)
    tried = {(smooth, decay): loss(smooth, decay) for decay in (_DEFAULT_DECAY, *(_DECAYS if whole else ()))}
    chosen = min(tried, key=lambda key: tried[key])
    if math.isinf(tried[chosen]):  # the time was over before
        chosen = min(found, key=lambda key: _finite(found[key]))
    others = sorted((point for key, point in found.items() if key != chosen), key=_finite)
    return found[chosen], *others


def _finite(point: RatePoint) -> float:
    """Its loss; ∞ where it diverged."""
    return math.inf if math.isnan(point.loss) else point.loss


def _lowest_point(points: Sequence[RatePoint], best: float) -> float:
    """Of the parabola through losses over log rates, within a factor of `best`; `best` where there is no such point."""
    if len(points) < 3:
        return best
    x = torch.tensor([math.log(point.lr / best) for point in points], dtype=torch.float64)
    y = torch.tensor([point.loss for point in points], dtype=torch.float64)
    a, b, _ = torch.linalg.lstsq(torch.stack((x.square(), x, torch.ones_like(x)), dim=1), y).solution.tolist()
    if a <= 0:
        return best
    limit = math.log(_FACTOR)
    return float(f"{best * math.exp(min(max(-b / (2 * a), -limit), limit)):.2g}")


def _climb(loss: Callable[[float], float]) -> float:
    """The best rate on the grid of factors around the first one, by going where it becomes better."""
    best = _FIRST
    if loss(_FIRST / _FACTOR) < loss(_FIRST):
        best = _FIRST / _FACTOR
    while math.isinf(loss(best)) and best / _FACTOR >= _LOWEST:  # it diverged
        best /= _FACTOR
    step = 1 / _FACTOR if best < _FIRST else _FACTOR
    while _LOWEST <= best * step <= _HIGHEST and loss(best * step) < loss(best):
        best *= step
    return best
