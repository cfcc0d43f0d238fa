"""What is particular to recurrent layers: ragged batches, dropout between layers, cells over time, whole models."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from sngd_tune import SNGD, FisherSettings, account, reconstruct, restore
from sngd_tune.core.layers import kind_of
from sngd_tune.core.sequences import RaggedRows
from tests.core.layer_cases.base import draw
from tests.core.layer_cases.recurrent import naive_rows

LENGTHS = (2, 5, 3, 5, 1)
RAGGED = {
    "rnn": lambda: nn.RNN(3, 4, 2),
    "gru": lambda: nn.GRU(3, 4, 2, bidirectional=True),
    "lstm": lambda: nn.LSTM(3, 4, 3, bidirectional=True, batch_first=True),
    "lstm-no-bias": lambda: nn.LSTM(3, 4, 2, bias=False),
    "lstm-projected": lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
}


def settings(**changes):
    values = {"relative_damping": 0.1, "fisher_interval": 6, "statistics_interval": 2, "warmup_batches": 2}
    return FisherSettings(**{**values, **changes})


def make(kind):
    torch.manual_seed(0)
    return kind().double()


def sequences(seed=0, lengths=LENGTHS):
    return [draw(length, 3, seed=seed + i) for i, length in enumerate(lengths)]


def initial(module):
    ways, count = 2 if module.bidirectional else 1, len(LENGTHS)
    h0 = draw(module.num_layers * ways, count, module.proj_size or module.hidden_size, seed=20)
    c0 = draw(module.num_layers * ways, count, module.hidden_size, seed=21)
    return (h0, c0) if isinstance(module, nn.LSTM) else (h0,)


@torch.no_grad()
def rows_of(module, *args):
    """The rows of each site by its suffix, and the output."""
    kind = kind_of(module)
    with kind.watch(module) as record:
        output = module(*args)
    seen = kind.seen(module, args, {}, output, record)
    return {site.suffix: each.inputs for site, each in zip(kind.sites(module), seen, strict=True)}, output


@pytest.mark.parametrize("given", [False, True], ids=["zero-state", "given-state"])
@pytest.mark.parametrize("name", RAGGED)
def test_packed_sequences_count_their_own_steps_only(name, given):
    module, batch = make(RAGGED[name]), sequences()
    states = initial(module) if given else ()
    hx = states if isinstance(module, nn.LSTM) else states[0] if states else None
    packed = pack_sequence(batch, enforce_sorted=False)
    seen, output = rows_of(module, packed, *([hx] if given else []))
    with torch.no_grad():
        expected = naive_rows(module, batch, *states)
    padded, lengths = pad_packed_sequence(output[0], batch_first=True)
    own = torch.cat([states[:n] for states, n in zip(padded, lengths, strict=True)])
    torch.testing.assert_close(expected.pop("output"), own)  # the reference is right
    assert set(seen) == set(expected)
    # A packed batch comes sorted by length.
    by_length = packed.sorted_indices.tolist()
    for suffix, rows in expected.items():
        each = rows.split(LENGTHS)
        torch.testing.assert_close(seen[suffix].rows(), torch.cat([each[i] for i in by_length]))
        means = torch.stack([each[i].mean(0) for i in by_length])
        torch.testing.assert_close(seen[suffix].reduced().rows(), means)
        assert seen[suffix].to(torch.float32).reduced().rows().dtype == torch.float32


@pytest.mark.parametrize("both_ways", [False, True])
def test_packing_sequences_of_one_length_changes_nothing(both_ways):
    module = make(lambda: nn.LSTM(3, 4, 2, bidirectional=both_ways))
    batch = sequences(lengths=(4, 4, 4))
    packed, _ = rows_of(module, pack_sequence(batch))
    plain, _ = rows_of(module, torch.stack(batch, 1))
    for suffix, rows in plain.items():
        assert not isinstance(packed[suffix], RaggedRows)
        torch.testing.assert_close(packed[suffix].rows(), rows.rows())


@pytest.mark.parametrize("name", RAGGED)
def test_both_forms_agree_on_packed_sequences(name):
    """Their batches, their sizes and the reduced setting: one trajectory, and the explicit form goes back."""
    value = settings(granularity="input", root="eigh", sharing="reduce", step_bound="graft")
    plain, rebuilt = make(RAGGED[name]), reconstruct(make(RAGGED[name]), value)
    start = copy.deepcopy(plain)
    fused = SNGD(plain, value, lr=1e-2, base="sgd")
    explicit = torch.optim.SGD(rebuilt.parameters(), lr=1e-2, momentum=0.9)
    for seed in range(16):
        packed = pack_sequence(sequences(seed, LENGTHS[: 2 + seed % 4]), enforce_sorted=False)
        for model, optimizer in ((plain, fused), (rebuilt, explicit)):
            optimizer.zero_grad()
            model(packed)[0].data.sin().sum().backward()
            optimizer.step()
    restored = restore(rebuilt)
    for (name_, p), (other, q), before in zip(
        plain.named_parameters(), restored.named_parameters(), start.parameters(), strict=True
    ):
        assert name_ == other
        assert (p - q).norm() < 1e-10 * p.norm()
        assert (p - before).norm() > 1e-3 * p.norm()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_between_layers_is_seen_as_it_was(packed, batch_first):
    """The states of the lower layer with the very masks of the forward pass give the upper layer's output."""
    module = make(lambda: nn.RNN(3, 40, 3, dropout=0.5, batch_first=batch_first))
    batch = sequences(lengths=(5, 4, 2) if packed else (4, 4, 4))
    x = pack_sequence(batch) if packed else torch.stack(batch, 0 if batch_first else 1)
    torch.manual_seed(3)
    seen, output = rows_of(module, x)
    states = output[0].data if packed else output[0] if batch_first else output[0].transpose(0, 1)
    if packed:
        padded, lengths = pad_packed_sequence(output[0], batch_first=True)
        states = torch.cat([each[:n] for each, n in zip(padded, lengths, strict=True)])
    a, h = seen["ih_l2"].rows(), seen["hh_l2"].rows()
    assert 0.3 < (a == 0).double().mean() < 0.7
    upper = [
        torch.cat((getattr(module, f"weight_{part}_l2"), getattr(module, f"bias_{part}_l2")[:, None]), 1)
        for part in ("ih", "hh")
    ]
    torch.testing.assert_close((a @ upper[0].mT + h @ upper[1].mT).tanh(), states.reshape(-1, 40))


def test_statistics_draw_no_random_number():
    """Training with rare and with frequent statistics consumes the global generator alike."""
    stream = []
    for interval in (1, 50):
        model = make(lambda: nn.LSTM(3, 4, 3, dropout=0.4))
        optimizer = SNGD(
            model, settings(statistics_interval=interval, fisher_interval=50, warmup_batches=0), lr=1e-3, base="sgd"
        )
        torch.manual_seed(5)
        for seed in range(5):
            optimizer.zero_grad()
            model(torch.stack(sequences(seed, (4, 4)), 1))[0].sum().backward()
            optimizer.step()
        stream.append(torch.get_rng_state())
    assert torch.equal(*stream)


class OverTime(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state, states = None, []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            states.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(states, 1)


@pytest.mark.parametrize(
    ("cell", "whole"), [(nn.RNNCell, nn.RNN), (nn.GRUCell, nn.GRU), (nn.LSTMCell, nn.LSTM)], ids=["rnn", "gru", "lstm"]
)
@pytest.mark.parametrize("form", ["fused", "explicit"])
def test_a_cell_over_time_trains_as_the_whole_layer_does(cell, whole, form):
    """All time steps of an optimizer step are one batch of statistics."""
    one, other = make(lambda: OverTime(cell(3, 4))), make(lambda: whole(3, 4, batch_first=True))
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(getattr(one.cell, name.removesuffix("_l0")))
    value = settings(granularity="input", root="eigh", step_bound="graft", decay=0.6)
    if form == "explicit":
        one, other = reconstruct(one, value), reconstruct(other, value)
        optimizers = [torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9) for model in (one, other)]
    else:
        optimizers = [SNGD(model, value, lr=1e-2, base="sgd") for model in (one, other)]
    for seed in range(14):
        x = draw(5, 6, 3, seed=seed)
        for model, optimizer in zip((one, other), optimizers, strict=True):
            optimizer.zero_grad()
            states = model(x)
            (states[0] if isinstance(states, tuple) else states).sin().sum().backward()
            optimizer.step()
    one, other = restore(one), restore(other)
    for name, parameter in other.named_parameters():
        assert (getattr(one.cell, name.removesuffix("_l0")) - parameter).norm() < 1e-10 * parameter.norm()


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True, dropout=0.2)
        self.head = nn.Linear(10, 11)

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0])


def tokens(seed):
    return torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(seed))


def train(model, optimizer, count=12):
    for seed in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens(seed)).flatten(0, 1), tokens(seed).flatten()).backward()
        optimizer.step()


def trained():
    model = make(LanguageModel)
    rebuilt = reconstruct(model, settings(rank=3))
    train(rebuilt, torch.optim.AdamW(rebuilt.parameters(), lr=1e-2))
    return model, rebuilt


def test_a_trained_language_model_goes_back_to_plain_layers():
    model, rebuilt = trained()
    plain = restore(rebuilt)
    assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
    assert list(plain.state_dict()) == list(model.state_dict())
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in model.named_parameters()]
    torch.testing.assert_close(plain.eval()(tokens(50)), rebuilt.eval()(tokens(50)))
    assert all(a is b for a, b in zip(plain.lstm._flat_weights, plain.lstm.parameters(), strict=True))
    plain.lstm.flatten_parameters()
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model.eval()(tokens(50)), plain(tokens(50)))
    before = copy.deepcopy(plain)
    train(plain.train(), torch.optim.SGD(plain.parameters(), lr=0.1), count=2)
    assert all(not torch.equal(p, q) for p, q in zip(plain.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_reconstructed_stack_share_nothing(copied):
    _, rebuilt = trained()
    clone = copied(rebuilt)
    expected = rebuilt.eval()(tokens(50))
    torch.testing.assert_close(clone.eval()(tokens(50)), expected, rtol=0, atol=0)
    train(clone.train(), torch.optim.SGD(clone.parameters(), lr=0.1), count=3)
    torch.testing.assert_close(rebuilt(tokens(50)), expected, rtol=0, atol=0)


def test_a_restored_model_loads_where_the_package_is_not_imported(tmp_path):
    _, rebuilt = trained()
    plain = restore(rebuilt)
    x = draw(4, 7, 6, seed=9)
    torch.save(plain.lstm, tmp_path / "lstm.pt")
    torch.save([plain.lstm.state_dict(), x, plain.lstm.eval()(x)[0]], tmp_path / "state.pt")
    program = (
        "import sys, torch\n"
        "state, x, expected = torch.load('state.pt', weights_only=True)\n"
        "whole = torch.load('lstm.pt', weights_only=False).eval()\n"
        "fresh = torch.nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True, dropout=0.2).double().eval()\n"
        "fresh.load_state_dict(state)\n"
        "assert torch.equal(whole(x)[0], expected) and torch.equal(fresh(x)[0], expected)\n"
        "assert not [name for name in sys.modules if name.startswith('sngd_tune')]\n"
    )
    subprocess.run([sys.executable, "-I", "-W", "error", "-c", program], cwd=tmp_path, check=True)


def test_the_account_names_each_weight_and_what_is_left_out():
    module = nn.LSTM(3, 4, 2, bidirectional=True)
    module.weight_hh_l0.requires_grad_(False)
    entries = {entry.parameter: entry for entry in account(module, FisherSettings())}
    assert list(entries) == [name for name, _ in module.named_parameters()]
    assert {name for name, entry in entries.items() if entry.treatment == "plain"} == {"weight_hh_l0", "bias_hh_l0"}
    assert entries["weight_hh_l0"].reason == "frozen"
    assert "ih_l1_reverse" in SNGD(module, base="sgd").layers
    assert "hh_l0" not in SNGD(module, base="sgd").layers
    rebuilt = reconstruct(module)
    assert [name for name, _ in restore(rebuilt).named_parameters()] == list(entries)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(rebuilt(x)[0], module(x)[0])


def test_granularities_of_the_output_side_are_left_out_with_the_reason():
    model = nn.Sequential(nn.Linear(3, 3), nn.GRU(3, 4))
    reasons = {
        entry.parameter: entry.reason for entry in account(model, FisherSettings(granularity="kron", root="eigh"))
    }
    assert "needs output gradients" in reasons["1.weight_hh_l0"]


def test_moving_a_reconstructed_stack_to_another_precision():
    rebuilt = reconstruct(nn.LSTM(3, 4, 2)).double().eval()
    x = draw(5, 2, 3, seed=0)
    torch.testing.assert_close(restore(rebuilt)(x)[0], rebuilt(x)[0])


class Narrow(nn.Module):
    """A stack whose inputs autocast has made bfloat16."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.lstm = nn.LSTM(3, 4, 2, proj_size=2, dropout=0.1)

    def forward(self, x):
        return self.lstm(self.linear(x))[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_statistics_under_autocast_have_the_precision_of_the_weights():
    model = Narrow()
    optimizer = SNGD(model, settings(rank=2), lr=1e-2, base="sgd")
    for seed in range(6):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(draw(5, 2, 3, seed=seed).float())
        out.float().sum().backward()
        optimizer.step()
    assert all(fisher.refreshes for fisher in optimizer.layers.values())
    assert all(bool(p.isfinite().all()) for p in model.parameters())
