"""`nn.Embedding`: the dense theorem on rows that come and go, padding, refusals; `Tokens` without one-hot matrices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sngd_tune import SNGD, FisherSettings, account
from sngd_tune.core.tokens import Tokens

VOCABULARY, WIDTH = 9, 4


def settings(**changes):
    values = {"relative_damping": 0.1, "fisher_interval": 3, "statistics_interval": 1, "step_bound": "none"}
    return FisherSettings(**{**values, "warmup_batches": 0, "refresh_schedule": "fixed", **changes})


def embedding(**arguments):
    torch.manual_seed(0)
    return nn.Embedding(VOCABULARY, WIDTH, **arguments).double()


def batch(seed):
    """Few numbers each, so that most rows are not touched."""
    return torch.randint(VOCABULARY - 2, (4, 2), generator=torch.Generator().manual_seed(seed))


def loss_of(module, seed):
    return (module(batch(seed)) - 1).square().sum() / 4


class Dense:
    """The method on ``W = weightᵀ``: one-hot rows written down, whole matrices, the symmetric root's coordinates."""

    def __init__(self, module, base, chosen):
        self.module, self.base, self.chosen = module, base, chosen
        self.G, self.weight, self.steps = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.float64), 0.0, 0
        self.first = self.second = torch.zeros(WIDTH, VOCABULARY, dtype=torch.float64)

    def step(self, seed, lr):
        self.module.weight.grad = None
        loss_of(self.module, seed).backward()
        a, decay = nn.functional.one_hot(batch(seed).flatten(), VOCABULARY).double(), self.chosen.decay
        self.G = decay * self.G + (1 - decay) * a.T @ a / len(a)
        self.weight = decay * self.weight + 1 - decay
        if self.steps % self.chosen.fisher_interval == 0:
            G = self.G / self.weight
            damped = G + self.chosen.relative_damping * G.diagonal().mean() * torch.eye(VOCABULARY, dtype=torch.float64)
            values, V = torch.linalg.eigh(damped)
            root = V @ torch.diag(values**-0.5) @ V.T
            if self.steps:
                self.first = self.first @ torch.linalg.inv(self.root) @ root if self.base == "adamw" else self.first
            self.root = root
        self.steps += 1
        gradient = self.module.weight.grad.T
        with torch.no_grad():
            self.module.weight -= lr * self._direction(gradient).T

    def _direction(self, gradient):
        if self.base == "sgd":
            self.first = 0.9 * self.first + gradient @ self.root @ self.root
            return self.first
        g = gradient @ self.root
        self.first = 0.9 * self.first + 0.1 * g
        self.second = 0.999 * self.second + 0.001 * g**2
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        return first / (second.sqrt() + 1e-8) @ self.root


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("granularity", ["diagonal", "input", "kron", "block:2"])
def test_training_is_the_dense_reference_whatever_the_granularity(granularity, base):
    chosen, module, expected = settings(granularity=granularity), embedding(), embedding()
    optimizer, reference = SNGD(module, chosen, base=base, lr=1e-2), Dense(expected, base, chosen)
    untouched = module.weight[-2:].detach().clone()
    for seed in range(14):
        optimizer.zero_grad()
        loss_of(module, seed).backward()
        optimizer.step()
        reference.step(seed, 1e-2)
    difference = (module.weight - expected.weight).detach().norm() / expected.weight.detach().norm()
    assert difference.item() < 1e-10
    assert torch.equal(module.weight[-2:], untouched)  # never looked up
    assert not torch.allclose(module.weight[:-2], embedding().weight[:-2], rtol=1e-3)


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_the_row_of_the_padding_stays(base):
    module = embedding(padding_idx=2)
    assert any(2 in batch(seed) for seed in range(6))
    optimizer = SNGD(module, settings(), base=base, lr=1e-2)
    for seed in range(6):
        loss_of(module, seed).backward()
        optimizer.step()
    assert torch.equal(module.weight[2], torch.zeros(WIDTH, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"max_norm": 1.0}, "max_norm: its forward pass rewrites the weight"),
        ({"sparse": True}, "sparse=True: its gradient is sparse"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq: what it returns is not the gradient of the loss"),
    ],
)
def test_what_is_not_a_product_with_the_weight_is_refused(arguments, reason):
    model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH, **arguments), nn.Linear(WIDTH, 2))
    entry = account(model, settings())[0]
    assert (entry.treatment, entry.reason) == ("plain", reason)


def test_the_account_says_why_it_is_diagonal():
    for granularity in ("input", "kron", "layer", "block:4"):
        (entry,) = account(embedding(), settings(granularity=granularity))
        assert (entry.treatment, entry.reason) == ("local Fisher", "diagonal (its inputs are one-hot), every 3")


def test_a_large_vocabulary_is_never_written_down():
    """A million words of 8192 tokens: one-hot rows would take 64 GB."""
    d = 1_000_000
    tokens = Tokens.of(torch.arange(8192).remainder(7).view(64, 128), d, torch.float64)
    drawn = tokens.take(torch.arange(0, 8192, 16))
    for each in (tokens, tokens.reduced(), drawn, tokens.to(torch.float32)):
        assert each.diagonal().shape == (d,)
        assert int(each.diagonal().count_nonzero()) <= 7
    assert tokens.sketch(torch.ones(d, 1, dtype=torch.float64)).sum().item() == pytest.approx(1)


numbers = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 6), min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(numbers)
def test_statistics_are_those_of_the_rows(drawn):
    tokens = Tokens.of(torch.tensor(drawn), 7, torch.float64)
    for each in (tokens, tokens.reduced()):
        rows = each.rows()
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows), dtype=torch.float64))
        torch.testing.assert_close(each.diagonal(), rows.square().mean(0))
        torch.testing.assert_close(each.squared_norm(), rows.square().sum() / len(rows))
        basis = torch.arange(14, dtype=torch.float64).view(7, 2).sin()
        torch.testing.assert_close(each.sketch(basis), rows.mT @ (rows @ basis) / len(rows))
    torch.testing.assert_close(tokens.reduced().rows(), tokens.rows().unflatten(0, (len(drawn), -1)).mean(1))
