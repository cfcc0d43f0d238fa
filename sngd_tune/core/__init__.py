"""The numerics of structured natural gradient descent (SNGD). Torch only.

Sources: Liu et al., *Reconstructing Deep Neural Networks* (arXiv 2412.07441); Liu and Liu (arXiv 2109.10100);
Amari 1998 (natural gradient); Benzing 2022 (the input-side factor); Martens and Grosse 2015 (K-FAC).

Conventions, used by every module here:

======== ================ =====================================================================================
symbol   shape            meaning
======== ================ =====================================================================================
``a``    ``[n, d]``       inputs of a layer, a final 1 appended where it has a bias; ``n`` = batch × positions
``W``    ``[d_out, d]``   weight, the bias as its last column
``G``    ``[..., d, d]``  local Fisher matrix: the bias-corrected moving average of ``E[a aᵀ]``
``λ``    ``[]``           damping: ``relative · mean(diag G) + absolute``
``R``    ``[..., d, d]``  any root with ``R Rᵀ = (G + λI)⁻¹``
``W′``   ``[d_out, d]``   ``W R⁻ᵀ``: the weight behind the local Fisher layer ``a ↦ Rᵀ a``
======== ================ =====================================================================================

While ``R`` is held, gradient descent on ``W′`` moves ``W = W′ Rᵀ`` by ``−η ∇_W (G + λI)⁻¹``: natural gradient descent
on ``W``. Matrices act on rows here (``x R`` for ``x: [..., n, d]``), and all of them take leading batch dimensions.

The parts, from the data to the step: `layers` (one file a kind) say what a forward pass showed, as `inputs`,
`patches`, `tokens` or `sequences`; `observers` and `outputs` bring it to a layer's `collector`; `estimates` keep ``G``;
`roots` and `nystrom` compute ``R``; `operators` apply it; `local_fisher` puts them behind a `schedule` and its `clock`,
with `damping`. `guard` looks at the gradients, `bases` are the base optimizers, `bounds` limit their steps, and
`optimizer` is `SNGD` over what is `trained`. `account` says which parameters get a local Fisher layer, `memory` what
that takes, `diagnostics` how they stand; `distributed` keeps ranks alike. `dense` holds the slow, obvious references
that the tests hold on to.
"""
