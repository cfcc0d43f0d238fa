"""What is told of the local Fisher layers, of either form, and what it costs."""

import dataclasses
import time

import pytest
import torch

from sngd_tune import SNGD, reconstruct
from sngd_tune.core import dense
from sngd_tune.core.diagnostics import diagnostics
from tests.core.problems import batches, network, settings, squared_error, steps


def test_each_layer_is_told_of_in_the_order_of_the_model():
    model = network()
    optimizer = SNGD(model, settings("input-eigh"), lr=1e-3, base="sgd")
    assert [layer.name for layer in optimizer.diagnostics().layers] == ["0", "2", "4"]
    for layer in optimizer.diagnostics().layers:
        assert (layer.granularity, layer.root, layer.refreshes) == ("input", "eigh", 0)
        assert layer.damping is layer.damping_share is layer.condition_number is layer.drift is None
    steps(model, optimizer, batches(12))
    found = optimizer.diagnostics()
    assert (found.skipped_steps, found.reduction) == (0, None)
    for layer in found.layers:
        assert layer.refreshes >= 4
        assert layer.refresh_seconds > 0
        assert layer.damping > 0
        assert 0 < layer.damping_share < 1
        assert layer.condition_number > 1
        assert (layer.root_failures, layer.skipped_batches) == (0, 0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            layer.damping = 1.0


def test_figures_are_those_of_the_dense_algebra():
    model, values = network(), settings("input-cholesky", warmup_batches=0, fisher_interval=100, statistics_interval=1)
    optimizer = SNGD(model, values, lr=1e-12, momentum=0.0)  # the inputs of later layers stay as they are
    data = batches(3)
    steps(model, optimizer, data[:3])
    x = [torch.cat((a, torch.ones(len(a), 1)), 1) for a, _ in data]
    decay = values.decay

    def averaged(count):
        weights = [decay ** (count - 1 - t) for t in range(count)]
        return sum(w * dense.fisher(a) for w, a in zip(weights, x, strict=False)) / sum(weights)

    first = optimizer.diagnostics().layers[0]
    G, last = averaged(3), averaged(2)  # the last refresh was at step 1
    damping = dense.damping(last, values)
    eigenvalues = torch.linalg.eigvalsh(G)
    assert first.refreshes == 2
    assert first.damping == pytest.approx(damping, rel=1e-10)
    assert first.damping_share == pytest.approx(damping / (damping + float(G.diagonal().mean())), rel=1e-10)
    assert first.condition_number == pytest.approx(
        float((eigenvalues[-1] + damping) / (eigenvalues[0] + damping)), rel=1e-8
    )
    assert first.effective_rank == pytest.approx(float(eigenvalues.sum() ** 2 / eigenvalues.square().sum()), rel=1e-8)
    assert first.drift == pytest.approx(float((G - last).norm() / last.norm()), rel=1e-8)  # eight inputs: exact


def test_a_reconstruction_tells_the_same():
    values, data = settings("input-nystrom-2"), batches(12)
    model, rebuilt = network(), reconstruct(network(), values)
    fused = SNGD(model, values, lr=1e-3, momentum=0.0)
    steps(model, fused, data)
    steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3), data)
    for left, right in zip(fused.diagnostics().layers, diagnostics(rebuilt).layers, strict=True):
        for field in dataclasses.fields(left):
            one, other = getattr(left, field.name), getattr(right, field.name)
            if field.name != "refresh_seconds":
                assert one == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other), field.name


def test_a_model_without_local_fisher_layers_has_nothing_to_tell():
    assert diagnostics(network()).layers == ()
    assert diagnostics(network()).skipped_steps == 0


def test_asking_changes_nothing():
    values, data = settings("input-nystrom-2"), batches(16)
    asked, alone = network(), network()
    for model in (asked, alone):
        optimizer = SNGD(model, values, lr=1e-3, base="sgd")
        for batch in data:
            steps(model, optimizer, [batch])
            if model is asked:
                optimizer.diagnostics()
    assert all(torch.equal(p, q) for p, q in zip(asked.parameters(), alone.parameters(), strict=True))


def test_seconds_are_those_of_the_refreshes(monkeypatch):
    model = network()
    optimizer = SNGD(model, settings("input-eigh", warmup_batches=0), lr=1e-3, base="sgd")
    fisher = optimizer.layers["0"]
    refresh = fisher.estimate.refresh

    def slow(*args):
        time.sleep(0.02)
        return refresh(*args)

    monkeypatch.setattr(fisher.estimate, "refresh", slow)
    x, y = batches(1)[0]
    squared_error(model(x), y).backward()
    optimizer.step()
    assert fisher.refresh_seconds >= 0.02
    assert optimizer.layers["2"].refresh_seconds < 0.02
