"""`MuonAdamW` is torch's Muon and torch's AdamW, each on its own part of the model."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sngd_tune.methods.muon import MuonAdamW, hidden_matrices
from sngd_tune.workloads.networks import LanguageLstm, SmallTransformer, small_cnn


def names(model: nn.Module) -> set[str]:
    hidden = {id(parameter) for parameter in hidden_matrices(model)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in hidden}


def test_hidden_matrices_are_neither_embeddings_nor_head_nor_vectors() -> None:
    assert names(small_cnn((2, 3, 4))) == {"0.weight", "3.weight", "6.weight"}
    assert names(LanguageLstm(5, 4)) == {f"lstm.weight_{side}_l{i}" for side in ("ih", "hh") for i in (0, 1)}
    parts = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    assert names(SmallTransformer(5, 4, layers=1, length=3)) == {f"blocks.0.{part}" for part in parts}
    assert names(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))) == {"0.weight"}
    assert names(nn.Linear(2, 2)) == set()


def test_a_head_that_shares_the_embedding_counts_as_both() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    assert names(model) == {"1.weight"}


def gradients(model: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def matrices(model: nn.Module, hidden: set[str]) -> dict[str, nn.Parameter]:
    """The hidden weights as separate matrices, convolutions as ``[out, in · kernel]``."""
    return {name: nn.Parameter(p.detach().flatten(1).clone()) for name, p in model.named_parameters() if name in hidden}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_each_part_takes_the_steps_of_torchs_own_optimizer(weight_decay: float) -> None:
    torch.manual_seed(0)
    model = small_cnn((2, 3, 4))
    other, hidden = copy.deepcopy(model), names(model)
    found = matrices(other, hidden)
    rest = {name: p for name, p in other.named_parameters() if name not in hidden}
    optimizer = MuonAdamW(model, lr=0.02, momentum=0.9, betas=(0.8, 0.95), weight_decay=weight_decay)
    shared = {"lr": 0.02, "weight_decay": weight_decay}
    muon = torch.optim.Muon(found.values(), momentum=0.9, adjust_lr_fn="match_rms_adamw", **shared)
    adamw = torch.optim.AdamW(rest.values(), betas=(0.8, 0.95), **shared)
    for step in range(5):
        drawn = gradients(model, step)
        for name, parameter in model.named_parameters():
            parameter.grad = drawn[name]
        for name, parameter in (found | rest).items():
            parameter.grad = drawn[name].view_as(parameter)
        optimizer.step()
        muon.step()
        adamw.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, (found | rest)[name].view_as(parameter)), name


def test_what_has_no_gradient_stays_and_a_closure_gives_the_loss() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = MuonAdamW(model, lr=0.1, weight_decay=0.5)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model[2](torch.ones(1, 4)).sum()
        loss.backward()
        return loss.item()

    expected = float(model[2](torch.ones(1, 4)).sum().detach())
    assert optimizer.step(closure) == expected
    moved = [not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)]
    assert moved == [False] * 4 + [True] * 2
