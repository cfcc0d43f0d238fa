"""Other people's optimizers for ``sngd-tune bench step --peers``, each as its documentation says to call it.

Nothing here is a dependency: a package is imported when its turn comes, and listed as not installed where it is
missing. Learning rates are small (the price of a step does not depend on them, and none may diverge), intervals are
each package's own defaults, with these exceptions: `asdl` renews its curvature every 10 steps, as `singd` and SOAP do,
instead of at each; what calls `torch.compile` runs uncompiled.

Three things to know when reading their rows. The Kron family and `heavyball`'s SOAP begin with an update of the
curvature at each step and thin it out over hundreds: a few blocks see their dear start. `ScalableShampoo` computes its
roots every 1,000 steps, so that its rows hold statistics and no root. `asdl`, `singd` and others know some kinds of
layers only; the rest trains with SGD and costs what SGD costs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.bench.tasks import Learner
from sngd_tune.errors import MissingDependencyError

__all__ = ["PEERS", "Peer"]

_LR = 1e-4
_INTERVAL = 10  # steps between two of the curvature's updates, where the default is each step


@dataclass(frozen=True)
class Peer:
    """An optimizer of another package.

    Attributes:
        package: its name on PyPI.
        module: its name for `import`.
        build: from the module and a model to what trains the model.
    """

    package: str
    module: str
    build: Callable[[Any, nn.Module], Learner]

    def make(self, model: nn.Module) -> Learner:
        """A learner with this optimizer. Raises MissingDependencyError; and whatever the package raises."""
        try:
            module = import_module(self.module)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != self.module.partition(".")[0]:
                raise  # installed, but one of its own dependencies is missing
            raise MissingDependencyError(f"pip install {self.package}") from error
        return self.build(module, model)


def _whole(name: str, **arguments: Any) -> Callable[[Any, nn.Module], Learner]:
    """An optimizer that takes all parameters."""
    return lambda module, model: Learner(model, [getattr(module, name)(model.parameters(), lr=_LR, **arguments)])


def _singd(structure: str) -> Callable[[Any, nn.Module], Learner]:
    """It trains the layers that it knows (Linear, Conv2d); the others get SGD."""

    def build(module: Any, model: nn.Module) -> Learner:
        structures = (structure, structure)
        optimizer = module.SINGD(model, lr=_LR, structures=structures, warn_unsupported=False)
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        others = [p for p in model.parameters() if id(p) not in known]
        rest = [torch.optim.SGD(others, lr=_LR, momentum=0.9)] if others else []
        return Learner(model, [optimizer, *rest])

    return build


def _torch_muon(module: Any, model: nn.Module) -> Learner:
    """It takes hidden matrices and nothing else; the rest gets AdamW, as its documentation says."""
    hidden, others = _hidden(model)
    muon = [module.Muon([p for p in hidden if p.ndim == 2], lr=_LR)]
    adamw = torch.optim.AdamW([*others, *(p for p in hidden if p.ndim != 2)], lr=_LR)
    return Learner(model, [*muon, adamw])


def _grouped_muon(name: str) -> Callable[[Any, nn.Module], Learner]:
    """The packages that take both kinds of parameters as groups with a flag."""

    def build(module: Any, model: nn.Module) -> Learner:
        hidden, others = _hidden(model)
        groups = [{"params": hidden, "lr": _LR, "use_muon": True}, {"params": others, "lr": _LR, "use_muon": False}]
        return Learner(model, [getattr(module, name)(groups)])

    return build


class _AsdlLearner(Learner):
    """`asdl` makes the preconditioned gradient in its own forward and backward pass; any optimizer steps with it."""

    def __init__(self, module: Any, model: nn.Module):
        super().__init__(model, [torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9)])
        if not torch.cuda.is_available():
            natural_gradient = import_module("asdl.precondition.natural_gradient")
            natural_gradient.nvtx = _NoMarkers  # type: ignore[attr-defined]  # torch without CUDA raises at its markers
        config = module.PreconditioningConfig(
            preconditioner_upd_interval=_INTERVAL, curvature_upd_interval=_INTERVAL, damping=1e-2, ema_decay=0.1
        )
        self._maker = module.KfacGradientMaker(model, config, fisher_type="fisher_emp")

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizers[0].zero_grad()
        self._maker.config.data_size = len(inputs)
        logits = self._maker.setup_model_call(self.model, inputs)
        self._maker.setup_loss_call(_flat_cross_entropy, logits, targets)
        self._maker.forward_and_backward()
        self.optimizers[0].step()

    def state_bytes(self) -> int | None:
        return None  # it hangs its matrices on the modules


class _NoMarkers:
    """Stands in for `torch.cuda.nvtx` where there is no CUDA."""

    @staticmethod
    def range(_: str) -> Any:
        from contextlib import nullcontext

        return nullcontext()


def _flat_cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction=reduction)


def _hidden(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of two dimensions and more, and the rest: embeddings, the head, biases, gains."""
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    weights = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in embedded]
    hidden = weights[:-1]
    chosen = {id(p) for p in hidden}
    return hidden, [p for p in model.parameters() if id(p) not in chosen]


def _peers(package: str, module: str, **builds: Callable[[Any, nn.Module], Learner]) -> dict[str, Peer]:
    return {f"{package} {name}": Peer(package, module, build) for name, build in builds.items()}


_POOL: Sequence[str] = ("SOAP", "Shampoo", "ScalableShampoo", "Kron")

#: By the name of their row.
PEERS: dict[str, Peer] = {
    **_peers("torch", "torch.optim", Muon=_torch_muon),
    **_peers("singd", "singd.optim.optimizer", diagonal=_singd("diagonal"), dense=_singd("dense")),
    **_peers("singd", "singd.optim.optimizer", block=_singd("block30diagonal")),
    **_peers("asdfghjkl", "asdl", KFAC=_AsdlLearner),
    **_peers("pytorch_optimizer", "pytorch_optimizer", **{name: _whole(name) for name in _POOL}),
    **_peers("pytorch_optimizer", "pytorch_optimizer", Muon=_grouped_muon("Muon")),
    **_peers("heavyball", "heavyball", **{name: _whole(name) for name in ("SOAP", "PSGDKron", "Muon")}),
    **_peers("torch_optimizer", "torch_optimizer", Shampoo=_whole("Shampoo")),
    **_peers("kron-torch", "kron_torch", Kron=_whole("Kron")),
    **_peers("muon-optimizer", "muon", Muon=_grouped_muon("SingleDeviceMuonWithAuxAdam")),
}
