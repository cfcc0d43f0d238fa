"""`observe_outputs`: output gradients for the true Fisher matrix, from targets that the model itself draws.

The backward passes go from the outputs to the pre-activations of the layers that wait for them and no further: no
parameter's ``.grad`` is touched, no weight gradient computed.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from sngd_tune.core.distributed import Ranks
from sngd_tune.core.likelihoods import Likelihood, make_likelihood
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.pending import PendingBatch
from sngd_tune.errors import FisherError, ReconstructionError, SettingsError

__all__ = ["MOST_COLUMNS", "observe", "observe_outputs"]

#: Backward passes that ``fisher="exact"`` may take on one batch.
MOST_COLUMNS = 4096


def observe_outputs(model: nn.Module, outputs: Tensor, likelihood: str | Likelihood) -> None:
    """Show the outputs of a reconstructed model to its local Fisher layers, between the forward pass and `backward`.

    Needed with ``fisher="sampled"`` and ``"exact"``; costs next to nothing in steps that take no statistics, and with
    ``"empirical"``. (The fused form has it as a method: `SNGD.observe_outputs`.)

    Args:
        model: from `reconstruct`, or a module that holds one.
        outputs: ``f: [*terms, C]`` with the graph behind them. The loss is taken to be a mean over `terms`: what
            belongs to one target goes into the last dimension.
        likelihood: ``"softmax"`` (`outputs` are logits of classes), ``"gaussian"`` (unit variance, loss
            ``½ ‖y − f‖²``), ``"bernoulli"`` (logits), or a `Likelihood`.

    ``"exact"`` takes a backward pass for each of the `C` outputs of each position of an example (``[n, T, C]``:
    ``T C``), and keeps their gradients until the step; ``"sampled"`` takes one. Examples must not act on each other:
    in training mode batch normalization makes both an approximation. A model with several outputs calls it once for
    each: independent targets add up.

    Raises:
        ReconstructionError: the model has no local Fisher layers.
        SettingsError: an unknown likelihood, or outputs without dimensions, graph or relation to the layers.
        FisherError: the graph is gone, or ``"exact"`` would take more than 4096 backward passes.
    """
    fishers = [module for module in model.modules() if isinstance(module, LocalFisher)]
    if not fishers:
        raise ReconstructionError(
            f"{type(model).__name__} has no local Fisher layers; pass what reconstruct() returned,"
            " or call optimizer.observe_outputs with SNGD"
        )
    observe(fishers, outputs, likelihood)


def observe(
    fishers: Iterable[LocalFisher], outputs: Tensor, likelihood: str | Likelihood, ranks: Ranks | None = None
) -> None:
    """`observe_outputs` for these local Fisher layers, of a model that `ranks` train together."""
    ranks = Ranks() if ranks is None else ranks
    fishers = list(fishers)
    waiting = [fisher for fisher in fishers if fisher.collector.awaits_outputs]
    if not waiting:
        return
    likelihood = make_likelihood(likelihood)
    _check(outputs)
    stopwatch = waiting[0].stopwatch
    with stopwatch("statistics") if stopwatch is not None else nullcontext(), _own_gradients_only(fishers):
        values = outputs.detach()
        values = values if values.dtype == torch.float64 else values.float()
        for kind in ("sampled", "exact"):
            some = [fisher for fisher in waiting if fisher.settings.fisher == kind]
            batches = [batch for fisher in some for batch in fisher.collector.pending]
            if batches:
                vectors = (
                    _drawn(values, likelihood, some[0], ranks) if kind == "sampled" else _columns(values, likelihood)
                )
                _collect(batches, outputs, vectors)
            for fisher in some:
                fisher.collector.outputs_seen = True


def _drawn(values: Tensor, likelihood: Likelihood, fisher: LocalFisher, ranks: Ranks) -> Iterator[Tensor]:
    """One vector, for targets that depend on seed and step alone: a resumed run draws the same.

    Ranks draw for the joint batch, of which each has a consecutive part of the size of its own: together they draw what
    one process would, and nobody draws what another does.
    """
    joint = values.repeat(ranks.size, *[1] * (values.dim() - 1))
    yield likelihood.sample(joint, fisher.generator()).chunk(ranks.size)[ranks.rank]


def _columns(values: Tensor, likelihood: Likelihood) -> Iterator[Tensor]:
    """The columns of the square root of the outputs' Fisher matrix, for one position of each example at a time."""
    flat = values.reshape(len(values), -1, values.shape[-1])
    positions = flat.shape[1]
    if positions * flat.shape[-1] > MOST_COLUMNS:
        raise FisherError(
            f"fisher='exact' on outputs of shape {tuple(values.shape)}: must take at most {MOST_COLUMNS} backward"
            f" passes, not {positions * flat.shape[-1]}; try fisher='sampled'"
        )
    for column in likelihood.columns(flat):
        for t in range(positions):
            at = torch.zeros_like(column)
            at[:, t] = column[:, t]
            yield at.view(values.shape)


def _collect(batches: Sequence[PendingBatch], outputs: Tensor, vectors: Iterator[Tensor]) -> None:
    """One backward pass for each vector; its gradients go to the batches that lie behind the outputs."""
    terms = outputs.numel() // outputs.shape[-1]
    edges = [edge for batch in batches for edge in batch.edges]
    for vector in vectors:
        try:
            gradients = torch.autograd.grad(
                outputs, edges, vector.to(outputs.dtype), retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            raise FisherError(
                f"no backward pass from the outputs ({error}); observe them before loss.backward()"
            ) from error
        if all(gradient is None for gradient in gradients):
            raise SettingsError(
                "outputs: must come from a forward pass of this step; no local Fisher layer lies behind these"
            )
        remaining = iter(gradients)
        for batch in batches:
            # The vectors are of the sum over terms, so that half precision does not underflow.
            batch.add([next(remaining) for _ in batch.edges], terms)


@contextmanager
def _own_gradients_only(fishers: Sequence[LocalFisher]) -> Iterator[None]:
    """The passes from here are no training step: layers with ``fisher="empirical"`` look away."""
    for fisher in fishers:
        fisher.collector.collecting = False
    try:
        yield
    finally:
        for fisher in fishers:
            fisher.collector.collecting = True


def _check(outputs: Tensor) -> None:
    if outputs.dim() < 2:
        raise SettingsError(f"outputs of shape {tuple(outputs.shape)}: must be [*terms, C]; try outputs.unsqueeze(-1)")
    if not outputs.requires_grad:
        raise SettingsError("outputs: must have their graph behind them; observe them where the loss is computed")
