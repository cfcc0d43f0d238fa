"""Models and optimizers that change their precision or device, mixed precision, and half precision throughout."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sngd_tune import SNGD, reconstruct, restore
from sngd_tune.errors import SettingsError
from tests.core.behaviour import BASES, FORMS, PLAIN, TORCH_OPTIMIZERS, on_disk, same
from tests.core.problems import batches, network, relative_difference, settings, squared_error, steps


class TestPrecision:
    @pytest.mark.parametrize("form", FORMS)
    def test_autocast_trains_and_keeps_statistics_in_float32(self, form):
        data = batches(24, torch.float32)
        model = network(dtype=torch.float32)
        if form == "fused":
            optimizer = SNGD(model, PLAIN, lr=1e-2, base="sgd")
            layers = list(optimizer.layers.values())
        else:
            model = reconstruct(model, PLAIN)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
            layers = [model[i].fishers[0] for i in (0, 2, 4)]
        x, y = data[0]
        first = squared_error(model(x), y).item()
        for _ in range(24):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(x)
                assert outputs.dtype == torch.bfloat16
            squared_error(outputs.float(), y).backward()
            optimizer.step()
        assert squared_error(model(x), y).item() < first
        rows = torch.cat((x, torch.ones(len(x), 1)), 1)
        exact = rows.mT @ rows / len(rows)  # bfloat16 would leave three digits of it
        torch.testing.assert_close(layers[0].snapshot().value, exact, rtol=1e-4, atol=1e-5)
        assert {t.dtype for layer in layers for t in layer.buffers()} == {torch.float32}

    def test_a_step_inside_autocast_is_the_same_step(self):
        left, right = network(dtype=torch.float32), network(dtype=torch.float32)
        optimizers = [SNGD(model, PLAIN, lr=1e-2, base="sgd") for model in (left, right)]
        for x, y in batches(6, torch.float32):
            for model, optimizer in zip((left, right), optimizers, strict=True):
                optimizer.zero_grad()
                squared_error(model(x), y).backward()
            optimizers[0].step()
            with torch.autocast("cpu", torch.bfloat16):
                optimizers[1].step()
        assert same(left, right)

    @pytest.mark.parametrize("unscale", [False, True])
    @pytest.mark.parametrize("base", BASES)
    def test_grad_scaler_is_training_without_it(self, base, unscale):
        left, right = network(dtype=torch.float32), network(dtype=torch.float32)
        plain, scaled = (SNGD(model, PLAIN, lr=1e-2, **BASES[base]) for model in (left, right))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # a power of two: exact
        steps(left, plain, batches(12, torch.float32))
        for x, y in batches(12, torch.float32):
            scaled.zero_grad()
            scaler.scale(squared_error(right(x), y)).backward()
            if unscale:
                scaler.unscale_(scaled)
            scaler.step(scaled)
            scaler.update()
        assert same(left, right)

    @pytest.mark.parametrize("base", BASES)
    def test_grad_scaler_on_a_torch_optimizer_is_training_without_it(self, base):
        left, right = (reconstruct(network(dtype=torch.float32), PLAIN) for _ in range(2))
        plain, scaled = (TORCH_OPTIMIZERS[base](model.parameters(), 1e-2) for model in (left, right))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        steps(left, plain, batches(12, torch.float32))
        for x, y in batches(12, torch.float32):
            scaled.zero_grad()
            scaler.scale(squared_error(right(x), y)).backward()
            scaler.step(scaled)
            scaler.update()
        assert same(left, right)

    @pytest.mark.parametrize("form", FORMS)
    def test_grad_scaler_under_autocast_is_autocast_without_it(self, form):
        models = [network(dtype=torch.float32) for _ in range(2)]
        if form == "explicit":
            models = [reconstruct(model, PLAIN) for model in models]
            optimizers = [TORCH_OPTIMIZERS["sgd"](model.parameters(), 1e-2) for model in models]
        else:
            optimizers = [SNGD(model, PLAIN, lr=1e-2, base="sgd") for model in models]
        scaler, off = torch.amp.GradScaler("cpu", init_scale=256.0), torch.amp.GradScaler("cpu", enabled=False)
        for x, y in batches(12, torch.float32):
            for model, optimizer, each in zip(models, optimizers, (scaler, off), strict=True):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = squared_error(model(x).float(), y)
                each.scale(loss).backward()
                each.step(optimizer)
                each.update()
        assert same(*models)
        assert all(bool(p.isfinite().all()) for p in models[0].parameters())

    def test_grad_scaler_and_output_gradients(self):
        chosen = settings("diagonal", granularity="unit", root="eigh", step_bound="none")
        left, right = network(dtype=torch.float32), network(dtype=torch.float32)
        plain, scaled = SNGD(left, chosen, lr=1e-3, base="sgd"), SNGD(right, chosen, lr=1e-3, base="sgd")
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        steps(left, plain, batches(8, torch.float32))
        for x, y in batches(8, torch.float32):
            scaled.zero_grad()
            scaler.scale(squared_error(right(x), y)).backward()
            scaler.step(scaled)
            scaler.update()
        assert relative_difference(right, left) < 1e-5
        scaled.zero_grad()
        scaler.scale(squared_error(right(x), y)).backward()
        scaler.unscale_(scaled)
        with pytest.raises(SettingsError, match=r"unscale_: must not be called before step\(\)"):
            scaler.step(scaled)

    def test_unscaling_before_the_step_of_an_adam_base_needs_a_unit_root_scale(self):
        for scale, batch in (("unit", 0), ("natural", 1)):
            chosen = settings("diagonal", granularity="unit", root="eigh", root_scale=scale)
            left, right = network(dtype=torch.float32), network(dtype=torch.float32)
            plain, scaled = (SNGD(model, chosen, lr=1e-3, base="adamw") for model in (left, right))
            scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
            x, y = batches(2, torch.float32)[batch]
            steps(left, plain, [(x, y)] * 6)
            for _ in range(6):
                scaled.zero_grad()
                scaler.scale(squared_error(right(x), y)).backward()
                scaler.unscale_(scaled)
                if scale == "natural":
                    with pytest.raises(SettingsError, match="root_scale='unit'"):
                        scaler.step(scaled)
                    return
                scaler.step(scaled)
                scaler.update()
            assert relative_difference(right, left) < 1e-4

    def test_a_step_with_infinity_leaves_parameters_state_and_schedule_alone(self):
        model = network(dtype=torch.float32)
        optimizer = SNGD(model, settings("diagonal", granularity="unit", root="eigh"), lr=1e-2, base="sgd")
        steps(model, optimizer, batches(5, torch.float32))
        layer, scaler = optimizer.layers["0"], torch.amp.GradScaler("cpu", init_scale=1e38)
        before, step = copy.deepcopy((model.state_dict(), optimizer.state_dict())), layer.step
        optimizer.zero_grad()
        x, y = batches(1, torch.float32)[0]
        scaler.scale(squared_error(model(x), y) * 1e3).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() < 1e38
        torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)
        assert layer.step == step
        assert not layer.collector.pending
        assert optimizer.skipped_steps == 0  # the scaler's own business, until it has found its scale

    @pytest.mark.parametrize("base", BASES)
    def test_a_model_that_changes_its_precision_takes_everything_along(self, base):
        model = network(dtype=torch.float32)
        optimizer = SNGD(model, PLAIN, lr=1e-2, **BASES[base])
        steps(model, optimizer, batches(7, torch.float32))
        model.double()
        steps(model, optimizer, batches(7))
        held = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        held += [t for layer in optimizer.layers.values() for t in layer.buffers()]
        assert {t.dtype for t in held} == {torch.float64}
        model.bfloat16()
        steps(model, optimizer, batches(7, torch.bfloat16))
        assert {t.dtype for layer in optimizer.layers.values() for t in layer.buffers()} == {torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert all(bool(p.isfinite().all()) for p in model.parameters())

    @pytest.mark.parametrize("name", ["input-cholesky", "input-nystrom-2", "diagonal"])
    def test_a_reconstruction_changes_its_precision(self, name):
        rebuilt = reconstruct(network(dtype=torch.float32), settings(name))
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3), batches(7, torch.float32))
        x = batches(1)[0][0]
        single = rebuilt(x.float())
        rebuilt.double()
        torch.testing.assert_close(rebuilt(x), single.double(), rtol=1e-4, atol=1e-5)
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-3), batches(7))
        rebuilt.bfloat16()
        optimizer = torch.optim.SGD(rebuilt.parameters(), lr=1e-3, momentum=0.9)
        steps(rebuilt, optimizer, batches(14, torch.bfloat16))
        assert {t.dtype for t in rebuilt[0].fishers[0].buffers()} == {torch.float32}
        assert {p.dtype for p in restore(rebuilt).parameters()} == {torch.bfloat16}
        assert bool(rebuilt(x.bfloat16()).isfinite().all())

    @pytest.mark.parametrize("base", BASES)
    def test_resume_in_bfloat16_is_bit_exact(self, base):
        """torch's own `load_state_dict` would round the momentum, kept in float32, to bfloat16."""
        data, model = batches(20, torch.bfloat16), network(dtype=torch.bfloat16)
        optimizer = SNGD(model, PLAIN, lr=1e-2, **BASES[base])
        steps(model, optimizer, data[:9])
        saved = on_disk(model, optimizer)
        again = network(seed=3, dtype=torch.bfloat16)
        resumed = SNGD(again, PLAIN, lr=1e-2, **BASES[base])
        again.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        steps(model, optimizer, data[9:])
        steps(again, resumed, data[9:])
        assert same(model, again)


class MetaNumbers(TorchDispatchMode):
    """Tensors on ``meta`` have no numbers; whoever asks for one here is told 1, or that it holds."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        meta = bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_meta
        if meta and function is torch.ops.aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if meta and function is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return function(*args, **kwargs)


@pytest.fixture
def _parameters_that_stay():
    """As between CPU and GPU, where torch moves a parameter's data and keeps the parameter."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def moved(data, device):
    return [(x.to(device), y.to(device)) for x, y in data]


def tensors_of(model, optimizer):
    """All that belongs to a training run."""
    states = [
        t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor) and t.dim()
    ]
    layers = optimizer.layers.values() if isinstance(optimizer, SNGD) else ()
    return [*states, *model.parameters(), *model.buffers(), *(t for layer in layers for t in layer.buffers())]


@pytest.mark.usefixtures("_parameters_that_stay")
class TestDevice:
    """To ``meta``, which every machine has: an operation that mixes devices fails there as on a GPU."""

    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("name", ["diagonal", "input-nystrom-2", "input-nystrom"])
    def test_a_model_that_moves_takes_everything_along_and_trains_there(self, name, base):
        model = network()
        optimizer = SNGD(model, settings(name), lr=1e-2, **BASES[base])
        steps(model, optimizer, batches(7))
        optimizer.zero_grad()
        before = [layer.refreshes for layer in optimizer.layers.values()]
        model.to("meta")
        with MetaNumbers():
            steps(model, optimizer, moved(batches(14), "meta"))
        assert {t.device.type for t in tensors_of(model, optimizer)} == {"meta"}
        assert all(layer.refreshes > n for layer, n in zip(optimizer.layers.values(), before, strict=True))

    @pytest.mark.parametrize("name", ["diagonal", "input-nystrom-2"])
    def test_so_does_a_reconstruction(self, name):
        rebuilt = reconstruct(network(), settings(name))
        steps(rebuilt, torch.optim.SGD(rebuilt.parameters(), lr=1e-2), batches(7))
        rebuilt.zero_grad()
        rebuilt.to("meta")
        optimizer = torch.optim.SGD(rebuilt.parameters(), lr=1e-2, momentum=0.9)  # torch's own state stays behind
        with MetaNumbers():
            steps(rebuilt, optimizer, moved(batches(14), "meta"))
            restored = restore(rebuilt)
        assert {t.device.type for t in tensors_of(rebuilt, optimizer)} == {"meta"}
        assert {p.device.type for p in restored.parameters()} == {"meta"}

    @pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")  # there are no numbers to copy
    def test_a_checkpoint_goes_to_the_device_of_the_model_that_loads_it(self):
        model = network()
        optimizer = SNGD(model, settings("diagonal"), lr=1e-2, base="sgd")
        steps(model, optimizer, batches(7))
        twin = network().to("meta")
        resumed = SNGD(twin, settings("diagonal"), lr=1e-2, base="sgd")
        resumed.load_state_dict(on_disk(optimizer)[0])
        assert {t.device.type for t in tensors_of(twin, resumed)} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
class TestCuda:
    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("name", ["diagonal", "input-eigh", "input-nystrom-2"])
    def test_training_there_and_back_is_training_here(self, name, base):
        here, model, data = network(), network(), batches(30)
        expected = SNGD(here, settings(name), lr=1e-3, **BASES[base])
        steps(here, expected, data)
        optimizer = SNGD(model, settings(name), lr=1e-3, **BASES[base])
        steps(model, optimizer, data[:10])
        model.cuda()
        steps(model, optimizer, moved(data[10:20], "cuda"))
        assert {t.device.type for t in tensors_of(model, optimizer)} == {"cuda"}
        model.cpu()
        steps(model, optimizer, data[20:])
        assert {t.device.type for t in tensors_of(model, optimizer)} == {"cpu"}
        assert relative_difference(model, here) < 1e-7
