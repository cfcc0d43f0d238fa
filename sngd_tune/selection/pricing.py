"""What the options of a model's layers cost on its device, and what a step of it takes."""

import torch
from torch import nn

from sngd_tune.core.memory import available
from sngd_tune.records.selection import LayerChoice, StepTime
from sngd_tune.selection.choose import Budget, Price
from sngd_tune.selection.cost import CostModel, statistics_share
from sngd_tune.selection.probe import LayerEvidence, Probe
from sngd_tune.selection.source import Batches, LossFunction, loss_of
from sngd_tune.settings import FisherSettings

__all__ = ["BASE", "Pricing"]

#: The base optimizer under which everything is priced, chosen and trained.
BASE = "adamw"

_BATCHES = 4  # that plain steps are timed on


class Pricing:
    """Prices options of the layers of one probed model.

    Args:
        cost: of the device.
        probe: of the model.
        model: as training begins.
        loss_fn: of outputs and targets.
        supply: batches to time steps on.
    """

    def __init__(self, cost: CostModel, probe: Probe, model: nn.Module, loss_fn: LossFunction, supply: Batches):
        self._cost = cost
        self._found = [evidence.match for evidence in probe.layers]
        self._seen = {evidence.match.name: evidence.seen for evidence in probe.layers}
        batches = [supply.take() for _ in range(_BATCHES)]
        self._plain = cost.plain(model, lambda network, batch: loss_of(network, loss_fn, batch), batches)
        self._common = max(cost.common(self._plain, self._found, self._seen, BASE), 0.0)
        self._showing = cost.showing(self._plain, self._found, self._seen, BASE)

    def budget(self, step: float | None, memory: int | None) -> Budget:
        """What local Fisher layers may cost; arguments as in `Budget`, where no memory limit means what is free."""
        return Budget(
            plain=self._plain.seconds(BASE),
            sgd=self._plain.seconds("sgd"),
            common=self._common,
            step=step,
            memory=memory if memory is not None else available(self.device),
        )

    @property
    def device(self) -> torch.device:
        """Of the model."""
        device: torch.device = self._found[0].parameters[0].device
        return device

    def price(self, evidence: LayerEvidence) -> Price:
        """Of settings in a layer."""
        showing = self._showing[evidence.match.name]

        def found(settings: FisherSettings) -> tuple[float, int]:
            cost = self._cost.layer(evidence.match, evidence.seen, settings, BASE)
            return cost.per_step(settings) + showing * statistics_share(settings), cost.bytes

        return found

    def step(self, layers: tuple[LayerChoice, ...]) -> StepTime:
        """Of a whole step with the choice, predicted."""
        settings = {layer.layer: layer.settings for layer in layers if layer.settings is not None}
        step = self._cost.step(self._plain, self._found, self._seen, settings, BASE)
        return StepTime(sgd=step.sgd, plain=step.plain, predicted=step.seconds)

    def device_in_words(self) -> str:
        """What measured figures belong to."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        threads = torch.get_num_threads()
        return f"{self.device.type}, {threads} thread{'s' if threads > 1 else ''}"
