"""A workload's likelihood is the one of its loss, and what is said where it is not."""

import numpy as np
import pytest
import torch

from sngd_tune.core.likelihoods import LIKELIHOODS
from sngd_tune.errors import ConfigurationError
from sngd_tune.workloads.likelihood import PRODUCTS, check_likelihood, required_likelihood
from sngd_tune.workloads.registry import WORKLOADS, find_workload
from sngd_tune.workloads.workload import Split
from tests.examples import likelihoods

#: Of the inputs; 784 where nothing is said.
SHAPES = {
    "cifar10_resnet": (3, 32, 32),
    "cifar10_resnet_narrow": (3, 32, 32),
    "digits_mlp": (64,),
    "fashion_cnn": (1, 28, 28),
    "housing_mlp": (13,),
}
#: Vocabulary and length of the windows.
TOKENS = {"ptb_lstm": (10_000, 35), "shakespeare_transformer": (65, 64)}
RIGHT = ["MoonsWithLikelihood", "Smoothed", "MeanSquare"]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_products_are_with_the_fisher_matrix_of_the_core(name: str) -> None:
    assert set(PRODUCTS) == set(LIKELIHOODS)
    torch.manual_seed(0)
    outputs, v = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    columns = torch.stack(list(LIKELIHOODS[name]().columns(outputs)))
    expected = torch.einsum("ctui,ctuj,tuj->tui", columns, columns, v)
    torch.testing.assert_close(PRODUCTS[name](outputs, v), expected)


def stand_in(name: str, likelihood: str | None) -> Split:
    """Data of a workload's shape, so that none has to be there."""
    rng = np.random.default_rng(0)
    if name in TOKENS:
        vocabulary, length = TOKENS[name]
        return Split(*rng.integers(0, vocabulary, (2, 20, length)))
    inputs = rng.random((20, *SHAPES.get(name, (784,))), np.float32)
    targets = {"bernoulli": inputs, "gaussian": inputs[:, :1], "softmax": rng.integers(0, 10, 20)}
    return Split(inputs, targets[likelihood or ""])


@pytest.mark.parametrize("name", WORKLOADS)
def test_registered_workloads_name_the_likelihood_of_their_loss(name: str) -> None:
    workload = find_workload(name)
    check_likelihood(workload, stand_in(name, workload.likelihood))


@pytest.mark.parametrize("name", RIGHT)
def test_what_fits_passes_and_draws_no_random_number(name: str) -> None:
    workload = getattr(likelihoods, name)()
    state = torch.get_rng_state()
    check_likelihood(workload, workload.load(None).train)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Doubled", "must be the loss; it is 2 times that: divide it by 2, or keep fisher: empirical"),
        ("SumOfSquares", "it is 16 times that: divide it by 16, or"),
        ("Misnamed", "likelihood='bernoulli' of workload Misnamed: .* it is that of 'softmax': name this one"),
        ("Absolute", "it is that of none of softmax, gaussian, bernoulli"),
        ("Weighted", "it is that of none of softmax, gaussian, bernoulli"),
        ("Flat", r"outputs of workload Flat: \(8,\): must be one tensor \[\*terms, C\].*outputs.unsqueeze\(-1\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(name: str, message: str) -> None:
    workload = getattr(likelihoods, name)()
    with pytest.raises(ConfigurationError, match=message):
        check_likelihood(workload, workload.load(None).train)


def test_an_unknown_likelihood_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="likelihood='poisson' of workload Unknown: must be one of softmax"):
        required_likelihood(likelihoods.Unknown())
