"""`select_settings` from end to end on small networks."""

import math
from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sngd_tune import SNGD
from sngd_tune.errors import ConfigurationError, NonFiniteError, ReconstructionError
from sngd_tune.records.selection import SelectionRecord
from sngd_tune.selection.cost import CostModel
from sngd_tune.selection.rate import Race, find_rate
from sngd_tune.selection.select import Selection, select_settings
from sngd_tune.selection.source import Batches
from sngd_tune.settings import FisherSettings


def digits(examples: int = 64) -> list[tuple[Tensor, Tensor]]:
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return list(zip(x[order].split(examples), y[order].split(examples), strict=True))[:-1]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 10))


def selected(**options: object) -> Selection:
    arguments = {"seconds": 5, "cost": CostModel(), "steps": 60, **options}
    return select_settings(network(), nn.CrossEntropyLoss(), digits(), **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def selection() -> Selection:
    return selected()


@pytest.mark.slow
def test_the_optimizer_takes_the_selection_as_it_is(selection: Selection) -> None:
    model = network()
    optimizer = SNGD(model, selection, **selection.optimizer)
    assert set(optimizer.layers) == set(selection)
    loss_fn, losses = nn.CrossEntropyLoss(), []
    for x, y in digits() * 3:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_the_record_is_whole(selection: Selection) -> None:
    record = selection.record
    assert isinstance(record, SelectionRecord)
    assert [each.layer for each in record.layers] == [each.layer for each in record.probes] == ["0", "3"]
    assert record.subject == "Sequential"
    assert record.batch_size == 64
    assert record.bound >= record.gain >= 1
    assert record.step.predicted > 0 and record.step.ratio > 0.5
    assert all(each.reason and each.alternatives for each in record.layers)
    assert all(settings.root_scale == "unit" for settings in selection.values())
    others = [point.loss for point in record.rates[1:]]
    assert others == sorted(others)
    assert selection.optimizer["lr"] == record.rates[0].lr
    assert {point.steps for point in record.rates} == {60}


@pytest.mark.slow
def test_the_model_and_the_random_numbers_stay_as_they_are() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    select_settings(model, nn.CrossEntropyLoss(), digits(), seconds=5, steps=50, cost=CostModel())
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_names_the_cheapest_choice() -> None:
    with pytest.raises(ConfigurationError, match=r"step_budget=1: .* cheapest is .* × SGD's"):
        selected(step_budget=1)


def test_bad_input_is_told_at_once() -> None:
    cases: list[tuple[type[Exception], str, dict[str, object]]] = [
        (ConfigurationError, "step_budget=0.9", {"step_budget": 0.9}),
        (ConfigurationError, "memory_budget=-1", {"memory_budget": -1}),
        (ConfigurationError, "seconds=1", {"seconds": 1}),
        (ConfigurationError, "steps=0", {"steps": 0}),
    ]
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            selected(**options)
    loss_fn = nn.CrossEntropyLoss()
    with pytest.raises(ReconstructionError, match="no layer that can get"):
        select_settings(nn.BatchNorm1d(64), loss_fn, digits(), seconds=5)
    with pytest.raises(NonFiniteError, match="not finite"):
        select_settings(network(), loss_fn, [(x * math.inf, y) for x, y in digits()], seconds=5)
    with pytest.raises(ConfigurationError, match="scalar"):
        select_settings(network(), nn.CrossEntropyLoss(reduction="none"), digits(), seconds=5)
    with pytest.raises(ConfigurationError, match="ended after 3"):
        select_settings(network(), loss_fn, iter(digits()[:3]), seconds=5)


def test_a_model_of_which_no_copy_fits_is_refused() -> None:
    with torch.device("meta"):
        huge = nn.Linear(2**21, 2**20)
    with pytest.raises(ConfigurationError, match="MiB are free"):
        select_settings(_OnCpu(huge), nn.MSELoss(), digits(), seconds=5)


class _OnCpu(nn.Module):
    """Says that it is on the CPU, and holds nothing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        yield nn.Parameter(torch.zeros(1))
        yield from self.inner.parameters(recurse)


class Bowl(Race):
    """A race whose loss is known: least at a rate, and with a decay."""

    def __init__(self, best: float, decay: float = 0.1) -> None:
        super().__init__(nn.Linear(1, 1), {}, nn.MSELoss(), Batches([], torch.device("cpu")), [], 1, 0)
        object.__setattr__(self, "known", (best, decay))

    def run(self, lr: float, weight_decay: float):  # type: ignore[no-untyped-def]
        from sngd_tune.records.selection import RatePoint

        best, decay = self.known  # type: ignore[attr-defined]
        loss = abs(math.log(lr / best)) + abs(weight_decay - decay) if lr < 5 * best else math.nan
        return RatePoint(lr=lr, weight_decay=weight_decay, steps=1, loss=loss, step_seconds=1.0)


@pytest.mark.parametrize("best", [1e-3, 2.4e-3, 5e-3, 1e-2, 2.1e-2, 4e-2])
def test_the_rate_is_found_from_wherever_it_lies(best: float) -> None:
    found = find_rate(Bowl(best), seconds=60, whole=False)[0].lr
    assert abs(math.log2(found / best)) <= 0.4


def test_the_decay_is_tried_where_a_training_is_long_enough() -> None:
    assert find_rate(Bowl(1e-2), seconds=60, whole=True)[0].weight_decay == 0.1
    assert {point.weight_decay for point in find_rate(Bowl(1e-2), seconds=60, whole=False)} == {0.01}


def test_two_rates_are_tried_however_short_the_time_is() -> None:
    assert len(find_rate(Bowl(1e-3), seconds=0, whole=True)) == 2


def test_diverged_trainings_are_last() -> None:
    found = find_rate(Bowl(1e-3), seconds=60, whole=False)
    assert math.isnan(found[-1].loss) and not math.isnan(found[0].loss)


def test_where_every_training_diverges_none_is_chosen_for_its_loss() -> None:
    found = find_rate(Bowl(1e-5), seconds=60, whole=True)
    assert all(math.isnan(point.loss) for point in found)
    assert all(0 < point.lr < 0.1 for point in found)


def test_a_short_training_has_the_named_schedule() -> None:
    batches, steps, lr, settings = digits(), 20, 5e-3, {"*": FisherSettings(root_scale="unit")}
    supply = Batches(batches, torch.device("cpu"))
    found = Race(network(), settings, nn.CrossEntropyLoss(), supply, batches[:2], steps, seed=0).run(lr, 0.1)
    model, loss_fn = network(), nn.CrossEntropyLoss()
    optimizer = SNGD(model, settings, base="adamw", lr=lr, weight_decay=0.1, seed=0)
    for step, (x, y) in enumerate(batches[:steps]):
        done = step / steps
        rising = 0.01 + 0.99 * done / 0.05
        falling = (1 + math.cos(math.pi * (done - 0.05) / 0.95)) / 2
        optimizer.param_groups[0]["lr"] = lr * (rising if done < 0.05 else falling)
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        expected = sum(loss_fn(model(x), y).item() for x, y in batches[:2]) / 2
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert (found.lr, found.weight_decay, found.steps) == (lr, 0.1, steps)
