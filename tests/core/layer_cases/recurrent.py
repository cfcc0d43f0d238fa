"""`nn.RNN`, `nn.GRU` and `nn.LSTM` in every form, and cells that a model runs over time."""

import torch
from torch import Tensor, nn

from tests.core.layer_cases.base import Case, draw, seeded, squared_error

__all__ = ["naive_rows"]

SEQUENCES, STEPS, INPUTS, HIDDEN = 3, 4, 3, 4


def _gates(x, h, w_ih, w_hh, b_ih=0.0, b_hh=0.0):
    return w_ih @ x + b_ih, w_hh @ h + b_hh


def step(module, weights, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """One step of one sequence by the equations of torch's documentation: h, c, and what a projection is applied to."""
    projection = weights[-1] if getattr(module, "proj_size", 0) else None
    inner, outer = _gates(x, h, *(weights if projection is None else weights[:-1]))
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return (inner + outer).tanh() if module.nonlinearity == "tanh" else (inner + outer).relu(), c, None
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        (ir, iz, inew), (hr, hz, hnew) = inner.chunk(3), outer.chunk(3)
        r, z = (ir + hr).sigmoid(), (iz + hz).sigmoid()
        return (1 - z) * (inew + r * hnew).tanh() + z * h, c, None
    i, f, g, o = (inner + outer).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h, c, None) if projection is None else (projection @ h, c, h)


def naive_rows(
    module, sequences: list[Tensor], h0: Tensor | None = None, c0: Tensor | None = None
) -> dict[str, Tensor]:
    """The rows of each site for sequences ``[steps, input_size]``, one at a time, and the module's ``"output"``."""
    ways = ("", "_reverse") if module.bidirectional else ("",)
    one = sequences[0].new_ones(1 if module.bias else 0)
    rows: dict[str, list[Tensor]] = {}
    for layer in range(module.num_layers):
        above = []
        for n, sequence in enumerate(sequences):
            states = []
            for way, reverse in enumerate(ways):
                place, suffix = layer * len(ways) + way, f"_l{layer}{reverse}"
                h = h0[place, n] if h0 is not None else one.new_zeros(module.proj_size or module.hidden_size)
                c = c0[place, n] if c0 is not None else one.new_zeros(module.hidden_size)
                seen = []
                for x in sequence.flip(0) if reverse else sequence:
                    before = h
                    h, c, unprojected = step(module, module.all_weights[place], x, h, c)
                    seen.append((torch.cat((x, one)), torch.cat((before, one)), h, unprojected))
                seen = seen[::-1] if reverse else seen
                parts = ("ih", "hh", "hr") if module.proj_size else ("ih", "hh")
                for part, column in zip(parts, (0, 1, 3), strict=False):
                    rows.setdefault(part + suffix, []).extend(each[column] for each in seen)
                states.append(torch.stack([each[2] for each in seen]))
            above.append(torch.cat(states, 1))
        sequences = above
    return {**{name: torch.stack(each) for name, each in rows.items()}, "output": torch.cat(sequences)}


def _loss(output) -> Tensor:
    return squared_error(output[0] if isinstance(output, tuple) else output)


def _case(name, make, states: int = 0, time_first: bool = False):
    """A module on sequences of one length; `states` is how many initial states it is given."""

    def data(seed):
        module = make()
        x = draw(SEQUENCES, STEPS, INPUTS, seed=seed)
        ways = 2 if module.bidirectional else 1
        widths = (module.proj_size or module.hidden_size, module.hidden_size)[:states]
        hx = tuple(draw(module.num_layers * ways, SEQUENCES, w, seed=seed + 1) for w in widths)
        x = x.transpose(0, 1).contiguous() if time_first else x
        return (x, hx if isinstance(module, nn.LSTM) else hx[0]) if hx else (x,)

    def rows(module, args):
        x = args[0].transpose(0, 1) if time_first else args[0]
        hx = args[1] if len(args) > 1 else ()
        written = naive_rows(module, list(x), *(hx if isinstance(hx, tuple) else (hx,)))
        del written["output"]
        return written

    return Case(name, seeded(make), data, rows, examples=SEQUENCES, loss=_loss)


def _unbatched_rows(module, args):
    written = naive_rows(module, [args[0]])
    del written["output"]
    return written


def _cell_once(name, cell, given):
    """A cell called once with a given state, or with none."""

    def data(seed):
        module = cell()
        x, h, c = (draw(SEQUENCES, width, seed=seed + i) for i, width in enumerate((INPUTS, HIDDEN, HIDDEN)))
        return (x, (h, c) if isinstance(module, nn.LSTMCell) else h) if given else (x,)

    def rows(module, args):
        h = args[1] if given else draw(SEQUENCES, HIDDEN, seed=0) * 0
        h = h[0] if isinstance(h, tuple) else h
        one = h.new_ones(SEQUENCES, int(module.bias))
        return {"ih": torch.cat((args[0], one), 1), "hh": torch.cat((h, one), 1)}

    return Case(name, seeded(cell), data, rows, examples=SEQUENCES, loss=_loss)


CASES = [
    _case("rnn-tanh", lambda: nn.RNN(INPUTS, HIDDEN), time_first=True),
    _case("rnn-relu-stack", lambda: nn.RNN(INPUTS, HIDDEN, 2, nonlinearity="relu", batch_first=True), states=1),
    _case("gru-both-ways", lambda: nn.GRU(INPUTS, HIDDEN, 2, bidirectional=True, batch_first=True), states=1),
    _case("gru-no-bias", lambda: nn.GRU(INPUTS, HIDDEN, 3, bias=False), time_first=True),
    _case("lstm", lambda: nn.LSTM(INPUTS, HIDDEN, batch_first=True)),
    _case("lstm-both-ways", lambda: nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True, batch_first=True), states=2),
    _case("lstm-no-bias", lambda: nn.LSTM(INPUTS, HIDDEN, 2, bias=False, batch_first=True), states=2),
    Case(
        "lstm-unbatched",
        seeded(lambda: nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True, batch_first=True)),
        lambda seed: (draw(STEPS, INPUTS, seed=seed),),
        _unbatched_rows,
        examples=1,
        loss=lambda output: _loss(output[0][None]),
    ),
    _cell_once("rnn-cell", lambda: nn.RNNCell(INPUTS, HIDDEN), given=True),
    _cell_once("gru-cell", lambda: nn.GRUCell(INPUTS, HIDDEN, bias=False), given=True),
    _cell_once("lstm-cell", lambda: nn.LSTMCell(INPUTS, HIDDEN), given=True),
]
