"""One rank of `test_distributed`: ``python -m tests.core.ranks RANK WORLD DIRECTORY`` writes what it came to."""

import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sngd_tune import SNGD, FisherSettings, reconstruct
from sngd_tune.core.estimates import DiagonalEstimate
from sngd_tune.errors import RootError
from tests.core.problems import batches, network, settings, squared_error

STEPS = 20
CASES = {
    "diagonal": settings("diagonal"),
    "block-cholesky": settings("block-cholesky"),
    "input-eigh": settings("input-eigh"),
    "input-nystrom-2": settings("input-nystrom-2"),
    "input-kl": settings("input-cholesky", step_bound="kl", kl_bound=1e-7),
    "drift": settings("input-eigh", refresh_schedule="drift", fisher_interval=3),
    "kron": settings("diagonal", granularity="kron", root="eigh"),
    "unit": settings("diagonal", granularity="unit", root="eigh"),
}
FORMS = ("fused", "fused-inner", "explicit")


def joint(case: str, form: str) -> nn.Module:
    """One process on the joint batches."""
    model, optimizer = _built(case, form, wrap=False)
    _train(model, optimizer, slice(None))
    return model


def _built(case, form, wrap):
    chosen = CASES[case]
    if form == "explicit":
        model = reconstruct(network(), chosen)
        model = DistributedDataParallel(model) if wrap else model
        return model, torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    model = network()
    outer = DistributedDataParallel(model) if wrap else model
    return outer, SNGD(outer if form == "fused" else model, chosen, lr=1e-2, momentum=0.9)


def _train(model, optimizer, part):
    for x, y in batches(STEPS):
        optimizer.zero_grad()
        squared_error(model(x[part]), y[part]).backward()
        optimizer.step()


def _trained(rank, world):
    results = {}
    for case in CASES:
        for form in FORMS:
            model, optimizer = _built(case, form, wrap=True)
            _train(model, optimizer, slice(rank, None, world))
            results[case, form] = [p.detach() for p in model.parameters()]
            if form == "fused":
                results[case, "state"] = [t for layer in optimizer.layers.values() for t in layer.buffers()]
    return results


def _skipped(rank):
    """A gradient that is not finite on one rank, of an optimizer whose gradients nobody averages."""
    model = network()
    optimizer = SNGD(model, CASES["input-eigh"], lr=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (x, y) in enumerate(batches(6)):
            optimizer.zero_grad()
            squared_error(model(x), y).backward()
            if i == 4 and rank == 1:
                model[2].weight.grad.fill_(float("nan"))
            optimizer.step()
    return optimizer.skipped_steps, [p.detach() for p in model.parameters()]


def _failed(rank):
    """The second root of the second layer, which rank 1 computes, fails there alone."""
    refresh, calls = DiagonalEstimate.refresh, []

    def fails(self, *arguments):
        calls.append(self)
        if rank == 1 and len(calls) == 2:
            raise RootError("on purpose")
        return refresh(self, *arguments)

    DiagonalEstimate.refresh = fails
    model = network()
    optimizer = SNGD(model, FisherSettings(granularity="diagonal", warmup_batches=0, fisher_interval=1), lr=1e-2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _train(DistributedDataParallel(model), optimizer, slice(rank, None, 2))
    DiagonalEstimate.refresh = refresh
    counts = [layer.root_failures for layer in optimizer.layers.values()]
    return counts, [str(each.message) for each in caught], [p.detach() for p in model.parameters()]


def _computed_here(world):
    """How many roots this rank has computed, of how many that it has."""
    model = network()
    optimizer = SNGD(model, CASES["input-eigh"], lr=1e-2)
    computed = []
    for name, layer in optimizer.layers.items():
        layer.compute = lambda damping, name=name, compute=layer.compute: (computed.append(name), compute(damping))[1]
    _train(DistributedDataParallel(model), optimizer, slice(None))
    return len(computed), sum(layer.refreshes for layer in optimizer.layers.values())


def _alone(rank):
    """A process that keeps to itself trains on its own data."""
    groups = [torch.distributed.new_group([each]) for each in range(2)]
    model = network()
    optimizer = SNGD(model, CASES["input-eigh"], lr=1e-2, process_group=groups[rank])
    if rank == 0:  # a collective of both ranks would wait for ever
        _train(model, optimizer, slice(None))
    return [p.detach() for p in model.parameters()]


def main(rank: int, world: int, directory: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    results = {
        "trained": _trained(rank, world),
        "skipped": _skipped(rank),
        "failed": _failed(rank),
        "computed": _computed_here(world),
        "alone": _alone(rank),
    }
    torch.save(results, directory / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
