"""What local Fisher settings cost on this device: seconds and bytes, layer by layer and for a whole step.

Nothing is counted in multiply-adds: the operations of a fused step themselves are timed, on the layer's own shapes and
on what a batch showed in it (`rig`), each in some milliseconds, and kept by device (`cache`). Operations that
would take long are told from two smaller sizes (`timing`). Bytes are predicted (`core.memory`).

A whole step is anchored: plain steps, and steps of `SNGD` under `REFERENCE`, are timed on the user's model and batches
(`step`), and a choice differs from the reference by what its layers take more or less. So what single layers by
themselves do not show (Python's part, the caches) is in the anchor. How far it is off: ``sngd-tune bench cost``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sngd_tune.core.account import Match
from sngd_tune.core.bases import make_base
from sngd_tune.core.memory import Prediction, predict
from sngd_tune.errors import ConfigurationError, ReconstructionError, SettingsError
from sngd_tune.selection.cost.cache import CostCache, environment
from sngd_tune.selection.cost.keys import OPERATIONS, key, kind
from sngd_tune.selection.cost.step import REFERENCE, LossFunction, PlainStep, StepCost, time_plain
from sngd_tune.selection.cost.timing import OtherWork, Timing, threads_set
from sngd_tune.selection.cost.trial import Trial
from sngd_tune.selection.observation import Observation
from sngd_tune.settings import FisherSettings

__all__ = ["CostModel", "LayerCost", "statistics_share"]

#: Of a backward pass, what one to the layers' outputs alone takes: the weights' gradients are the other half.
_TO_OUTPUTS = 0.5


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Of one layer under one setting, in the fused form.

    Attributes:
        update: seconds that its part of a step takes beyond that of a layer which the base trains plainly, ≥ 0.
        statistics: seconds per batch that enters ``G``.
        refresh: seconds per refresh, with what the first step on the new root takes longer.
        kind: layers of one kind run through the same code in an update.
        first: seconds that the first layer of a kind takes longer in every step.
        bytes: kept all the time.
        peak: bytes beyond these during a refresh.
        measured: whether all seconds were measured at full size; else some are extrapolated from smaller ones.
    """

    update: float
    statistics: float
    refresh: float
    kind: str
    first: float
    bytes: int
    peak: int
    measured: bool = True

    def per_step(self, settings: FisherSettings) -> float:
        """Seconds of a step, on average over the intervals of `settings` (``"drift"``: at most), without `first`."""
        refreshes = self.refresh / settings.fisher_interval
        return self.update + self.statistics * statistics_share(settings) + refreshes


def statistics_share(settings: FisherSettings) -> float:
    """Share of the steps whose batch enters ``G``, in (0, 1]: the regular ones and those with a refresh."""
    regular, refreshes = settings.statistics_interval, settings.fisher_interval
    return 1 / regular + 1 / refreshes - 1 / lcm(regular, refreshes)


class CostModel:
    """The costs on one device.

    Args:
        device: that models are on.
        threads: CPU threads of torch; None: as many as it has now.
        cache: file of earlier measurements, such as `default_cache` names; None: no file.

    Attributes:
        measurements: operations timed so far, rather than found in the cache.
    """

    def __init__(
        self, device: torch.device | str = "cpu", *, threads: int | None = None, cache: Path | None = None
    ) -> None:
        self.device = torch.device(device)
        self.threads = torch.get_num_threads() if threads is None else threads
        self.measurements = 0
        self._predictions: dict[str, Prediction] = {}
        self._cache = CostCache(cache, environment(self.device, self.threads))

    @cached_property
    def _other_work(self) -> OtherWork:
        return OtherWork()

    def layer(self, match: Match, seen: Observation, settings: FisherSettings, base: str) -> LayerCost:
        """The cost of a layer under `settings`.

        Args:
            match: the site; its own settings do not matter.
            seen: one batch in it, of training's size.
            settings: of the local Fisher layer.
            base: name of `SNGD`'s base optimizer.

        Raises:
            SettingsError: an unknown base, or ``fisher="exact"``, whose price the model's outputs decide.
            ReconstructionError: the settings need output gradients, which the layer does not show.
            ConfigurationError: the layer is on another kind of device.
            RootError, NonFiniteError: the batch gives no root.
        """
        self._check(match, seen, settings, base)
        names = {operation: key(operation, match, seen, settings, base) for operation in OPERATIONS}
        memory = self._memory(match, settings, base, names["refresh"])
        trial: list[Trial] = []

        def timing(operation: str) -> Timing:
            known = self._cache.get(names[operation])
            if known is None:
                if not trial:
                    trial.append(Trial(match, seen, settings, base, memory, self._other_work))
                known = trial[0].timed(operation)
                self.measurements += 1
                self._cache.put(names[operation], known)
            return known

        with threads_set(self.threads):
            found = {operation: timing(operation) for operation in OPERATIONS}
        self._cache.save()
        return LayerCost(
            update=max(0.0, found["update"].seconds - found["plain"].seconds),
            statistics=found["statistics"].seconds,
            refresh=found["refresh"].seconds,
            kind=kind(match, settings),
            first=found["first"].seconds,
            bytes=memory.kept,
            peak=memory.peak,
            measured=all(each.measured for each in found.values()),
        )

    def plain(self, model: nn.Module, loss: LossFunction, batches: Sequence[Any], seconds: float = 1.0) -> PlainStep:
        """`time_plain` with this model's threads."""
        with threads_set(self.threads):
            return time_plain(model, loss, batches, seconds)

    def common(self, plain: PlainStep, found: Sequence[Match], seen: Mapping[str, Observation], base: str) -> float:
        """Seconds that the fused form takes beyond the plain base optimizer's step, apart from its layers' own.

        It may be below 0: AdamW steps all layers in one call here.

        Args:
            plain: of the model.
            found: all its sites, as `matches` gives them under `REFERENCE`.
            seen: by the name of the site.
            base: as in `layer`.
        """
        layers = sum(layer.update for layer in self._references(found, seen, base))
        return plain.reference[base] - plain.steps[base] - layers

    def step(
        self,
        plain: PlainStep,
        found: Sequence[Match],
        seen: Mapping[str, Observation],
        settings: Mapping[str, FisherSettings],
        base: str,
    ) -> StepCost:
        """The whole step of a choice.

        Args:
            plain: of the model.
            found: all its sites, as `matches` gives them under `REFERENCE`.
            seen: by the name of the site; a site without an observation costs nothing.
            settings: by the name of the site; sites that are left out train plainly.
            base: as in `layer`.

        Raises:
            SngdTuneError: as `layer`.
        """
        chosen = {m.name: settings[m.name] for m in found if m.name in seen and m.name in settings}
        costs = {m.name: self.layer(m, seen[m.name], chosen[m.name], base) for m in found if m.name in chosen}
        layers = sum(cost.per_step(chosen[name]) for name, cost in costs.items())
        showing = self.showing(plain, found, seen, base)
        shown = sum(showing[name] * statistics_share(each) for name, each in chosen.items())
        drawn = plain.backward * _TO_OUTPUTS * max(map(_drawn, chosen.values()), default=0.0)
        kinds = _first(costs.values()) - _first(self._references(found, seen, base))
        return StepCost(
            seconds=plain.seconds(base) + self.common(plain, found, seen, base) + layers + shown + drawn + kinds,
            sgd=plain.seconds("sgd"),
            plain=plain.seconds(base),
            measured=all(cost.measured for cost in costs.values()),
        )

    def showing(
        self, plain: PlainStep, found: Sequence[Match], seen: Mapping[str, Observation], base: str
    ) -> dict[str, float]:
        """Seconds per statistics batch beside the layer's own, by the name of the site.

        Hooks, and bringing the module's inputs into the form in which they are taken, spread over its sites.

        Args:
            plain: of the model.
            found: all its sites, as `matches` gives them under `REFERENCE`.
            seen: by the name of the site.
            base: as in `layer`.
        """
        layers = sum(layer.statistics for layer in self._references(found, seen, base))
        rest = max(0.0, plain.observed - (layers + sum(plain.shown.values())) / max(len(plain.shown), 1))
        sites = Counter(match.path for match in found)
        return {match.name: (plain.shown[match.path] + rest) / sites[match.path] for match in found}

    def _references(self, found: Sequence[Match], seen: Mapping[str, Observation], base: str) -> list[LayerCost]:
        return [self.layer(match, seen[match.name], REFERENCE, base) for match in found if match.name in seen]

    def _memory(self, match: Match, settings: FisherSettings, base: str, name: str) -> Prediction:
        """Predicted once for each `name`: it takes a millisecond."""
        if name not in self._predictions:
            self._predictions[name] = predict(replace(match, settings=settings), base)
        return self._predictions[name]

    def _check(self, match: Match, seen: Observation, settings: FisherSettings, base: str) -> None:
        make_base(base)
        name = match.name or "the model"
        if match.parameters[0].device.type != self.device.type:
            raise ConfigurationError(
                f"{name} is on {match.parameters[0].device}, and these are the costs on {self.device}; make a CostModel"
                " of that device"
            )
        if not settings.needs_gradients or match.site.shape.one_hot:
            return
        if settings.fisher == "exact":
            raise SettingsError(
                "fisher='exact': must be 'empirical' or 'sampled' to be priced, as it takes a backward pass for each"
                " output of the model; try 'sampled'"
            )
        if any(each.gradients is None for each in seen.passes):
            raise ReconstructionError(
                f"{name}: granularity {settings.granularity!r} needs output gradients, which this layer does not show"
            )


def _first(layers: Iterable[LayerCost]) -> float:
    """What the first layers of their kinds take longer together; 0 where there are none."""
    return sum({layer.kind: layer.first for layer in layers}.values())


def _drawn(settings: FisherSettings) -> float:
    """Share of the steps with a backward pass of targets that the model draws."""
    return statistics_share(settings) if settings.needs_outputs else 0.0
