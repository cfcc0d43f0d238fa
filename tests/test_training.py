"""One training run: what it measures, that both forms agree, and that it can be repeated and resumed."""

import dataclasses
import io
import itertools
import math
from typing import Any

import pytest
import torch

from sngd_tune.errors import ConfigurationError, FisherError
from sngd_tune.records.metrics import EpochMetrics
from sngd_tune.records.trial import TrialConfig
from sngd_tune.trainables.session import rehearse
from sngd_tune.training import Training, train
from sngd_tune.workloads.digits_mlp import DigitsMlp
from sngd_tune.workloads.workload import Split, Splits, Workload
from tests.examples.counting import Counting
from tests.examples.faults import WithoutAccuracy
from tests.examples.moons import Moons

DIGITS = DigitsMlp()
SMALL = {"batch_size": 50, "fisher_interval": 10, "statistics_interval": 5}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return DIGITS.load(None)


def trial(epochs: int = 3, seed: int = 1, test: bool = False, **parameters: Any) -> TrialConfig:
    values = {**SMALL, **parameters}
    if values.get("optimizer", "sngd") != "sngd":
        values = {"batch_size": 50, **parameters}
    return TrialConfig.from_flat(values, workload="digits_mlp", epochs=epochs, seed=seed, test=test)


def run(splits: Splits, config: TrialConfig, workload: Workload = DIGITS) -> list[EpochMetrics]:
    return list(train(config, workload, splits))


def timeless(metrics: EpochMetrics) -> dict[str, float]:
    """What has to repeat: everything but times, energy, memory and speed."""
    noisy = ("seconds", "joules", "memory", "per_second")
    return {name: value for name, value in metrics.scalars().items() if not any(word in name for word in noisy)}


METHODS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},
    "adamw": {"optimizer": "adamw", "lr": 3e-3},
    "fused": {"base": "sgd", "lr": 0.1},
    "fused adamw": {"base": "adamw", "lr": 3e-3},
    "explicit": {
        "base": "sgd",
        "form": "explicit",
        "step_bound": "none",
        "lr": 0.05,
        "momentum": 0.5,
        "relative_damping": 1.0,
    },
    "block": {"base": "sgd", "granularity": "block", "block": 16, "root": "cholesky", "lr": 0.1},
    "diagonal, cosine": {"base": "sgd", "granularity": "diagonal", "lr": 0.1, "lr_schedule": "cosine"},
    "levenberg_marquardt": {"base": "sgd", "damping_policy": "levenberg_marquardt", "lr": 0.1},
}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> dict[str, Any]:
    return METHODS[request.param]


def test_every_metric_is_there_and_plausible(splits: Splits, method: dict[str, Any]) -> None:
    epochs = run(splits, trial(test=True, **method))
    assert [metrics.epoch for metrics in epochs] == [1, 2, 3]
    assert [metrics.steps for metrics in epochs] == [24, 48, 72]
    for metrics in epochs:
        assert metrics.finite
        assert all(math.isfinite(value) and value >= 0 for value in metrics.scalars().values())
        assert metrics.gradient_norm > 0
        assert metrics.update_norm > 0
        parts = ("forward_backward", "statistics", "refresh", "update", "communication")
        assert metrics.epoch_seconds == pytest.approx(sum(getattr(metrics, f"{part}_seconds") for part in parts))
        assert metrics.forward_backward_seconds > 0
        assert metrics.examples_per_second == pytest.approx(1197 / metrics.epoch_seconds)
        assert 50 << 20 < metrics.peak_memory_bytes < 8 << 30
    assert epochs[-1].training_seconds == pytest.approx(sum(metrics.epoch_seconds for metrics in epochs))
    assert epochs[-1].training_loss < 0.5 * epochs[0].training_loss
    assert epochs[-1].validation_accuracy is not None
    assert epochs[-1].validation_accuracy > 0.8


def test_only_sngd_has_fisher_costs_and_layers(splits: Splits, method: dict[str, Any]) -> None:
    epochs = run(splits, trial(**method))
    seconds = sum(metrics.statistics_seconds + metrics.refresh_seconds for metrics in epochs)
    if "optimizer" in method:
        assert seconds == 0
        assert all(metrics.refreshes == 0 and metrics.layers == () for metrics in epochs)
        return
    assert seconds > 0
    layers = epochs[-1].layers
    assert [layer.layer for layer in layers] == ["0", "2", "4"]
    assert sum(metrics.refreshes for metrics in epochs) == sum(layer.refreshes for layer in layers)
    for layer, inputs in zip(layers, (65, 65, 33), strict=True):
        assert layer.refreshes >= 7  # every 10 of 72 steps, and more at the start
        assert layer.damping > 0
        assert layer.condition_number >= 1
        assert 1 - 1e-5 <= layer.effective_rank <= inputs
        assert layer.root_failures == 0
        assert layer.drift is not None
        assert layer.drift > 0
    assert all(layer.drift is None for layer in epochs[0].layers)


def test_the_test_set_is_seen_after_the_last_epoch_of_a_confirmation_only(splits: Splits) -> None:
    def tested(config: TrialConfig) -> list[tuple[bool, bool]]:
        return [(m.test_loss is not None, m.test_accuracy is not None) for m in run(splits, config)]

    assert tested(trial()) == [(False, False)] * 3
    assert tested(trial(test=True)) == [(False, False)] * 2 + [(True, True)]


def test_evaluation_is_that_of_the_trained_model(splits: Splits) -> None:
    training = Training(trial(test=True, epochs=1), DIGITS, splits, device="cpu")
    metrics = training.epoch()
    training.model.eval()
    with torch.no_grad():
        for split, loss, accuracy in (
            (splits.validation, metrics.validation_loss, metrics.validation_accuracy),
            (splits.test, metrics.test_loss, metrics.test_accuracy),
        ):
            outputs, targets = training.model(torch.tensor(split.inputs)), torch.tensor(split.targets)
            assert torch.nn.functional.cross_entropy(outputs, targets).item() == pytest.approx(loss, rel=1e-5)
            assert float((outputs.argmax(1) == targets).float().mean()) == pytest.approx(accuracy)


def test_a_text_is_evaluated_by_position() -> None:
    workload = Counting()
    splits = workload.load(None)
    training = Training(trial(epochs=1), workload, splits, device="cpu")
    metrics = training.epoch()
    assert len(splits.validation) % workload.evaluation_batch  # the last batch is a smaller one
    training.model.eval()
    with torch.no_grad():
        outputs, targets = (
            training.model(torch.tensor(splits.validation.inputs)),
            torch.tensor(splits.validation.targets),
        )
    loss = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(metrics.validation_loss, rel=1e-5)
    assert (outputs.argmax(-1) == targets).float().mean().item() == pytest.approx(metrics.validation_accuracy)


def test_a_task_without_accuracy_has_none(splits: Splits) -> None:
    workload = WithoutAccuracy()
    (metrics,) = run(workload.load(None), trial(epochs=1, test=True), workload)
    assert (metrics.validation_accuracy, metrics.test_accuracy) == (None, None)
    assert metrics.test_loss is not None


FISHERS = [("unit", "sampled"), ("unit", "exact"), ("kron", "sampled"), ("kron", "exact")]


@pytest.mark.parametrize(
    ("granularity", "fisher"), [("input", None), ("block", None), ("diagonal", None), ("kron", "empirical"), *FISHERS]
)
def test_fused_and_explicit_form_train_alike(splits: Splits, granularity: str, fisher: str | None) -> None:
    shared: dict[str, Any] = {
        "base": "sgd",
        "granularity": granularity,
        "step_bound": "none",
        "lr": 0.02,
        "relative_damping": 0.1,
    }
    if granularity != "diagonal":
        shared["root"] = "cholesky"
    if fisher is not None:  # the steps of these are longer
        shared |= {"fisher": fisher, "lr": 1e-3, "relative_damping": 1.0}
    fused, explicit = (run(splits, trial(form=form, **shared)) for form in ("fused", "explicit"))
    for one, other in zip(fused, explicit, strict=True):
        for name in ("training_loss", "validation_loss", "validation_accuracy"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=2e-4), name
        assert one.refreshes == other.refreshes
        for left, right in zip(one.layers, other.layers, strict=True):
            assert left.condition_number == pytest.approx(right.condition_number, rel=1e-3)


@pytest.mark.parametrize("form", ["fused", "explicit"])
@pytest.mark.parametrize(("granularity", "fisher"), FISHERS)
def test_the_true_fisher_matrix_trains_and_resumes(splits: Splits, granularity: str, fisher: str, form: str) -> None:
    values = {"base": "sgd", "form": form, "granularity": granularity, "root": "cholesky", "lr": 0.1}
    config = trial(epochs=2, fisher=fisher, **values)
    whole = Training(config, DIGITS, splits)
    first, second = whole.epoch(), whole.epoch()
    assert second.training_loss < 0.6 * first.training_loss
    assert first.statistics_seconds > 0
    (empirical,) = run(splits, trial(epochs=1, fisher="empirical", **values))
    assert empirical.training_loss != first.training_loss

    begun, resumed = Training(config, DIGITS, splits), Training(config, DIGITS, splits)
    begun.epoch()
    resumed.load_state_dict(saved(begun.state_dict()))
    resumed.epoch()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_true_fisher_matrix_follows_the_loss_too(splits: Splits) -> None:
    """Levenberg-Marquardt evaluates the model once more after a step; that enters no statistics."""
    lm = {"damping_policy": "levenberg_marquardt", "granularity": "kron", "root": "eigh", "fisher": "sampled"}
    first, second = run(splits, trial(epochs=2, lr=0.1, **lm))
    assert second.training_loss < 0.6 * first.training_loss


@pytest.mark.parametrize("form", ["fused", "explicit"])
def test_a_workload_without_likelihood_is_refused_before_anything_starts(form: str) -> None:
    class Untouched(WithoutAccuracy):
        def model(self) -> torch.nn.Module:
            raise AssertionError("has been started")

    workload = Untouched()
    config = trial(form=form, granularity="kron", root="cholesky", fisher="sampled")
    message = "likelihood=None of workload Untouched: must be one of softmax, .*; set it in the class to the one of its"
    with pytest.raises(ConfigurationError, match=message):
        Training(config, workload, workload.load(None))


def test_where_no_output_gradients_are_kept_no_likelihood_is_needed() -> None:
    workload = WithoutAccuracy()
    config = trial(epochs=1)
    assert config.fisher is not None
    sampled = dataclasses.replace(config, fisher=dataclasses.replace(config.fisher, fisher="sampled"))
    (metrics,) = run(workload.load(None), sampled, workload)
    assert metrics.finite


def test_a_seed_repeats_a_run_and_another_does_not(splits: Splits, method: dict[str, Any]) -> None:
    first, again, other = (run(splits, trial(epochs=2, seed=seed, **method)) for seed in (3, 3, 4))
    assert [timeless(metrics) for metrics in first] == [timeless(metrics) for metrics in again]
    assert first[-1].validation_loss != other[-1].validation_loss


@pytest.mark.filterwarnings("ignore:.* NaN or infinity; it is left out")
@pytest.mark.parametrize("optimizer", ["sgd", "sngd"])
def test_divergence_ends_the_run(splits: Splits, optimizer: str) -> None:
    huge = {"optimizer": optimizer, "lr": 1e38, "momentum": 0.0}
    if optimizer == "sngd":
        huge |= {"base": "sgd", "step_bound": "none"}
    epochs = []
    try:
        for metrics in train(trial(epochs=5, **huge), DIGITS, splits):
            epochs.append(metrics)  # noqa: PERF402  the generator may raise after some
    except FisherError:  # ten skipped steps may come before the look at the loss
        assert optimizer == "sngd"
        return
    assert len(epochs) < 5
    assert not epochs[-1].finite
    assert math.isnan(epochs[-1].validation_loss)
    assert all(metrics.finite for metrics in epochs[:-1])


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file that holds tensors and numbers only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def test_resumed_is_uninterrupted_bit_for_bit(splits: Splits, method: dict[str, Any]) -> None:
    config = trial(epochs=4, **{"lr_schedule": "cosine", **method})
    whole = Training(config, DIGITS, splits)
    expected = [whole.epoch() for _ in range(4)]
    begun = Training(config, DIGITS, splits)
    for _ in range(2):
        begun.epoch()
    resumed = Training(config, DIGITS, splits)
    state = saved(begun.state_dict())
    torch.rand(7)  # whatever else the process draws in between
    resumed.load_state_dict(state)
    assert resumed.epochs == 2
    assert not resumed.finished
    for metrics in expected[2:]:
        again = resumed.epoch()
        values, wanted = timeless(again), timeless(metrics)
        drifts = {name for name in wanted if name.endswith("drift")}  # of the first epoch after: nothing before it
        assert {k: v for k, v in values.items() if k not in drifts} == {
            k: v for k, v in wanted.items() if k not in drifts
        }
        assert again.training_seconds > again.epoch_seconds  # the time before the interruption counts
    assert resumed.finished
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_dropout_resumes_bit_for_bit() -> None:
    workload = Moons()
    data, config = workload.load(None), trial(epochs=3, lr=0.05)
    whole = Training(config, workload, data)
    for _ in range(3):
        whole.epoch()
    begun = Training(config, workload, data)
    begun.epoch()
    state = saved(begun.state_dict())
    resumed = Training(config, workload, data)
    resumed.load_state_dict(state)
    for _ in range(2):
        resumed.epoch()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_baselines_are_torchs_own(splits: Splits) -> None:
    """One epoch of `sgd` and `adamw`, written out by hand."""
    made = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, weight_decay=1e-3),
        "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, betas=(0.8, 0.99), weight_decay=0.1),
    }
    given = {
        "sgd": {"lr": 0.05, "momentum": 0.8, "weight_decay": 1e-3},
        "adamw": {"lr": 2e-3, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1},
    }
    inputs, targets = torch.tensor(splits.train.inputs), torch.tensor(splits.train.targets)
    for name, make in made.items():
        torch.manual_seed(1)
        model = DIGITS.model()
        optimizer = make(model.parameters())
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
        for batch in order.split(50):
            optimizer.zero_grad()
            DIGITS.loss(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        training = Training(trial(epochs=1, optimizer=name, **given[name]), DIGITS, splits, device="cpu")
        training.epoch()
        for one, other in zip(model.parameters(), training.model.parameters(), strict=True):
            torch.testing.assert_close(one, other)


def test_shared_data_is_read_only_and_stays_so(splits: Splits) -> None:
    """As Ray's object store gives it: nothing warns, nothing writes."""

    def locked(split: Split) -> Split:
        arrays = [array.copy() for array in (split.inputs, split.targets)]
        for array in arrays:
            array.flags.writeable = False
        return Split(*arrays)

    shared = Splits(*(locked(split) for split in (splits.train, splits.validation, splits.test)))
    one, other = run(shared, trial(epochs=1)), run(splits, trial(epochs=1))
    assert timeless(one[0]) == timeless(other[0])


def test_metrics_survive_a_process_boundary(splits: Splits) -> None:
    (metrics,) = run(splits, trial(epochs=1))
    assert EpochMetrics.from_dict(metrics.to_dict()) == metrics
    assert dataclasses.asdict(metrics)["layers"]


def limited(**changes: Any) -> TrialConfig:
    """Endless but for its seconds, evaluated every 100 examples."""
    return dataclasses.replace(trial(epochs=100_000, test=True, **changes), seconds=0.15, epoch_examples=100)


def test_a_training_ends_in_the_step_in_which_its_seconds_are_over(splits: Splits) -> None:
    epochs = run(splits, limited(optimizer="adamw", lr=3e-3))
    assert epochs[-2].training_seconds < 0.15 <= epochs[-1].training_seconds
    # A step more, and no epoch more.
    assert epochs[-1].training_seconds - 0.15 < max(metrics.epoch_seconds for metrics in epochs)
    assert epochs[-1].test_loss is not None
    assert all(metrics.test_loss is None for metrics in epochs[:-1])
    assert {later.steps - earlier.steps for earlier, later in itertools.pairwise(epochs[:-1])} == {2}


def test_seconds_carry_a_schedule_to_its_end(splits: Splits) -> None:
    training = Training(limited(optimizer="sgd", lr=0.1, lr_schedule="cosine"), DIGITS, splits)
    rates = []
    while not training.finished:
        training.epoch()
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.09
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_short_epochs_see_the_same_batches_as_long_ones(splits: Splits) -> None:
    whole = run(splits, trial(epochs=2))
    parts = run(splits, dataclasses.replace(trial(epochs=12), epoch_examples=200))  # 4 of 24 steps
    assert [metrics.steps for metrics in parts] == list(range(4, 49, 4))
    for metrics, part in zip(whole, parts[5::6], strict=True):
        assert (metrics.validation_loss, metrics.steps) == (part.validation_loss, part.steps)


def test_a_rehearsal_changes_nothing(splits: Splits) -> None:
    config = trial(epochs=1)
    expected = [timeless(metrics) for metrics in run(splits, config)]
    rehearse(config, lambda short: Training(short, DIGITS, splits))
    assert [timeless(metrics) for metrics in run(splits, config)] == expected
