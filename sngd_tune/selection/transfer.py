"""A selection carried over to another version of its model: wider, deeper, or trained longer or on other batches.

To probe a large model takes a copy of it; to carry over what a small version got takes nothing. The rules:

- The relative damping stays: it is relative to the mean of ``diag G``, so it has no unit and does not grow with the
  width.
- Ranks and blocks keep their share of a layer's inputs: what spectra of wider layers have in common is their shape over
  the share of the directions, not their first sixteen eigenvalues. A share is rounded, and stays in [1, d − 1].
- Intervals keep their length in examples: what makes a root old is how far training has gone, and statistics are worth
  as much as the examples that are in them. At least 1 step.
- The learning rate grows with the square root of the batch size under an Adam base, whose steps have the length of the
  rate whatever the gradient's noise (Malladi et al. 2022), and with the batch size under SGD (Goyal et al. 2017). Under
  ``root_scale="unit"``, as every selection has it, the width leaves it alone.
- Weight decay keeps ``lr · weight_decay · steps``, the number of times that a training forgets its weights (Wang and
  Aitchison 2024), where both lengths are known; else it stays.
- A layer gets what the layer of its name has, if that is of the same class. A name that is new gets what the last layer
  of this class has whose name differs in numbers alone (``blocks.5.linear1`` from the last ``blocks.*.linear1``), else
  the most common settings. A layer that trained without a local Fisher layer stays without.
- What a layer cannot have becomes the nearest that it can: without kernels, blocks by channel are a diagonal and
  blocks by position all of the matrix; without output gradients, ``G`` is that of the inputs; a lookup has a diagonal.
"""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

from torch import nn

from sngd_tune.core.account import Match, matches
from sngd_tune.core.memory import predict
from sngd_tune.errors import ConfigurationError
from sngd_tune.records.selection import LayerChoice, SelectionRecord, StepTime
from sngd_tune.selection.select import Selection
from sngd_tune.settings import NONE, FisherSettings

__all__ = ["transfer"]


def transfer(
    source: SelectionRecord,
    model: nn.Module,
    *,
    batch_size: float,
    steps: int | None = None,
    source_steps: int | None = None,
) -> Selection:
    """Settings and optimizer arguments for a model, from those selected on another version of it.

    Nothing is measured: gains and times are NaN in the record, and the reasons name where each layer's settings come
    from.

    Args:
        source: what was selected.
        model: what will be trained; may be on the meta device.
        batch_size: examples of a batch, on average, > 0.
        steps: of the training, ≥ 1; None: not known.
        source_steps: of the training that `source` is for, ≥ 1; None: those of its short trainings, where these tried
            several weight decays, else not known.

    Raises:
        ConfigurationError: a value out of range, or no layer of the model gets a local Fisher layer.
        ReconstructionError: the model has no layer that can get one.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps), ("source_steps", source_steps)):
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name}={value!r}: must be > 0" + ("" if name == "batch_size" else ", or None"))
    carrier = _Carrier(source, batch_size)
    layers = tuple(carrier.layer(match) for match in matches(model, FisherSettings()))
    if all(choice.settings is None for choice in layers):
        raise ConfigurationError(
            f"{source.subject}: carried over to {type(model).__name__}, no layer gets a local Fisher layer, as those of"
            " these names had none; probe this model instead"
        )
    return Selection(
        replace(
            source,
            batch_size=float(batch_size),
            optimizer=_optimizer(source, batch_size, steps, source_steps or _tried_over(source)),
            layers=layers,
            probes=(),
            step=StepTime(sgd=math.nan, plain=math.nan, predicted=math.nan),
            step_budget=None,
            memory_budget=None,
            gain=math.nan,
            bound=math.nan,
            rates=(),
            seconds=0.0,
            device="",
        )
    )


def _optimizer(
    source: SelectionRecord, batch_size: float, steps: int | None, source_steps: int | None
) -> dict[str, Any]:
    values = dict(source.optimizer)
    exponent = 0.5 if values.get("base", "adamw") == "adamw" else 1.0
    factor = (batch_size / source.batch_size) ** exponent
    if "lr" in values:
        values["lr"] *= factor
    if steps is not None and source_steps is not None and "weight_decay" in values:
        values["weight_decay"] *= source_steps / steps / factor
    return values


def _tried_over(source: SelectionRecord) -> int | None:
    """Steps of the short trainings that the weight decay comes from; None where it is not the best of several."""
    if len({point.weight_decay for point in source.rates}) < 2:
        return None
    decay = source.optimizer.get("weight_decay")
    return next((point.steps for point in source.rates if point.weight_decay == decay), None)


class _Carrier:
    """Finds and fits what each layer gets."""

    def __init__(self, source: SelectionRecord, batch_size: float):
        self._layers = source.layers
        self._inputs = {probe.layer: probe.inputs for probe in source.probes}
        self._modules = {probe.layer: probe.module for probe in source.probes}
        self._subject = source.subject
        self._interval = source.batch_size / batch_size
        settings = [choice.settings for choice in source.layers if choice.settings is not None]
        if not settings:
            raise ConfigurationError(f"{source.subject}: has no local Fisher layer that could be carried over")
        common = Counter(settings).most_common(1)[0][0]
        self._common = next(choice for choice in source.layers if choice.settings == common)

    def layer(self, match: Match) -> LayerChoice:
        """What a layer of the model gets."""
        found, reason = self._source(match)
        settings = found.settings
        if settings is not None:
            old = self._inputs.get(found.layer, match.site.shape.d)
            settings = self._refreshed(_fitted(settings, old, match))
        size = predict(replace(match, settings=settings), "adamw").kept if settings is not None else 0
        return LayerChoice(
            layer=match.name,
            settings=settings,
            name=_named(settings),
            gain=math.nan,
            seconds=math.nan if settings is not None else 0.0,
            bytes=size,
            reason=f"{reason} of {self._subject}: {found.name}",
        )

    def _source(self, match: Match) -> tuple[LayerChoice, str]:
        """By its name, by its name but for numbers, or the most common one; and that in words."""
        kind = type(match.module).__name__
        alike = {c.layer: c for c in self._layers if self._modules.get(c.layer, kind) == kind}
        if match.name in alike:
            return alike[match.name], f"as {match.name or 'the model'}"
        last = {_opened(name): choice for name, choice in alike.items()}.get(_opened(match.name))
        if last is not None:
            return last, f"as {last.layer}, the last of such names,"
        return self._common, "as most layers"

    def _refreshed(self, settings: FisherSettings) -> FisherSettings:
        """With intervals of as many examples."""
        return replace(
            settings,
            fisher_interval=max(1, round(settings.fisher_interval * self._interval)),
            statistics_interval=max(1, round(settings.statistics_interval * self._interval)),
        )


def _opened(name: str) -> tuple[str, ...]:
    """A name with its numbers left open."""
    return tuple("*" if part.isdecimal() else part for part in name.split("."))


def _fitted(settings: FisherSettings, old: int, match: Match) -> FisherSettings:
    """What a layer with this site can have that is nearest to what one with `old` inputs had."""
    shape = match.site.shape
    if shape.one_hot or shape.d == 1:
        return _diagonal(settings)
    if settings.needs_gradients and not match.site.gradients:
        return replace(settings, granularity="input")
    if settings.block in ("channel", "position") and not match.kind.convolves:
        return _diagonal(settings) if settings.block == "channel" else replace(settings, granularity="input")
    if settings.block is not None and settings.block.isdecimal():
        return replace(settings, granularity=f"block:{_share(int(settings.block), old, shape.d)}")
    return settings if settings.rank is None else replace(settings, rank=_share(settings.rank, old, shape.d))


def _diagonal(settings: FisherSettings) -> FisherSettings:
    return replace(settings, granularity="diagonal", root="cholesky", rank=None, retained_trace=None)


def _share(size: int, old: int, new: int) -> int:
    """As large a part of the new inputs as it was of the old ones, and not all of them."""
    return min(max(1, round(size * new / old)), new - 1)


def _named(settings: FisherSettings | None) -> str:
    """As a selection names what it weighs."""
    if settings is None:
        return NONE
    return settings.granularity if settings.rank is None else f"{settings.granularity} rank {settings.rank}"
