"""`FisherSettings.root_scale`: under ``"unit"``, ``R Rᵀ = c² (G + λI)⁻¹`` with ``c² = mean(diag G) + λ``."""

from functools import lru_cache
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sngd_tune import SNGD, FisherSettings, reconstruct, restore
from sngd_tune.core import dense
from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import Shape
from sngd_tune.core.local_fisher import LocalFisher
from sngd_tune.core.roots import DENSE_ROOTS
from sngd_tune.errors import NonFiniteError, ReconstructionError
from sngd_tune.records.trial import TrialConfig
from sngd_tune.settings import DAMPING_POLICIES, ROOT_SCALES, STEP_BOUNDS
from tests.core.behaviour import TORCH_OPTIMIZERS, on_disk, same
from tests.core.output_side import dense_gradients, dense_inputs
from tests.core.problems import SETTINGS, batches, network, relative_difference, settings, squared_error, steps
from tests.core.test_theorem import BASES, explicit, fused

TOLERANCE = 1e-10
OUTPUT_SIDE = ("unit", "kron", "layer")
#: Every granularity with every root; the low rank covers all inputs.
KEPT = [
    {"granularity": "diagonal", "root": "cholesky"},
    *({"granularity": g, "root": r} for g, r in product(("block:3", "input", *OUTPUT_SIDE), DENSE_ROOTS)),
    {"granularity": "input", "root": "nystrom", "rank": 20},
]


def in_short(kept):
    return "-".join(map(str, kept.values()))


def unit(**changes: object) -> FisherSettings:
    return settings("diagonal", **{"root_scale": "unit", "step_bound": "none", **changes})


def mean_of_diagonal(M: Tensor, size: int) -> Tensor:
    """Of each diagonal block of `size`, for every entry of the diagonal."""
    return M.diagonal().view(-1, size).mean(1).repeat_interleave(size)


# --- the root


@lru_cache
def first_batch() -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and output gradients of each layer."""
    x, y = batches(1)[0]
    examples = iter(y)
    gradients = dense_gradients(network(), x, lambda f: [2 * (f - next(examples)).detach()])
    return dense_inputs(network(), x), gradients


@pytest.mark.slow
@pytest.mark.parametrize("kept", KEPT, ids=in_short)
def test_the_root_is_the_dense_one_times_the_mean_of_the_damped_diagonal(kept):
    model, (x, y) = network(), batches(1)[0]
    optimizer = SNGD(model, unit(**kept, warmup_batches=0), lr=1e-12, base="sgd")
    steps(model, optimizer, [(x, y)])
    for layer, a, g in zip(optimizer.layers.values(), *first_batch(), strict=True):
        d_out, d = layer.shape.d_out, layer.shape.d
        M = dense.damped_matrix(dense.moments(a, g, layer.settings), layer.settings, d_out)
        c = mean_of_diagonal(M, d if kept["granularity"] == "unit" else d_out * d).sqrt()
        every = torch.eye(d_out * d, dtype=torch.float64).view(-1, d_out, d)
        found = torch.stack([layer.root.precondition(each).flatten() for each in every])
        expected = c[:, None] * torch.linalg.inv(M) * c
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
        torch.testing.assert_close(layer.scale, c[::d].view(d_out)[: layer.scale.numel()].view(layer.scale.shape))


@pytest.mark.parametrize("granularity", ["diagonal", "block:2", "input", *OUTPUT_SIDE])
def test_white_inputs_and_gradients_have_the_identity_for_a_root(granularity):
    """``G = m I``, so that the learning rate of Adam means what it means without a local Fisher layer."""
    fisher = LocalFisher(Shape((), 3, 4), unit(granularity=granularity), dtype=torch.float64)
    a = 30 * torch.eye(4, dtype=torch.float64).repeat_interleave(3, 0)
    refreshed(fisher, a, 0.01 * torch.eye(3, dtype=torch.float64).repeat(4, 1))
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(fisher.root.apply(x), x)


def refreshed(fisher: LocalFisher, a: Tensor, g: Tensor) -> LocalFisher:
    """With one more batch, and the root of it."""
    fisher.estimate.update(fisher._state(), Rows(a), [g], fisher.settings.decay)
    damping = fisher.plan()
    fisher.install(fisher.compute(damping), damping)
    return fisher


@pytest.mark.parametrize("kept", KEPT[:: len(DENSE_ROOTS)] + KEPT[-1:], ids=in_short)
def test_matrices_side_by_side_have_each_their_own_scale(kept):
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64).view(3, 1, 1)
    a = size * torch.randn(3, 11, 4, generator=generator, dtype=torch.float64)
    g = torch.randn(3, 11, 5, generator=generator, dtype=torch.float64) / size**2
    x = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    together = refreshed(LocalFisher(Shape((3,), 5, 4), unit(**kept), dtype=torch.float64), a, g)
    for i in range(3):
        alone = refreshed(LocalFisher(Shape((), 5, 4), unit(**kept), dtype=torch.float64), a[i], g[i])
        torch.testing.assert_close(together.scale[i], alone.scale)
        torch.testing.assert_close(together.root.apply(x)[i], alone.root.apply(x[i]))


@pytest.mark.parametrize("name", SETTINGS)
def test_over_refreshes_it_is_a_multiple_of_the_natural_root(name):
    """Roots that start from the last one go on from the natural one: the multiple, 1e4 here, would be too far."""
    natural, scaled = (
        LocalFisher(Shape((), 3, 7), settings(name, root_scale=scale), dtype=torch.float64) for scale in ROOT_SCALES
    )
    turn, x = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q, torch.eye(7, dtype=torch.float64)
    for i, (a, _) in enumerate(batches(4)):
        for fisher in (natural, scaled):
            refreshed(fisher, 1e4 * (1 + i) * a @ turn, torch.zeros(len(a), 3, dtype=torch.float64))
        assert torch.equal(natural.scale, torch.ones_like(natural.scale))
        expected = scaled.scale * natural.root.apply(x)
        torch.testing.assert_close(scaled.root.apply(x), expected, rtol=1e-8, atol=1e-8)
    assert float(scaled.scale) > 1e4


def test_an_embedding_is_scaled_too():
    module = nn.Embedding(6, 2).double()
    optimizer = SNGD(module, unit(warmup_batches=0), base="adamw", lr=1e-3)
    module(torch.tensor([0, 0, 0, 1])).square().sum().backward()
    optimizer.step()
    frequencies = torch.tensor([0.75, 0.25, 0, 0, 0, 0], dtype=torch.float64)
    expected = (1.1 / 6 / (frequencies + 0.1 / 6)).sqrt()  # mean(diag G) = 1 / 6
    torch.testing.assert_close(optimizer.layers[""].root.tensors()["scale"], expected)


def test_a_dead_unit_steps_as_adam_would():
    """Its damping has a floor, which would make a root of it that is as far from 1 as the damping is small."""
    fisher = LocalFisher(Shape((), 3, 4), unit(granularity="unit", relative_damping=1e-4), dtype=torch.float64)
    g = torch.randn(20, 3, dtype=torch.float64)
    g[:, 1] = 0
    refreshed(fisher, torch.randn(20, 4, dtype=torch.float64), g)
    x = torch.ones(3, 4, dtype=torch.float64)
    torch.testing.assert_close(fisher.root.apply(x)[1], x[1])


# --- training


@pytest.mark.parametrize(
    ("kept", "base"),
    [(KEPT[-1], "adamw"), ({"granularity": "kron", "root": "newton_schulz"}, "adamw"), (KEPT[1], "momentum")],
    ids=str,
)
def test_explicit_form_is_the_fused_form(kept, base):
    chosen = unit(**kept)
    assert relative_difference(explicit(chosen, base), fused(chosen, base)) < TOLERANCE
    assert relative_difference(fused(chosen, base), fused(settings("diagonal", **kept), base)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["none", "graft"])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kept", [*KEPT, {"granularity": "input", "root": "nystrom", "rank": 2}], ids=in_short)
def test_explicit_form_is_the_fused_form_whatever_is_kept(kept, base, bound):
    chosen = unit(**kept, step_bound=bound)
    assert relative_difference(explicit(chosen, base), fused(chosen, base)) < TOLERANCE


def test_both_forms_rebase_where_the_scale_grows():
    """Inputs that grow with the steps: what is carried over a refresh moves from one scale to another."""
    growing, chosen = [(x * 1.2**i, y) for i, (x, y) in enumerate(batches(30))], unit(granularity="input", root="eigh")
    model, rebuilt = network(), reconstruct(network(), chosen)
    optimizer = SNGD(model, chosen, base="adamw", lr=2e-3)
    steps(model, optimizer, growing[:10])
    early = optimizer.layers["0"].scale
    steps(model, optimizer, growing[10:])
    assert float(optimizer.layers["0"].scale / early) > 5
    steps(rebuilt, TORCH_OPTIMIZERS["adamw"](rebuilt.parameters(), 2e-3), growing)
    assert relative_difference(restore(rebuilt), model) < TOLERANCE


@pytest.mark.parametrize("name", ["input-nystrom-2", "block-cholesky"])
def test_grafting_takes_the_scale_off(name):
    natural, scaled = (fused(settings(name, root_scale=scale), "momentum") for scale in ROOT_SCALES)
    assert relative_difference(scaled, natural) < TOLERANCE


class Units(nn.Module):
    """A layer that is given its inputs, and shows its outputs, in other units."""

    def __init__(self, layer: nn.Linear, inputs: float, outputs: float):
        super().__init__()
        self.layer, self.inputs, self.outputs = layer, inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * self.inputs) * self.outputs


def trained(scale, kept, *, inputs=1.0, outputs=1.0, weight=1.0, loss=1.0):
    """What a network comes to on AdamW; a layer in its middle is in other units, and its first weights in others."""
    torch.manual_seed(0)
    layers = nn.Linear(7, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, 3)
    layers[1].weight.data *= weight
    model = nn.Sequential(layers[0], nn.Tanh(), Units(layers[1], inputs, outputs), nn.Tanh(), layers[2]).double()
    optimizer = SNGD(model, settings("diagonal", **kept, root_scale=scale), base="adamw", lr=2e-2, eps=1e-30)
    for x, y in batches(8):
        optimizer.zero_grad()
        (loss * squared_error(model(x), y)).backward()
        optimizer.step()
    return model(batches(1)[0][0]).detach()


FACTORS = st.one_of(st.floats(-3, -0.5), st.floats(0.5, 3)).map(lambda exponent: 10**exponent)
INPUT_SIDE = [KEPT[0], KEPT[1], {"granularity": "input", "root": "nystrom", "rank": 2}]


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@hypothesis_settings(deadline=None, max_examples=8)
@given(factor=FACTORS, kept=st.sampled_from(INPUT_SIDE))
def test_units_of_the_features_leave_adamw_alone(factor, kept):
    """Multiplied inputs with ``W a`` divided, as by plain AdamW: the same outputs under ``"unit"`` alone.

    Under ``"natural"`` they are the same with ``W`` divided, as natural gradient descent is in any coordinates.
    """
    natural, scaled = (trained(scale, kept) for scale in ROOT_SCALES)
    found = {scale: trained(scale, kept, inputs=factor, outputs=1 / factor) for scale in ROOT_SCALES}
    assert difference(found["unit"], scaled) < 1e-6
    assert difference(found["natural"], natural) > 1e-3
    found = {scale: trained(scale, kept, inputs=factor, weight=1 / factor) for scale in ROOT_SCALES}
    assert difference(found["unit"], scaled) > 1e-3
    assert difference(found["natural"], natural) < 1e-6


@hypothesis_settings(deadline=None, max_examples=6)
@given(factor=FACTORS, granularity=st.sampled_from(OUTPUT_SIDE))
def test_the_unit_of_the_loss_leaves_adamw_alone(factor, granularity):
    """Where ``G`` is made of output gradients, the natural root shrinks as the loss grows."""
    kept = {"granularity": granularity, "root": "cholesky"}
    assert difference(trained("unit", kept, loss=factor), trained("unit", kept)) < 1e-6
    assert difference(trained("natural", kept, loss=factor), trained("natural", kept)) > 1e-3


# --- states


def test_a_state_from_before_there_was_a_scale_goes_on_as_it_would_have():
    """Its roots are natural ones: to ``"unit"`` they are of scale 1 until the next refresh."""
    natural, data = settings("input-newton_schulz"), batches(14)
    model, resumed, scaled = network(), network(seed=9), network(seed=9)
    optimizer = SNGD(model, natural, base="adamw", lr=1e-2)
    steps(model, optimizer, data[:7])
    saved = on_disk(model, optimizer)
    for layer in saved[1]["fisher"].values():
        del layer["scale"]
    again = SNGD(resumed, natural, base="adamw", lr=0.5, seed=5)
    other = SNGD(scaled, settings("input-newton_schulz", root_scale="unit"), base="adamw", lr=0.5)
    for each, its in ((resumed, again), (scaled, other)):
        each.load_state_dict(saved[0])
        its.load_state_dict(saved[1])
    assert "scale" not in saved[1]["fisher"]["0"]  # the caller's own is left alone
    assert float(other.layers["0"].scale) == 1
    for each, its in ((model, optimizer), (resumed, again), (scaled, other)):
        steps(each, its, data[7:])
    assert same(resumed, model)
    assert float(other.layers["0"].scale) != 1
    with pytest.raises(ReconstructionError, match="saved with other settings"):
        SNGD(network(), settings("diagonal"), base="sgd").load_state_dict(saved[1])


def test_a_scaled_state_is_taken_over_by_natural_roots():
    """The next refresh starts from the root without its scale, and leaves 1."""
    chosen = {scale: settings("input-newton_schulz", root_scale=scale) for scale in ROOT_SCALES}
    data, models = [(100 * x, y) for x, y in batches(14)], {scale: network() for scale in ROOT_SCALES}
    optimizers = {scale: SNGD(models[scale], chosen[scale], base="adamw", lr=1e-12) for scale in ROOT_SCALES}
    for scale in ROOT_SCALES:
        steps(models[scale], optimizers[scale], data[:7])
    optimizers["natural"].load_state_dict(optimizers["unit"].state_dict())
    layer = optimizers["natural"].layers["0"]
    layer.load_state_dict({}, strict=False)  # of which it is no part
    assert float(layer.scale) > 10
    steps(models["natural"], optimizers["natural"], data[7:])
    steps(models["unit"], optimizers["unit"], data[7:])
    x, other = torch.eye(8, dtype=torch.float64), optimizers["unit"].layers["0"]
    assert float(layer.scale) == 1
    torch.testing.assert_close(other.root.apply(x), other.scale * layer.root.apply(x), rtol=1e-6, atol=1e-6)


def test_a_damped_matrix_that_overflows_is_named():
    """``mean(diag G)`` and λ are finite still."""
    fisher = LocalFisher(Shape((), 3, 4), unit(relative_damping=1.0))
    with pytest.raises(NonFiniteError, match=r"layer: its statistics overflow torch\.float32; scale its inputs"):
        refreshed(fisher, torch.full((2, 4), 1.5e19), torch.zeros(2, 3))


# --- settings


def test_it_goes_with_what_measures_in_other_metrics_than_that_of_g():
    refused = {
        (bound, policy) for bound, policy in product(STEP_BOUNDS, DAMPING_POLICIES) if not allowed(bound, policy)
    }
    assert refused == {("kl", "fixed"), *((bound, "levenberg_marquardt") for bound in STEP_BOUNDS)}


def allowed(bound, policy):
    try:
        return bool(unit(step_bound=bound, damping_policy=policy))
    except ValueError:
        return False


def test_a_trial_may_ask_for_it():
    trial = TrialConfig.from_flat({"root_scale": "unit", "lr": 0.01}, workload="digits_mlp", epochs=1, seed=0)
    assert trial.fisher.root_scale == "unit"
