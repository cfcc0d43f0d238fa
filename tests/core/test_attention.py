"""`nn.MultiheadAttention` beyond the conformance suite: its configurations, torch's own layers, small transformers."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from sngd_tune import SNGD, FisherSettings, account, reconstruct, restore
from sngd_tune.core.layers.attention import _Recorder
from tests.core.layer_cases.base import draw

WIDTH, HEADS = 6, 2

CONFIGURATIONS = {
    "plain": {},
    "no-bias": {"bias": False},
    "batch-first": {"batch_first": True},
    "bias-kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True},
    "separate": {"kdim": WIDTH, "vdim": 4},
    "dropout": {"dropout": 0.3},
    "all": {"bias": False, "add_bias_kv": True, "add_zero_attn": True, "kdim": 5, "vdim": 4, "dropout": 0.1},
}


def settings(**changes):
    values = {"relative_damping": 0.1, "fisher_interval": 4, "statistics_interval": 2, "warmup_batches": 1}
    return FisherSettings(**{**values, **changes})


def attention(**arguments):
    torch.manual_seed(0)
    return nn.MultiheadAttention(WIDTH, HEADS, **arguments).double()


def call(module, seed=0, **arguments):
    widths = (WIDTH, module.kdim, module.vdim)
    inputs = [draw(3, 3, width, seed=10 * seed + i) for i, width in enumerate(widths)]
    return module(*inputs, **arguments)


def seen_of(module, run):
    """What a forward pass shows of each site, and its output."""
    optimizer = SNGD(module, settings(), base="sgd")
    seen = {}
    for name, layer in optimizer.layers.items():
        layer.observe = lambda each, name=name: seen.update({name: each})
    return seen, run()


def masked(kind):
    future = torch.ones(3, 3, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False, False, True], [False, False, False], [False, True, True]])
    return {
        "none": {},
        "causal": {"attn_mask": future, "is_causal": True},
        "float": {"attn_mask": torch.zeros(3, 3, dtype=torch.float64).masked_fill(future, -1e9)},
        "padding": {"key_padding_mask": padding},
    }[kind]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", ["none", "causal", "float", "padding"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_watching_changes_nothing_and_sees_the_projection_out(name, mask, need_weights):
    module = attention(**CONFIGURATIONS[name])
    arguments = {**masked(mask), "need_weights": need_weights}
    torch.manual_seed(1)  # for the dropout
    expected = call(module, **arguments)
    torch.manual_seed(1)
    seen, output = seen_of(module, lambda: call(module, **arguments))
    assert torch.equal(output[0], expected[0])
    assert output[1] is None if not need_weights else torch.equal(output[1], expected[1])
    rows = seen["out_proj"].inputs.rows()[:, :WIDTH]
    projected = functional.linear(rows, module.out_proj.weight, module.out_proj.bias).view(3, 3, WIDTH)
    direct = output[0] if module.batch_first else output[0].transpose(0, 1)
    torch.testing.assert_close(projected, direct, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_account_tells_every_parameter(name):
    module = attention(**CONFIGURATIONS[name])
    entries = {entry.parameter: entry for entry in account(module, settings())}
    assert list(entries) == [parameter for parameter, _ in module.named_parameters()]
    reasons = {
        "bias_k": "a learned key, not a weight",
        "bias_v": "a learned value, not a weight",
        **({} if module._qkv_same_embed_dim else {"in_proj_bias": "one bias for three separate weights"}),
    }
    for parameter, entry in entries.items():
        if parameter in reasons:
            assert (entry.treatment, entry.reason) == ("plain", reasons[parameter])
        else:
            assert entry.treatment == "local Fisher"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_trains_alike_in_both_forms(name):
    fused, rebuilt = attention(**CONFIGURATIONS[name]), reconstruct(attention(**CONFIGURATIONS[name]), settings())
    optimizers = (
        SNGD(fused, settings(), lr=1e-2, base="sgd"),
        torch.optim.SGD(rebuilt.parameters(), lr=1e-2, momentum=0.9),
    )
    for module, optimizer in zip((fused, rebuilt), optimizers, strict=True):
        torch.manual_seed(2)
        for seed in range(12):
            optimizer.zero_grad()
            inner = module if module is fused else module.module
            widths = (WIDTH, inner.kdim, inner.vdim)
            output = module(*(draw(3, 3, width, seed=10 * seed + i) for i, width in enumerate(widths)))[0]
            (output - 1).square().mean().backward()
            optimizer.step()
    plain = restore(rebuilt)
    for (key, p), q in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12, msg=key)


def test_self_attention_holds_its_rows_once():
    module, x = attention(), draw(3, 4, WIDTH, seed=0)
    seen, _ = seen_of(module, lambda: module(x, x, x))
    inputs = seen["in_proj"].inputs
    assert inputs.rows().shape == (3, 12, WIDTH + 1)
    assert inputs.rows().stride(0) == inputs.diagonal().stride(0) == 0


@pytest.mark.parametrize("batch_first", [True, False])
def test_shorter_sequences_count_by_their_own_rows(batch_first):
    """Statistics of packed projections are those of three linear layers, whatever the lengths."""
    module = attention(batch_first=batch_first)
    query, key = draw(4, 2, WIDTH, seed=1), draw(4, 5, WIDTH, seed=2)
    given = (query, key) if batch_first else (query.transpose(0, 1), key.transpose(0, 1))
    seen, _ = seen_of(module, lambda: module(given[0], given[1], given[1]))
    inputs = seen["in_proj"].inputs
    ones = [torch.cat((x, torch.ones(*x.shape[:2], 1)), -1) for x in (query, key, key)]
    for i, x in enumerate(ones):
        torch.testing.assert_close(inputs.diagonal()[i], x.square().mean((0, 1)))
        torch.testing.assert_close(inputs.reduced().rows()[i], x.mean(1))
    rows = inputs.rows()
    second = [x.flatten(0, 1).mT @ x.flatten(0, 1) / x[..., 0].numel() for x in ones]
    torch.testing.assert_close(rows.mT @ rows / inputs.count, torch.stack(second))


def test_two_optimizers_see_one_module():
    module, x = attention(), draw(3, 4, WIDTH, seed=0)
    optimizers = [SNGD(module, settings(), base="sgd") for _ in range(2)]
    module(x, x, x)
    assert all(layer.snapshot() is not None for each in optimizers for layer in each.layers.values())


def test_an_error_inside_leaves_no_mode_behind():
    module, x = attention(), draw(3, 4, WIDTH, seed=0)
    optimizer = SNGD(module, settings(), base="sgd")
    with pytest.raises(AssertionError, match="embedding dimension"):
        module(x[..., :5], x, x)
    assert torch.overrides._get_current_function_mode_stack() == []
    module(x, x, x)
    assert all(layer.snapshot() is not None for layer in optimizer.layers.values())


def test_there_is_no_mode_in_steps_without_statistics(monkeypatch):
    module, x = attention(), draw(3, 4, WIDTH, seed=0)
    optimizer = SNGD(module, settings(fisher_interval=10, statistics_interval=10, refresh_schedule="fixed"), base="sgd")
    entered = []
    monkeypatch.setattr(_Recorder, "__enter__", lambda self: entered.append(self) or super(_Recorder, self).__enter__())
    for _ in range(9):
        module(x, x, x)[0].sum().backward()
        optimizer.step()
    assert 1 <= len(entered) <= 4


class Attention(nn.Module):
    """Causal attention as people write it: linear layers around `scaled_dot_product_attention`."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.inward(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.outward(y.transpose(1, 2).flatten(-2))


class LanguageModel(nn.Module):
    """Embedding, torch's encoder layer, attention by hand, and a head."""

    def __init__(self, vocabulary=11, width=8, heads=2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, heads, 12, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.attention = Attention(width, heads)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=self.head.weight.dtype)
        return self.head(self.attention(self.encoder(self.embedding(tokens), mask=mask, is_causal=True)))


def language_model():
    torch.manual_seed(0)
    return LanguageModel().double()


def text(seed, length=7):
    """Sentences that count upwards."""
    start = torch.randint(11, (5, 1), generator=torch.Generator().manual_seed(seed))
    return (start + torch.arange(length + 1)) % 11


def train(model, optimizer, steps):
    losses = []
    for seed in range(steps):
        tokens = text(seed)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_transformer_language_model_trains_in_both_forms():
    model, rebuilt = language_model(), reconstruct(language_model(), settings())
    optimizer = SNGD(model, settings(), base="adamw", lr=1e-2)
    losses = train(model, optimizer, 20)
    assert losses[-1] < 0.8 * losses[0]
    assert train(rebuilt, torch.optim.AdamW(rebuilt.parameters(), lr=1e-2, weight_decay=0.0), 20) == pytest.approx(
        losses, rel=1e-6
    )
    sites = {"self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"}
    expected = {f"encoder.layers.0.{site}" for site in sites}
    expected |= {"embedding", "attention.inward", "attention.outward", "head"}
    assert set(optimizer.layers) == expected
    assert all(layer.refreshes > 2 for layer in optimizer.layers.values())


def test_a_decoder_layer_shows_all_its_sites():
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.1).double()
    optimizer = SNGD(layer, settings(), lr=1e-2, base="sgd")
    for seed in range(6):
        layer(draw(4, 3, 8, seed=seed), draw(6, 3, 8, seed=seed)).square().mean().backward()
        optimizer.step()
    attentions = [f"{name}.{site}" for name in ("self_attn", "multihead_attn") for site in ("in_proj", "out_proj")]
    assert list(optimizer.layers) == [*attentions, "linear1", "linear2"]
    assert all(layer.refreshes for layer in optimizer.layers.values())


def test_evaluation_takes_torchs_fast_path_with_the_weights_of_this_moment():
    """`nn.TransformerEncoderLayer` reads the weights of its layers past their forward there."""
    rebuilt = reconstruct(language_model(), settings())
    train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=0.1), 10)
    x = draw(5, 7, 8, seed=0)
    with torch.no_grad():
        slow = restore(rebuilt).encoder.train()(x)
        torch.testing.assert_close(rebuilt.encoder.eval()(x), slow)


def test_restored_language_model_loads_without_sngd_tune(tmp_path):
    rebuilt = reconstruct(language_model(), settings())
    train(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=0.1, momentum=0.9), 12)
    plain, tokens = restore(rebuilt), text(40)
    assert [type(module) for module in plain.modules()] == [type(module) for module in language_model().modules()]
    torch.testing.assert_close(plain(tokens), rebuilt(tokens), rtol=1e-10, atol=1e-12)
    loaded = language_model()
    loaded.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(loaded(tokens), plain(tokens))
    torch.save(plain.encoder.state_dict(), tmp_path / "encoder.pt")
    torch.save([draw(2, 3, 8, seed=1), plain.encoder.train()(draw(2, 3, 8, seed=1)).detach()], tmp_path / "case.pt")
    script = f"""
import sys, torch
from torch import nn
layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
encoder = nn.TransformerEncoder(layer, 1).double()
encoder.load_state_dict(torch.load({str(tmp_path / "encoder.pt")!r}, weights_only=True))
x, y = torch.load({str(tmp_path / "case.pt")!r}, weights_only=True)
torch.testing.assert_close(encoder(x), y)
assert "sngd_tune" not in sys.modules
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=tmp_path)
