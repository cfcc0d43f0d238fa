"""The probe on networks whose spectra, noise and drift are known."""

import math
from collections.abc import Iterator
from itertools import count

import pytest
import torch
from torch import Tensor, nn

from sngd_tune.core.account import matches
from sngd_tune.errors import ConfigurationError, NonFiniteError, ReconstructionError
from sngd_tune.selection.candidates import Candidate, Curve, candidates
from sngd_tune.selection.figures import layer_probe, least_damping, retained_trace, spectrum
from sngd_tune.selection.observation import observe
from sngd_tune.selection.probe import Probe, ProbePlan, run_probe
from sngd_tune.selection.sample import MAX_INPUTS, MAX_OUTPUTS, Sampler
from sngd_tune.selection.source import Batches
from sngd_tune.settings import FisherSettings

CPU = torch.device("cpu")
D = 6
SPECTRUM = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])


def gaussian(examples: int, scales: Tensor = SPECTRUM, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs with covariance ``diag(scales)`` and targets that are their sum."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(examples, len(scales), generator=generator) * scales.sqrt()
        yield x, x.sum(1, keepdim=True) + torch.randn(examples, 1, generator=generator)


def linear(d: int = D, d_out: int = 1) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(d, d_out, bias=False)


def probed(batches: Iterator[tuple[Tensor, Tensor]], plan: ProbePlan, model: nn.Module | None = None) -> Probe:
    return run_probe(model or linear(), nn.functional.mse_loss, Batches(batches, CPU), plan)


STILL = ProbePlan(steps=0, batches=32)


def test_the_effective_rank_the_spectrum_and_the_trace_are_recovered() -> None:
    (evidence,) = probed(gaussian(256), STILL).layers
    found = layer_probe(evidence, *candidates(evidence))
    assert spectrum(evidence.fit.inputs)[0].tolist() == pytest.approx(SPECTRUM.tolist(), rel=0.1)
    assert found.effective_rank == pytest.approx(float(SPECTRUM.sum() ** 2 / SPECTRUM.square().sum()), rel=0.05)
    assert found.retained_trace[2] == pytest.approx(12 / 15.75, abs=0.02)
    assert found.condition_number == pytest.approx(32, rel=0.15)
    assert (found.inputs, found.outputs, found.positions, found.module) == (D, 1, 1.0, "Linear")


@pytest.mark.parametrize("examples", [32, 256])
def test_the_noise_of_a_batch_is_that_of_a_wishart_matrix(examples: int) -> None:
    """``E‖G_b − G‖² = (tr(G)² + ‖G‖²) / b`` for Gaussian inputs."""
    (evidence,) = probed(gaussian(examples), STILL).layers
    rank = float(SPECTRUM.sum() ** 2 / SPECTRUM.square().sum())
    assert evidence.fit.batch_noise == pytest.approx(math.sqrt((rank + 1) / examples), rel=0.25)


def test_the_least_damping_makes_up_for_few_rows() -> None:
    """For ``G = I`` the small eigenvalues of a sample near ``(1 − √(d/n))²`` (Marchenko and Pastur 1967)."""
    d = 64
    values = []
    for rows in (128, 2048):
        plan = ProbePlan(steps=0, batches=8)
        (evidence,) = probed(gaussian(rows // 8, torch.ones(d)), plan, linear(d)).layers
        values.append(least_damping(evidence.fit, evidence.judges))
        edge = 1 - (1 - math.sqrt(d / rows)) ** 2
        assert 0.5 * edge < values[-1] < 1.1 * edge
    assert values[0] > 2 * values[1]


def test_drift_is_told_from_sampling_noise() -> None:
    """Inputs grow by 1 % a step: ``G`` after 10 steps is ``1.01²⁰`` as large."""

    def growing() -> Iterator[tuple[Tensor, Tensor]]:
        for step, (x, y) in zip(count(), gaussian(512), strict=False):
            yield x * 1.01 ** min(step, trained), y

    # Batches before and between the steps of training: one, then 16 / 2 at each age.
    trained = 1 + 50 + 2 * 8
    plan = ProbePlan(steps=50, batches=16)
    (evidence,) = probed(growing(), plan).layers
    found = layer_probe(evidence, *candidates(evidence))
    # The sample of age 10 was taken over 8 batches, 10 steps before the end.
    assert found.drift[10] == pytest.approx(1 - 1.01 ** (-2 * 14), abs=0.06)
    assert found.drift[40] == pytest.approx(1 - 1.01 ** (-2 * 52), abs=0.08)
    (still,) = probed(gaussian(512), plan).layers
    assert layer_probe(still, *candidates(still)).drift[10] < 0.05


def test_ill_conditioned_inputs_gain_and_white_ones_do_not() -> None:
    """Where ``½ Σ μ_i δ_i²`` has equal terms, the gain of whitening is ``d ‖μ‖² / (Σ μ)²``."""
    gains = []
    for scales in (torch.ones(D), torch.logspace(0, 3, D)):
        model = linear()
        model.weight.data = 1 - 3 * scales.rsqrt()[None]
        (evidence,) = probed(gaussian(1024, scales), STILL, model).layers
        plain, found = candidates(evidence)
        gains.append(max(each.best.fresh for each in found) / plain)
    assert gains[0] == pytest.approx(1, abs=0.1)
    assert gains[1] == pytest.approx(D * float(scales.square().sum() / scales.sum() ** 2), rel=0.25)


def test_an_old_root_keeps_the_share_that_its_age_leaves() -> None:
    curve = Curve(1.0, {0: 5.0, 10: 3.0})  # half of the gain is gone after 10 steps
    assert curve.lifetime == pytest.approx(10)
    assert curve.at_interval(10) == pytest.approx(1 + 4 * math.log(2))
    assert curve.at_interval(10_000) == pytest.approx(1, abs=0.05)
    assert Curve(1.0, {0: 0.5, 10: 0.4}).at_interval(100) == 0.5  # nothing gained, nothing lost
    assert Curve(1.0, {0: 5.0}).lifetime == math.inf


def test_of_dampings_that_are_as_good_the_largest_is_taken() -> None:
    curves = {d: Curve(1.0, {0: v}) for d, v in {0.01: 3.0, 0.1: 2.9, 1.0: 2.0}.items()}
    assert Candidate("x", FisherSettings(), curves).at_interval(50) == (2.9, 0.1)
    worse = {d: Curve(1.0, {0: v}) for d, v in {0.01: 0.2, 0.1: 0.5, 1.0: 0.9}.items()}
    assert Candidate("x", FisherSettings(), worse).at_interval(50) == (0.9, 1.0)


def test_the_model_its_gradients_and_its_mode_stay_as_they_are() -> None:
    model = nn.Sequential(linear(), nn.Dropout(0.5)).eval()
    model[0].weight.grad = torch.ones(1, D)
    before = model[0].weight.clone()
    probed(gaussian(16), ProbePlan(steps=50, batches=4), model)
    assert torch.equal(model[0].weight, before)
    assert torch.equal(model[0].weight.grad, torch.ones(1, D))
    assert not model.training


def test_shared_weights_embeddings_groups_and_recurrent_layers_are_seen() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.lstm = nn.LSTM(8, 8, batch_first=True)
            self.conv = nn.Conv1d(8, 4, 3, groups=2)
            self.head = nn.Linear(4, 1)

        def forward(self, numbers: Tensor) -> Tensor:
            states, _ = self.lstm(self.embedding(numbers))
            return self.head(self.conv(states.mT).mean(-1))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        while True:
            numbers = torch.randint(11, (16, 5), generator=generator)
            yield numbers, numbers.float().mean(1, keepdim=True)

    layers = {each.match.name: each for each in probed(batches(), ProbePlan(steps=50, batches=4), Mixed()).layers}
    assert list(layers) == ["embedding", "lstm.ih_l0", "lstm.hh_l0", "conv", "head"]
    assert layers["conv"].fit.inputs.shape == (2, 13, 13)
    for name, positions in {"embedding": 5, "lstm.ih_l0": 5, "conv": 3, "head": 1}.items():
        plain, found = candidates(layers[name])
        assert layer_probe(layers[name], plain, found).positions == positions
        assert all(math.isfinite(each.at_interval(50)[0]) for each in found)
    assert [each.name for each in candidates(layers["embedding"])[1]] == ["diagonal"]
    assert "block:channel" in [each.name for each in candidates(layers["conv"])[1]]


def test_wide_layers_are_judged_by_a_part_of_them() -> None:
    model = nn.Linear(MAX_INPUTS + 500, MAX_OUTPUTS + 200)
    (match,) = matches(model, FisherSettings())
    sampler = Sampler(match.site.shape, CPU, seed=0)
    for _ in range(2):
        x = torch.randn(8, MAX_INPUTS + 500)
        sampler.add(observe(model, [match], lambda x=x: model(x).square().mean())[1][""])
    seen = sampler.sample()
    assert seen.inputs.shape == (1, MAX_INPUTS, MAX_INPUTS)
    assert seen.outputs.shape == (1, MAX_OUTPUTS, MAX_OUTPUTS)
    assert seen.inputs[0, -1, -1] == 1  # the bias is always among them
    assert sampler.share == pytest.approx(MAX_INPUTS * MAX_OUTPUTS / ((MAX_INPUTS + 501) * (MAX_OUTPUTS + 200)))


def test_retained_trace_names_no_rank_beyond_the_layer() -> None:
    assert retained_trace(torch.tensor([[3.0, 1.0]])) == {1: 0.75, 2: 1.0}


def test_bad_input_is_told_before_anything_is_trained() -> None:
    with pytest.raises(ReconstructionError, match="no layer that can get a local Fisher layer"):
        probed(gaussian(8), STILL, nn.BatchNorm1d(D))
    with pytest.raises(ConfigurationError, match="ended after 5, and more are needed"):
        probed((batch for batch, _ in zip(gaussian(8), range(5), strict=False)), STILL)
    with pytest.raises(ConfigurationError, match="ended after 0"):
        run_probe(linear(), nn.functional.mse_loss, Batches([], CPU), STILL)
    with pytest.raises(ConfigurationError, match="no pair"):
        run_probe(linear(), nn.functional.mse_loss, Batches([torch.ones(3, D)], CPU), STILL)
    with pytest.raises(ConfigurationError, match="scalar"):
        run_probe(linear(), lambda y, t: (y - t).square(), Batches(gaussian(8), CPU), STILL)
    with pytest.raises(ConfigurationError, match="scalar"):
        run_probe(linear(), lambda y, t: 1.0, Batches(gaussian(8), CPU), STILL)  # type: ignore[arg-type,return-value]
    with pytest.raises(NonFiniteError, match="not finite"):
        probed(((x * math.nan, y) for x, y in gaussian(8)), STILL)
    with pytest.raises(ConfigurationError, match="steps=7"):
        ProbePlan(steps=7)


def test_a_list_goes_round_and_inputs_may_be_arguments() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.layer(left + right)

    pairs = [batch for batch, _ in zip(gaussian(8), range(3), strict=False)]
    plan = ProbePlan(steps=0, batches=4)
    for inputs in (lambda x: (x, x), lambda x: {"left": x, "right": x}):
        (evidence,) = run_probe(
            Sum(), nn.functional.mse_loss, Batches([(inputs(x), y) for x, y in pairs], CPU), plan
        ).layers
        assert evidence.match.name == "layer"
