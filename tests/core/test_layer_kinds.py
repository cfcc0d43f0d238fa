"""The conformance suite of layer kinds: what each of them must do, over the cases of `tests/core/layer_cases`."""

import copy
import importlib
import io
import pickle
import pkgutil

import pytest
import torch
from torch import Tensor

from sngd_tune import SNGD, FisherSettings, account, reconstruct, restore
from sngd_tune.core.account import matches
from sngd_tune.core.dense import damping, fisher, natural_gradient
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.operators import join
from sngd_tune.core.pending import on_gradient
from sngd_tune.errors import SettingsError
from sngd_tune.reconstruction.layers import ReconstructedLayer
from tests.core import layer_cases
from tests.core.layer_cases.base import Case

MODULES = [
    importlib.import_module(f"{layer_cases.__name__}.{m.name}") for m in pkgutil.iter_modules(layer_cases.__path__)
]
CASES = [case for module in MODULES for case in getattr(module, "CASES", [])]

pytestmark = [
    # Torch about its own layer: an even kernel under padding="same" makes a copy.
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)

STEPS = 21
TOLERANCE = 1e-10
KERNEL_BLOCKS = ("block:channel", "block:position")
#: Granularities that see inputs alone, each with a root; the low rank covers every case.
INPUT_SIDE = [
    {"granularity": "diagonal"},
    {"granularity": "block:3", "root": "eigh"},
    {"granularity": "block:channel", "root": "cholesky"},
    {"granularity": "block:position", "root": "denman_beavers"},
    {"granularity": "input", "root": "cholesky"},
    {"granularity": "input", "root": "nystrom", "rank": 64},
]
OUTPUT_SIDE = [
    {"granularity": "unit", "root": "cholesky"},
    {"granularity": "kron", "root": "eigh"},
    {"granularity": "layer", "root": "cholesky"},
]
LOW_RANK = {"granularity": "input", "root": "nystrom", "rank": 2}
BASES = {
    "sgd": ({"momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=2e-3)),
    "momentum": ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.9)),
    "adamw": ({"base": "adamw"}, lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.0)),
}


def settings(**changes: object) -> FisherSettings:
    values = {"relative_damping": 0.1, "fisher_interval": 6, "statistics_interval": 2, "warmup_batches": 2}
    return FisherSettings(**{**values, **changes})


def chosen(case: Case, kept: dict, **changes: object) -> FisherSettings:
    """These settings, or a skip where they do not apply to the case."""
    found = matches(case.make(), settings())
    value = settings(**kept, **changes)
    if value.granularity in KERNEL_BLOCKS and not all(match.kind.convolves for match in found):
        pytest.skip("no convolution")
    if value.needs_gradients and not all(match.site.gradients for match in found):
        pytest.skip("its output gradients cannot be seen")
    return value


def in_short(kept: dict) -> str:
    return "-".join(map(str, kept.values()))


def train(case: Case, model, optimizer, seeds) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        case.loss(model(*case.data(seed))).backward()
        optimizer.step()


def seen_by_site(case: Case, model, seed: int = 0) -> tuple[dict, object]:
    """What one forward pass shows of each site, and its output."""
    optimizer = SNGD(model, settings(), base="sgd")
    seen = {name: [] for name in optimizer.layers}
    for name, layer in optimizer.layers.items():
        layer.observe = seen[name].append
    return seen, model(*case.data(seed))


def difference(left: Tensor, right: Tensor) -> float:
    """Relative to the norm of `right`."""
    assert left.shape == right.shape
    return float((left - right).detach().norm() / right.detach().norm().clamp(min=1e-300))


def models_differ(left, right) -> float:
    pairs = zip(left.named_parameters(), right.named_parameters(), strict=True)
    assert [name for name, _ in left.named_parameters()] == [name for name, _ in right.named_parameters()]
    return max(difference(p.detach(), q.detach()) for (_, p), (_, q) in pairs)


def weight_matrices(model) -> dict[str, Tensor]:
    """Each site's ``W``, the bias its last column."""
    return {m.name: join(m.site.matrices(m.parameters)).detach().clone() for m in matches(model, settings())}


@each_case
def test_rows_are_the_naive_ones(case):
    model = case.make()
    seen, _ = seen_by_site(case, model)
    with torch.no_grad():
        expected = case.rows(model, case.data(0))
    assert set(seen) == set(expected)
    shapes = {match.name: match.site.shape for match in matches(model, settings())}
    for name, rows in expected.items():
        assert difference(torch.cat([each.inputs.rows() for each in seen[name]], -2), rows) < 1e-14
        assert (*shapes[name].lead, shapes[name].d) == (*rows.shape[:-2], rows.shape[-1])
        assert all(each.inputs.examples == case.examples for each in seen[name])


@each_case
def test_statistics_are_those_of_the_rows(case):
    seen, _ = seen_by_site(case, case.make())
    for inputs in (each.inputs for several in seen.values() for each in several):
        rows, n = inputs.rows(), inputs.count
        assert rows.shape[-2] == n
        assert difference(torch.cat(list(inputs.chunks()), -2), rows) == 0
        assert difference(inputs.diagonal(), rows.square().mean(-2)) < 1e-14
        assert difference(inputs.squared_norm(), rows.square().sum((-2, -1)) / n) < 1e-14
        basis = torch.randn(*rows.shape[:-2], rows.shape[-1], 3, dtype=torch.float64)
        assert difference(inputs.sketch(basis), rows.mT @ rows @ basis / n) < 1e-14
        means = rows.unflatten(-2, (inputs.examples, -1)).mean(-2)
        assert not case.even or difference(inputs.reduced().rows(), means) < 1e-14
        assert inputs.reduced().examples == inputs.reduced().count == inputs.examples
        index = torch.tensor([n - 1, 0, n // 2])
        assert difference(inputs.take(index).rows(), rows[..., index, :]) == 0
        assert inputs.is_finite()
        assert difference(inputs.to(torch.float32).rows().double(), rows) < 1e-6
        assert inputs.to(torch.float32).diagonal().dtype == torch.float32


@each_case
def test_weight_gradients_are_sums_of_outer_products(case):
    """``∇_W = Σ g aᵀ`` ties rows, gradients and the order of the weight's columns to each other."""
    model = case.make()
    seen, output = seen_by_site(case, model)
    sites = {match.name: match for match in matches(model, settings())}
    outer = {name: [] for name in seen}
    for name, several in seen.items():
        for each in several:
            if each.output is not None:
                add = outer[name].append
                on_gradient(each.output, lambda g, each=each, add=add: add(each.arrange(g).mT @ each.inputs.rows()))
    case.loss(output).backward()
    for name, products in outer.items():
        assert bool(products) == sites[name].site.gradients
        if products:
            gradients = tuple(parameter.grad for parameter in sites[name].parameters)
            assert difference(sum(products), join(sites[name].site.matrices(gradients))) < 1e-12


@each_case
@pytest.mark.parametrize("kept", INPUT_SIDE, ids=in_short)
def test_one_step_is_one_dense_natural_gradient_step(case, kept):
    value = chosen(case, kept, step_bound="none", warmup_batches=0)
    model = case.make()
    with torch.no_grad():
        rows = case.rows(model, case.data(0))
    before = weight_matrices(model)
    optimizer = SNGD(model, value, lr=0.1, momentum=0.0)
    case.loss(model(*case.data(0))).backward()
    gradients = {
        match.name: join(match.site.matrices(tuple(parameter.grad for parameter in match.parameters)))
        for match in matches(model, value)
    }
    optimizer.step()
    moved = weight_matrices(model)
    shapes = {match.name: match.site.shape for match in matches(model, value)}
    for name, W in before.items():
        d = W.shape[-1]
        every = zip(
            gradients[name].reshape(-1, *W.shape[-2:]), rows[name].reshape(-1, *rows[name].shape[-2:]), strict=True
        )
        expected = []
        for gradient, a in every:
            G = fisher(a)
            blocks = blocks_of(d, "diagonal" if shapes[name].one_hot else value.granularity, shapes[name].positions)
            expected.append(natural_gradient(gradient, G * (blocks[:, None] == blocks), damping(G, value)))
        assert difference(W - moved[name], 0.1 * torch.stack(expected).view(W.shape)) < TOLERANCE


def blocks_of(d: int, granularity: str, positions: int) -> Tensor:
    """The number of the block that each column belongs to."""
    column = torch.arange(d)
    if granularity == "diagonal":
        return column
    if granularity == "block:3":
        count = -(-d // 3)
        return column // -(-d // count)
    if granularity == "block:channel":
        return column // positions
    if granularity == "block:position" and positions > 1:
        return torch.where(column < d // positions * positions, column % positions, positions)
    return torch.zeros(d)


def explicit_is_fused(case, value, base):
    arguments, make = BASES[base]
    model, rebuilt = case.make(), reconstruct(case.make(), value)
    optimizer = SNGD(model, value, lr=2e-3, **arguments)
    train(case, model, optimizer, range(STEPS))
    train(case, rebuilt, make(rebuilt.parameters()), range(STEPS))
    assert min(layer.refreshes for layer in optimizer.layers.values()) >= 4
    assert models_differ(model, case.make()) > 1e-4
    assert models_differ(restore(rebuilt), model) < TOLERANCE


#: The quick suite takes every second one.
SAMPLED = [
    pytest.param(kept, marks=[pytest.mark.slow] if i % 2 else []) for i, kept in enumerate([*INPUT_SIDE, *OUTPUT_SIDE])
]


@each_case
@pytest.mark.parametrize("kept", SAMPLED, ids=in_short)
def test_explicit_form_is_the_fused_form(case, kept):
    explicit_is_fused(case, chosen(case, kept), "momentum")


@each_case
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.slow
def test_explicit_form_is_the_fused_form_for_every_base(case, base):
    explicit_is_fused(case, chosen(case, {"granularity": "input", "root": "eigh"}), base)


@each_case
def test_restored_models_are_the_original_ones(case):
    rebuilt, args = reconstruct(case.make(), settings(**LOW_RANK)), case.data(50)
    assert any(isinstance(module, ReconstructedLayer) for module in rebuilt.modules())
    assert difference(case.loss(rebuilt(*args)), case.loss(case.make()(*args))) < 1e-12
    assert models_differ(restore(rebuilt), case.make()) < 1e-14
    train(case, rebuilt, torch.optim.AdamW(rebuilt.parameters(), lr=1e-2), range(12))
    plain = restore(rebuilt)
    assert [type(module) for module in plain.modules()] == [type(module) for module in case.make().modules()]
    loaded = case.make()
    loaded.load_state_dict(plain.state_dict())
    assert models_differ(loaded, case.make()) > 1e-3
    assert difference(case.loss(loaded(*args)), case.loss(rebuilt(*args))) < 1e-12


@pytest.mark.slow
@each_case
@pytest.mark.parametrize(
    "changes",
    [{}, {"positions": 3}, pytest.param({"sharing": "reduce"}, marks=pytest.mark.slow)],
    ids=["all", "positions", "reduce"],
)
@pytest.mark.parametrize("form", ["fused", "explicit"])
def test_resume_is_the_uninterrupted_run_bit_for_bit(case, form, changes):
    def start():
        model = case.make()
        if form == "fused":
            return model, SNGD(model, settings(**LOW_RANK, **changes), lr=1e-2, seed=3)
        rebuilt = reconstruct(model, settings(**LOW_RANK, **changes), seed=3)
        return rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-2, momentum=0.9)

    model, optimizer = start()
    train(case, model, optimizer, range(7))
    buffer = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], buffer)
    train(case, model, optimizer, range(7, 16))
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed, other = start()
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    train(case, resumed, other, range(7, 16))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), resumed.parameters(), strict=True))


@each_case
def test_account_lists_each_parameter_once(case):
    model = case.make()
    entries = account(model, settings())
    assert [entry.parameter for entry in entries] == [name for name, _ in model.named_parameters()]
    assert {entry.treatment for entry in entries} == {"local Fisher"}
    names = [parameter for match in matches(model, settings()) for parameter in match.parameters]
    assert len(set(map(id, names))) == len(names) == len(entries)


@each_case
def test_evaluation_leaves_the_statistics_alone(case):
    model = case.make()
    optimizer, rebuilt = SNGD(model, settings(), base="sgd"), reconstruct(case.make(), settings())
    fishers = [*optimizer.layers.values(), *(m for m in rebuilt.modules() if isinstance(m, LocalFisher))]
    for each in (model, rebuilt):
        with torch.no_grad():
            each(*case.data(0))
        each.eval()(*case.data(0))
        each.train()
    assert all(fisher.snapshot() is None for fisher in fishers)
    for each in (model, rebuilt):
        each(*case.data(0))
    assert all(fisher.snapshot() is not None for fisher in fishers)


@pytest.mark.slow
@each_case
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_train_like_the_original(case, copied):
    rebuilt = reconstruct(case.make(), settings(**LOW_RANK))
    train(case, rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3), range(3))
    clone = copied(rebuilt)
    for model in (rebuilt, clone):
        train(case, model, torch.optim.SGD(model.parameters(), lr=1e-3), range(3, 10))
    assert models_differ(clone, rebuilt) == 0


@each_case
def test_reduce_takes_the_mean_input_of_each_example(case):
    if not case.even:
        pytest.skip("its examples have different numbers of inputs")
    seen, _ = seen_by_site(case, case.make())
    shapes = {match.name: match.site.shape for match in matches(case.make(), settings())}
    for name, several in seen.items():
        value = settings(granularity="diagonal", sharing="reduce", decay=0.0)
        layer = LocalFisher(shapes[name], value, dtype=torch.float64)
        layer.observe(several[0])
        means = several[0].inputs.rows().unflatten(-2, (several[0].inputs.examples, -1)).mean(-2)
        assert difference(layer.state_value, means.square().mean(-2)) < 1e-14


@each_case
def test_drawn_positions_are_unbiased(case):
    seen, _ = seen_by_site(case, case.make())
    shapes = {match.name: match.site.shape for match in matches(case.make(), settings())}
    for name, several in seen.items():
        value = settings(granularity="diagonal", positions=2)
        drawn = []
        for seed in range(80):
            layer = LocalFisher(shapes[name], value, seed=seed, dtype=torch.float64)
            layer.observe(several[0])
            drawn.append(layer.state_value / layer.state_weight)
        samples, expected = torch.stack(drawn), several[0].inputs.diagonal()
        error = samples.std(0) / len(drawn) ** 0.5
        assert bool(((samples.mean(0) - expected).abs() <= 5 * error + 1e-12).all())
        assert (several[0].inputs.count > 2) == bool((samples != samples[0]).any())


def single_precision(x):
    """Tensors in tuples of tuples."""
    if isinstance(x, tuple):
        return tuple(map(single_precision, x))
    return x.float() if torch.is_tensor(x) and x.is_floating_point() else x


@each_case
@pytest.mark.parametrize(
    "autocast", [pytest.param(False, marks=pytest.mark.slow), True], ids=["float32", "bfloat16-autocast"]
)
def test_low_precision_stays_finite(case, autocast):
    model = case.make().float()
    optimizer = SNGD(model, settings(**LOW_RANK), lr=1e-2)
    for seed in range(10):
        args = single_precision(case.data(seed))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(*args)
        case.loss(output).float().backward()
        optimizer.step()
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    for layer in optimizer.layers.values():
        assert all(
            tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in layer.root.tensors().values()
        )


@pytest.mark.parametrize("granularity", KERNEL_BLOCKS)
def test_kernel_blocks_are_refused_without_a_kernel(granularity):
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2), torch.nn.Flatten(), torch.nn.Linear(9, 2))
    for build in (SNGD, reconstruct):
        with pytest.raises(SettingsError, match=f"'{granularity}': is for convolutions, and 2 is Linear; .*{{'2': "):
            build(model, FisherSettings(granularity=granularity))
    chosen = {"2": FisherSettings(), "*": FisherSettings(granularity=granularity)}
    assert SNGD(model, chosen, base="sgd").layers["0"].settings.granularity == granularity
