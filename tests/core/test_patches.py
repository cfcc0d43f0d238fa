"""`Patches` over drawn geometries, precisions and chunk sizes; every form of a layer is in `test_layer_kinds`."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sngd_tune.core import patches
from sngd_tune.core.inputs import Rows
from sngd_tune.core.patches import Kernel, Patches


@st.composite
def batches(draw, dtype=torch.float64):
    """A kernel of 1 to 3 dimensions and an input that it fits in."""
    axes = draw(st.integers(1, 3))
    each = [(draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))) for _ in range(axes)]
    size, stride, dilation = (tuple(values) for values in zip(*each, strict=True))
    space = [d * (k - 1) + 1 + draw(st.integers(0, 4)) for k, _, d in each]
    groups = draw(st.integers(1, 3))
    kernel = Kernel(size, stride, dilation, groups, draw(st.booleans()))
    shape = (draw(st.integers(1, 4)), groups * draw(st.integers(1, 3)), *space)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return Patches(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype), kernel)


@hypothesis_settings(deadline=None)
@given(batches())
def test_every_statistic_is_that_of_the_rows(inputs):
    a = inputs.rows()
    reference = Rows(a, inputs.examples)
    assert a.shape[-2] == inputs.count
    basis = torch.randn(*a.shape[:-2], a.shape[-1], 2, dtype=torch.float64)
    index = torch.randint(inputs.count, (5,))
    torch.testing.assert_close(inputs.diagonal(), reference.diagonal())
    torch.testing.assert_close(inputs.squared_norm(), reference.squared_norm())
    torch.testing.assert_close(inputs.sketch(basis), reference.sketch(basis))
    torch.testing.assert_close(inputs.reduced().rows(), reference.reduced().rows())
    assert torch.equal(inputs.take(index).rows(), reference.take(index).rows())


@hypothesis_settings(deadline=None)
@given(batches(), st.integers(1, 4000))
def test_chunks_are_the_rows_in_order_below_the_cap(inputs, cap):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "_CHUNK", cap)
        chunks = list(inputs.chunks())
    rows = inputs.rows()
    assert torch.equal(torch.cat(chunks, dim=-2), rows)
    line = rows[..., : inputs.count // inputs.examples // first_outputs(inputs), :]
    bias = rows.shape[-1] / max(rows.shape[-1] - 1, 1)
    assert max(chunk.numel() * 8 for chunk in chunks) <= max(cap * bias, line.numel() * 8)


def first_outputs(inputs):
    """Output positions along the first dimension of space: what lies across it is never cut."""
    return inputs._outputs[0]


@hypothesis_settings(deadline=None)
@given(batches(dtype=torch.float32))
def test_single_precision_stays_single(inputs):
    a = inputs.rows()
    assert a.dtype == inputs.diagonal().dtype == inputs.sketch(torch.ones(*a.shape[:-2], a.shape[-1], 1)).dtype
    assert inputs.to(torch.float32) is inputs
    assert inputs.to(torch.float64).rows().dtype == torch.float64


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_found(value):
    kernel = Kernel((2,), (1,), (1,), 1, False)
    x = torch.zeros(2, 1, 3)
    assert Patches(x, kernel).is_finite()
    x[1, 0, 2] = value
    assert not Patches(x, kernel).is_finite()


def test_no_example_leaves_no_rows():
    inputs = Patches(torch.empty(0, 2, 4), Kernel((2,), (1,), (1,), 1, True))
    assert inputs.count == 0
    assert list(inputs.chunks()) == [] or all(chunk.shape[-2] == 0 for chunk in inputs.chunks())
    assert inputs.rows().shape == (0, 5)
