"""`Collector`: how what forward and backward passes show of a layer gets into its running ``G``."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sngd_tune.core.estimates import Estimate, State
from sngd_tune.core.layers.base import Seen
from sngd_tune.core.passes import Passes
from sngd_tune.core.pending import PendingBatch
from sngd_tune.core.safety import MAX_SKIPPED, all_finite, report
from sngd_tune.errors import FisherError
from sngd_tune.settings import FisherSettings

__all__ = ["Collector", "SkippedBatches"]


@dataclass
class SkippedBatches:
    """Statistics batches, at most one a step, of which something did not enter ``G``, since it was not finite."""

    total: int = 0
    in_row: int = 0


class Collector:
    """Takes the batches of one layer into the state of its estimate.

    Args:
        name: of the layer, for messages.
        settings: of the layer.
        estimate: whose state it is.
        seed: of the samples that are drawn.

    Attributes:
        waits: whether inputs have to wait for output gradients.
        pending: batches of the coming step that wait for gradients.
        outputs_seen: whether `observe_outputs` has been called for the coming step.
        collecting: whether a backward pass under way is the training step's own; `observe_outputs` makes others.
        skipped: batches that were left out.
        max_skipped: how many of them in a row are an error.
    """

    def __init__(self, name: str, settings: FisherSettings, estimate: Estimate, seed: int):
        self.name, self._settings, self._estimate, self.seed = name, settings, estimate, seed
        self.waits = settings.needs_gradients and not estimate.shape.one_hot
        self.passes = Passes(estimate, settings.decay, seed)
        self.pending: list[PendingBatch] = []
        self.outputs_seen = False
        self.collecting = True
        self.skipped = SkippedBatches()
        self.max_skipped = MAX_SKIPPED
        self._spoiled = False  # a pass of the coming step was not finite

    def take(self, state: State, seen: Seen, dtype: torch.dtype, call: int) -> None:
        """Take what one forward pass showed into `state`; where gradients are needed, when they come.

        Args:
            state: of the estimate, changed in place.
            seen: of the site.
            dtype: of the statistics.
            call: number of the step, on which alone (with the seed) a sample of positions depends.
        """
        inputs = seen.inputs if self._settings.sharing == "expand" else seen.inputs.reduced()
        inputs = inputs.to(dtype)
        if not inputs.count:
            return
        index = self._drawn(inputs.count, call, state["weight"].device)
        sample = inputs if index is None else inputs.take(index)
        if not self._admit(sample.is_finite(), "its input"):
            return
        if not self.waits:
            self.passes.take(state, sample, (), inputs.count)
            return
        batch = PendingBatch(sample, dtype, inputs.count, index, seen.arrange)
        assert seen.output is not None  # account refuses sites whose gradients cannot be seen
        if batch.watch(seen.output, self._settings.fisher == "empirical", lambda: self.collecting):
            self.pending.append(batch)

    def close(self, state: State) -> None:
        """End a step that took statistics: inputs whose gradients have come enter `state`, others are dropped.

        Raises:
            FisherError: the outputs have not been observed, and `fisher` needs them.
            NonFiniteError: too many batches in a row were not finite.
        """
        pending, seen = self.pending, self.outputs_seen
        self.drop()
        if pending and self._settings.fisher != "empirical" and not seen:
            raise FisherError(
                f"{self.name}: fisher={self._settings.fisher!r} needs the model's outputs in steps that take"
                " statistics; call optimizer.observe_outputs(outputs, likelihood) (sngd_tune.observe_outputs for a"
                " reconstructed model) in every step before loss.backward(), or set fisher='empirical'"
            )
        self._enter(state, [batch for batch in pending if batch.gradients])
        self.passes.close()
        if not self._spoiled:
            self.skipped.in_row = 0
        self._spoiled = False

    def _enter(self, state: State, ready: Sequence[PendingBatch]) -> None:
        self.passes.several = self.passes.several or len(ready) > 1
        for batch in ready:
            if self._admit(all_finite(batch.gradients), "its output gradient"):
                self.passes.take(state, batch.inputs, batch.gradients, batch.count)

    def drop(self) -> None:
        """Drop what waits for its gradients."""
        self.pending = []
        self.outputs_seen = False

    def forget(self) -> None:
        """Drop what waits for its gradients, and begin the step anew."""
        self.drop()
        self.passes.close()
        self._spoiled = False

    @property
    def awaits_outputs(self) -> bool:
        """Whether batches wait for `observe_outputs`."""
        return bool(self.pending) and self._settings.fisher != "empirical"

    @property
    def awaits_training_gradients(self) -> bool:
        """Whether ``G`` takes the gradients of the training step's own backward pass."""
        return self.waits and self._settings.fisher == "empirical"

    def scale_pending(self, factor: float) -> None:
        """Multiply the gradients of the training step that wait: the loss that they come from was scaled."""
        if self.awaits_training_gradients:
            for batch in self.pending:
                batch.gradients = [gradient * factor for gradient in batch.gradients]

    def generator(self, call: int) -> torch.Generator:
        """For targets drawn in a step: it depends on the seed, the step and the draws before."""
        draws = sum(len(batch.gradients) for batch in self.pending)
        return torch.Generator().manual_seed((self.seed * 1_000_003 + call) * 1_009 + draws)

    def _drawn(self, count: int, call: int, device: torch.device) -> Tensor | None:
        """Numbers of the rows that enter ``G``, one from each of `positions` even strata; None for all.

        They depend on the seed and the step alone, so that a resumed run draws the same.
        """
        wanted = self._settings.positions
        if wanted is None or wanted >= count:
            return None
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + call)
        places = torch.arange(wanted, dtype=torch.float64)
        places += torch.rand(wanted, dtype=torch.float64, generator=generator)
        return (places * (count / wanted)).long().clamp_(max=count - 1).to(device)

    def _admit(self, finite: bool, what: str) -> bool:
        """Whether a pass may enter ``G``; a step with one that may not is counted, and named."""
        if not finite and not self._spoiled:
            self._spoiled = True
            self.skipped.total += 1
            self.skipped.in_row += 1
            report(f"{self.name}: {what}", self.skipped.in_row, self.skipped.total, self.max_skipped)
        return finite

    def counters(self) -> dict[str, int]:
        """What a resumed run has to know."""
        skipped = {"skipped_batches": self.skipped.total, "skipped_batches_in_row": self.skipped.in_row}
        return {"seed": self.seed, **skipped, **self.passes.counters()}

    def restore(self, counters: dict[str, int]) -> None:
        """Inverse of `counters`."""
        self.drop()
        self.seed = counters["seed"]
        self.skipped = SkippedBatches(counters["skipped_batches"], counters["skipped_batches_in_row"])
        self.passes.restore(counters)

    def __getstate__(self) -> dict[str, object]:
        """For copies and pickles: pending batches belong to a graph, which neither can hold."""
        return {**self.__dict__, "pending": []}
