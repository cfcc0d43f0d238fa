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
    "scaled": settings("input-newton_schulz", root_scale="unit"),
    "drift": settings("input-eigh", refresh_schedule="drift", fisher_interval=3),
    "kron": settings("diagonal", granularity="kron", root="eigh"),
    "unit": settings("diagonal", granularity="unit", root="eigh"),
}
FORMS = ("fused", "fused-inner", "explicit")
#: Fused alone: what asks more of the training loop.
DAMPED = settings("input-eigh", damping_policy="levenberg_marquardt")


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


def _train(model, optimizer, part, steps=slice(None)):
    for x, y in batches(STEPS)[steps]:
        optimizer.zero_grad()
        squared_error(model(x[part]), y[part]).backward()
        optimizer.step()


def damped(wrap=lambda model: model, part=slice(None)):
    """Parameters and damping factors under Levenberg-Marquardt, which goes by the loss after a step."""
    model = network()
    outer, optimizer = wrap(model), SNGD(model, DAMPED, lr=1e-2, base="sgd")
    for x, y in batches(STEPS):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = squared_error(outer(x[part]), y[part])
            loss.backward()
            return loss

        optimizer.step(closure)
    return [p.detach() for p in model.parameters()], [layer.damping_factor for layer in optimizer.layers.values()]


def _accumulated(rank, world):
    """Two halves of each rank's part, the first of which waits with its gradients for the second."""
    results = {}
    for case in ("input-eigh", "unit"):
        model = DistributedDataParallel(network())
        optimizer = SNGD(model, CASES[case], lr=1e-2, base="sgd")
        for x, y in batches(STEPS):
            first, second = (slice(rank + i * world, None, 2 * world) for i in range(2))
            optimizer.zero_grad()
            with model.no_sync():
                (squared_error(model(x[first]), y[first]) / 2).backward()
            (squared_error(model(x[second]), y[second]) / 2).backward()
            optimizer.step()
        results[case] = [p.detach() for p in model.parameters()]
    return results


def _resumed(rank, world, directory):
    """Both ranks go on from the checkpoint of the first."""
    part, path, results = slice(rank, None, world), directory / "checkpoint.pt", {}
    for case in ("input-nystrom-2", "drift", "kron"):
        model, optimizer = _built(case, "fused", wrap=True)
        _train(model, optimizer, part, slice(9))
        if rank == 0:
            torch.save([model.state_dict(), optimizer.state_dict()], path)
        torch.distributed.barrier()
        model, optimizer = _built(case, "fused", wrap=True)
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        torch.distributed.barrier()
        _train(model, optimizer, part, slice(9, None))
        results[case] = [p.detach() for p in model.parameters()]
    return results


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
    optimizer = SNGD(model, CASES["input-eigh"], lr=1e-2, base="sgd")
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
    optimizer = SNGD(
        model, FisherSettings(granularity="diagonal", warmup_batches=0, fisher_interval=1), lr=1e-2, base="sgd"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _train(DistributedDataParallel(model), optimizer, slice(rank, None, 2))
    DiagonalEstimate.refresh = refresh
    counts = [layer.root_failures for layer in optimizer.layers.values()]
    return counts, [str(each.message) for each in caught], [p.detach() for p in model.parameters()]


def _computed_here(world):
    """How many roots this rank has computed, of how many that it has."""
    model = network()
    optimizer = SNGD(model, CASES["input-eigh"], lr=1e-2, base="sgd")
    computed = []
    for name, layer in optimizer.layers.items():
        layer.compute = lambda damping, name=name, compute=layer.compute: (computed.append(name), compute(damping))[1]
    _train(DistributedDataParallel(model), optimizer, slice(None))
    return len(computed), sum(layer.refreshes for layer in optimizer.layers.values())


def _alone(rank):
    """A process that keeps to itself trains on its own data."""
    groups = [torch.distributed.new_group([each]) for each in range(2)]
    model = network()
    optimizer = SNGD(model, CASES["input-eigh"], lr=1e-2, process_group=groups[rank], base="sgd")
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
        "damped": damped(DistributedDataParallel, slice(rank, None, world)),
        "accumulated": _accumulated(rank, world),
        "resumed": _resumed(rank, world, directory),
    }
    torch.save(results, directory / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
