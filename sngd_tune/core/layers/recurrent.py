"""`nn.RNN`, `nn.GRU`, `nn.LSTM` and their cells: ``s = W_ih x_t + W_hh h_{t−1}``, the gates side by side in ``d_out``.

Torch runs a whole stack in one call and shows the states of its last layer only. On statistics batches the states of
the layers below are computed again, layer by layer and without a graph: the training step itself stays as it is, bit
for bit. (Measured on two layers of 256, 35 steps of 20 sequences, one thread: 14 ms beside a step of 105 ms.) Dropout
between layers gets the same masks again on the CPU, where it draws from torch's global generator, and masks of its own
elsewhere (cuDNN keeps its generator to itself); the global generators stay where they are.

The gradients of ``s`` stay inside torch's call, so granularities that need them are not offered here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sngd_tune.core.inputs import Rows
from sngd_tune.core.layers.base import LayerKind, Seen, Shape, Site
from sngd_tune.core.layers.linear import MatrixSite
from sngd_tune.core.operators import Parts
from sngd_tune.core.sequences import Steps

__all__ = ["RecurrentCellKind", "RecurrentKind"]


def _directions(module: Any) -> tuple[str, ...]:
    """How torch marks the parameters of each direction."""
    return ("", "_reverse") if module.bidirectional else ("",)


def _site(module: nn.Module, part: str, suffix: str) -> Site:
    """The site of ``weight_<part><suffix>``, which has a bias unless it is a projection."""
    weight: Tensor = getattr(module, f"weight_{part}{suffix}")
    bias = hasattr(module, f"bias_{part}{suffix}") and getattr(module, f"bias_{part}{suffix}") is not None
    names = (f"weight_{part}{suffix}", f"bias_{part}{suffix}")[: 1 + bias]
    shape = Shape((), weight.shape[0], weight.shape[1] + bias)
    return MatrixSite(f"{part}{suffix}", names, shape, gradients=False)


def _hidden(inputs: Rows) -> Seen:
    """What is seen of a site whose ``s`` is not."""
    return Seen(inputs, None, lambda gradient: gradient)


class RecurrentKind(LayerKind):
    """`nn.RNN`, `nn.GRU` and `nn.LSTM`: stacked, in both directions, padded or packed, projected.

    Sites are ``ih_l0`` (inputs ``x_t``, from the second layer on the states of the layer below), ``hh_l0`` (inputs
    ``h_{t−1}``) and, with a projection, ``hr_l0`` (inputs ``o_t ⊙ tanh c_t``); then the same with ``_reverse``, and for
    each layer. Examples are the sequences, positions their own steps: padding of a packed sequence never counts.
    """

    modules = (nn.RNN, nn.GRU, nn.LSTM)

    def sites(self, module: Any) -> Sequence[Site]:
        parts = ("ih", "hh", "hr") if module.proj_size else ("ih", "hh")
        suffixes = [f"_l{layer}{way}" for layer in range(module.num_layers) for way in _directions(module)]
        return [_site(module, part, suffix) for suffix in suffixes for part in parts]

    def watch(self, module: Any) -> AbstractContextManager[Any]:
        """The state of the global generator before dropout draws from it, where it does."""
        return nullcontext(torch.get_rng_state() if module.num_layers > 1 and module.dropout > 0 else None)

    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        call = _Call(module, *args, **kwargs)
        ways, seen = len(_directions(module)), []
        for layer, (x, states) in enumerate(call.layers(call.flat(output[0]), record)):
            inputs = call.steps.rows(x, module.bias)
            for way, h in enumerate(states.chunk(ways, dim=-1)):
                place = layer * ways + way
                seen += [_hidden(inputs), _hidden(call.before(h, place))]
                if module.proj_size:
                    seen.append(_hidden(call.unprojected(x, h, place)))
        return seen


class RecurrentCellKind(LayerKind):
    """`nn.RNNCell`, `nn.GRUCell` and `nn.LSTMCell`: one time step a call.

    The calls of one optimizer step are averaged, as the steps of a sequence are. Each of them has one position an
    example, so that ``sharing="reduce"`` changes nothing, and ``positions`` counts within a call.
    """

    modules = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)

    def sites(self, module: Any) -> Sequence[Site]:
        return [_site(module, part, "") for part in ("ih", "hh")]

    def seen(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, record: Any
    ) -> Sequence[Seen]:
        return [_hidden(inputs) for inputs in self._inputs(module, *args, **kwargs)]

    def _inputs(self, module: Any, input: Tensor, hx: Any = None) -> Iterator[Rows]:
        h = input.new_zeros(*input.shape[:-1], module.hidden_size) if hx is None else hx
        yield Rows.of(input, module.bias)
        yield Rows.of(h[0] if isinstance(module, nn.LSTMCell) and hx is not None else h, module.bias)


class _Call:
    """One call of a recurrent module, its arguments as torch brings them into order.

    Attributes:
        steps: of the sequences.
        x: the input, ``[n, input_size]`` in the order of `steps`.
        first: the states before all steps, ``[layers · directions, sequences, width]``: ``(h0, c0)`` or ``(h0,)``.
    """

    def __init__(self, module: Any, input: Any, hx: Any = None):
        self._module, self._dtype = module, module.all_weights[0][0].dtype
        packed = isinstance(input, PackedSequence)
        if packed:
            self.steps = Steps(input.batch_sizes, input.data.device)
        else:
            batched = input if input.dim() == 3 else input.unsqueeze(0 if module.batch_first else 1)
            sequences, steps = batched.shape[:2] if module.batch_first else batched.shape[1::-1]
            self.steps = Steps(torch.full((steps,), sequences), input.device)
        self.x = self.flat(input)
        self.first = self._first(hx, input.sorted_indices if packed else None)

    def flat(self, x: Any) -> Tensor:
        """Input or output of the module in the order of `steps`, ``[n, width]``, in the precision of its weights.

        (Under autocast they come in another one.)
        """
        if isinstance(x, PackedSequence):
            return x.data.detach().to(self._dtype)
        x = x.detach().to(self._dtype)
        if x.dim() == 3 and self._module.batch_first:
            x = x.transpose(0, 1)
        return x.reshape(-1, x.shape[-1])

    def _first(self, hx: Any, order: Tensor | None) -> Parts:
        module = self._module
        if hx is None:
            count, sequences = len(module.all_weights), self.steps.sequences
            widths = (module.proj_size or module.hidden_size, module.hidden_size)[: 1 + isinstance(module, nn.LSTM)]
            return tuple(self.x.new_zeros(count, sequences, width) for width in widths)
        states = tuple(h.to(self._dtype) for h in (hx if isinstance(module, nn.LSTM) else (hx,)))
        states = tuple(state.detach() if state.dim() == 3 else state.detach().unsqueeze(1) for state in states)
        return states if order is None else tuple(state.index_select(1, order) for state in states)

    def layers(self, output: Tensor, random_state: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Inputs and states ``[n, directions · width]`` of each layer.

        Args:
            output: the states of the last layer.
            random_state: of the CPU's generator before the module's own dropout, None where it has none.
        """
        device, layers, x = self.x.device, [], self.x
        with _forked(device) if random_state is not None else nullcontext():
            if random_state is not None:
                torch.set_rng_state(random_state)
            for number in range(self._module.num_layers - 1):
                layers.append((x, self._run(number, x)))
                x = layers[-1][1]
                if random_state is not None:
                    x = torch.nn.functional.dropout(x, self._module.dropout)
        return [*layers, (x, output)]

    def _run(self, number: int, x: Tensor) -> Tensor:
        """The states of a layer on its inputs ``x: [n, width]``."""
        ways = len(_directions(self._module))
        places = slice(number * ways, (number + 1) * ways)
        weights = [weight.detach() for group in self._module.all_weights[places] for weight in group]
        single = _single_layer(self._module, x, weights)
        first = tuple(state[places] for state in self.first)
        states: Tensor | PackedSequence = single(self.steps.arranged(x), first if len(first) > 1 else first[0])[0]
        return states.data if isinstance(states, PackedSequence) else states.flatten(0, 1)

    def before(self, h: Tensor, place: int) -> Rows:
        """``h_{t−1}`` for the states ``h: [n, width]`` of the layer and direction number `place`."""
        return self.steps.states_before(h, self.first[0][place], reverse=self._backward(place), bias=self._module.bias)

    def unprojected(self, x: Tensor, h: Tensor, place: int) -> Rows:
        """``o_t ⊙ tanh c_t``, what the projection of an LSTM is applied to: all else in its equations is known."""
        w_ih, w_hh, *biases, _ = (weight.detach() for weight in self._module.all_weights[place])
        gates = x @ w_ih.mT + sum(biases)
        last, cell = (state[place].to(h.dtype, copy=True) for state in self.first)
        hidden = h.new_empty(len(h), self._module.hidden_size)
        for start, size in self.steps.spans(reverse=self._backward(place)):
            rows = slice(start, start + size)
            i, f, g, o = (gates[rows] + last[:size] @ w_hh.mT).chunk(4, dim=-1)
            cell[:size] = f.sigmoid() * cell[:size] + i.sigmoid() * g.tanh()
            hidden[rows] = o.sigmoid() * cell[:size].tanh()
            last[:size] = h[rows]
        return self.steps.rows(hidden, bias=False)

    def _backward(self, place: int) -> bool:
        return bool(self._module.bidirectional) and place % 2 == 1


def _single_layer(module: Any, x: Tensor, weights: list[Tensor]) -> nn.RNNBase:
    """A layer of a stack as a module of its own, with copies of its weights as cuDNN wants them: in one piece."""
    options: dict[str, Any] = {"bias": module.bias, "bidirectional": module.bidirectional}
    if isinstance(module, nn.LSTM):
        options["proj_size"] = module.proj_size
    elif isinstance(module, nn.RNN):
        options["nonlinearity"] = module.nonlinearity
    dtype = weights[0].dtype
    single: nn.RNNBase = type(module)(x.shape[-1], module.hidden_size, **options, device="meta", dtype=dtype)
    single.to_empty(device=x.device)  # from "meta", so that no random number is drawn
    for parameter, weight in zip(single.parameters(), weights, strict=True):
        parameter.copy_(weight)
    return single


def _forked(device: torch.device) -> AbstractContextManager[Any]:
    """Within it random numbers may be drawn; afterwards the global generators are where they were."""
    return torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type)
