"""What the tests of output gradients share: settings, and dense references one example and one target at a time."""

import torch
from torch import nn

from sngd_tune import FisherSettings
from sngd_tune.core import dense

GRANULARITIES = ("unit", "kron", "layer")
TOLERANCE = 1e-10


def chosen(granularity, **changes):
    values = {"relative_damping": 0.1, "fisher_interval": 6, "statistics_interval": 2, "warmup_batches": 2}
    return FisherSettings(**{**values, "granularity": granularity, "step_bound": "none", **changes})


def dense_gradients(model, x, weigh):
    """Pre-activation gradients of each linear layer, ``[k, n, d_out]``, one example and one target at a time.

    `weigh` gives the targets' vectors for one example's outputs.
    """
    layers = [module for module in model if isinstance(module, nn.Linear)]
    rows = [[] for _ in layers]
    for example in x:
        value, pre = example[None], []
        for module in model:
            value = module(value)
            if isinstance(module, nn.Linear):
                pre.append(value)
        for row, of_targets in zip(
            rows,
            zip(*(torch.autograd.grad(value, pre, v[None], retain_graph=True) for v in weigh(value[0])), strict=True),
            strict=True,
        ):
            row.append(torch.cat(of_targets))  # [k, d_out]
    return [torch.stack(row, 1).detach() for row in rows]


def dense_inputs(model, x):
    inputs = []
    for module in model:
        if isinstance(module, nn.Linear):
            ones = torch.ones(len(x), 1, dtype=x.dtype)
            inputs.append((torch.cat((x, ones), 1) if module.bias is not None else x).detach())
        x = module(x)
    return inputs


def kept(fisher):
    """The average that a layer holds, in the form of `dense.moments`."""
    snapshot = fisher.snapshot()
    return snapshot.factors if fisher.settings.granularity == "kron" else (snapshot.value,)


def assert_statistics(optimizer, inputs, gradients, tolerance=TOLERANCE):
    for fisher, a, g in zip(optimizer.layers.values(), inputs, gradients, strict=True):
        expected = dense.moments(a, g, fisher.settings)
        for value, reference in zip(kept(fisher), expected, strict=True):
            torch.testing.assert_close(value, reference, rtol=tolerance, atol=tolerance * float(reference.abs().max()))


def square_root(likelihood):
    """Vectors ``v`` with ``Σ v vᵀ`` the Fisher matrix of the outputs, by an eigendecomposition."""

    def columns(outputs):
        values, V = torch.linalg.eigh(dense.output_fisher(outputs.detach(), likelihood))
        return list((V * values.clamp(min=0).sqrt()).T)

    return columns
