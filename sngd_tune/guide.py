"""User's guide: structured natural gradient descent in a training script that exists already.

`SNGD` is an ordinary `torch.optim.Optimizer`. It takes the model instead of its parameters, because it looks at what
goes into each layer. The model stays as it is, and so does the rest of the script. The change is:

1. ``from sngd_tune import SNGD``
2. ``optimizer = SNGD(model, lr=…)`` where it said ``torch.optim.AdamW(model.parameters(), lr=…)``, and
   ``SNGD(model, lr=…, momentum=…)`` where it said ``torch.optim.SGD(model.parameters(), lr=…, momentum=…)``
3. nothing else.

On the first, AdamW runs in the coordinates of the reconstruction: the default, as untuned it trains most kinds of
models better than SGD does there (``sngd-tune bench convergence``). Without ``lr`` it is 1e-3.

The first three calls of `step` only collect statistics (``warmup_batches``). Weight decay is decoupled, as AdamW's is.
This page is a doctest: all of it runs, but for the two lines on data-parallel training. It needs torch alone.

A convolutional network with batch norm
---------------------------------------

>>> import torch
>>> from torch import nn
>>> from torch.nn.functional import avg_pool2d, cross_entropy
>>> from sngd_tune import SNGD                                                        # 1
>>> _ = torch.manual_seed(0)
>>> images = torch.randn(512, 1, 12, 12)
>>> labels = avg_pool2d(images, 6).flatten(1).argmax(1)                               # the brightest quarter
>>> def network():
...     return nn.Sequential(
...         nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
...         nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(3),
...         nn.Flatten(), nn.Linear(64, 4))
>>> model = network()
>>> # was: optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
>>> optimizer = SNGD(model, lr=0.05, momentum=0.9)                                    # 2
>>> losses = []
>>> for epoch in range(8):
...     for batch in torch.randperm(512).split(64):
...         optimizer.zero_grad()
...         loss = cross_entropy(model(images[batch]), labels[batch])
...         loss.backward()
...         optimizer.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0]
True

With SGD for a base, learning rate and momentum mean what they meant before: each layer's natural gradient gets the
length of its gradient (``step_bound="graft"``), so begin with the values you have. What has no local Fisher layer, such
as batch norm, trains with plain SGD; `SNGD.account` lists each parameter once, and why:

>>> for entry in optimizer.account[:2]:
...     print(entry.parameter, "|", entry.treatment, "|", entry.reason)
0.weight | local Fisher | input, nystrom, rank 16, every 50
1.weight | plain | no local Fisher layer for BatchNorm2d

An LSTM language model with gradient clipping and a schedule
------------------------------------------------------------

>>> text = "a rose is a rose is a rose, and what is not a rose is not a rose. " * 30
>>> symbols = sorted(set(text))
>>> tokens = torch.tensor([symbols.index(symbol) for symbol in text]).view(-1, 33)     # 60 lines
>>> class Language(nn.Module):
...     def __init__(self, width=32):
...         super().__init__()
...         self.embedding = nn.Embedding(len(symbols), width)
...         self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
...         self.head = nn.Linear(width, len(symbols))
...     def forward(self, tokens):
...         return self.head(self.lstm(self.embedding(tokens))[0])
>>> model = Language()
>>> # was: optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
>>> optimizer = SNGD(model, lr=0.5, momentum=0.9)
>>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
>>> losses = []
>>> for epoch in range(20):
...     for lines in tokens.split(20):
...         optimizer.zero_grad()
...         loss = cross_entropy(model(lines[:, :-1]).flatten(0, 1), lines[:, 1:].flatten())
...         loss.backward()
...         _ = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
...         optimizer.step()
...         scheduler.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0]
True

A transformer, on AdamW
-----------------------

AdamW is the base where none is named and no momentum given. Good learning rates lie at or below plain AdamW's
where inputs are about 1 in size, and go with that size and with the damping. With ``FisherSettings(root_scale="unit")``
they go with neither: ``lr`` means what it means for plain AdamW; begin with 4e-3.

>>> class Transformer(nn.Module):
...     def __init__(self, width=32, length=32):
...         super().__init__()
...         self.embedding, self.position = nn.Embedding(len(symbols), width), nn.Embedding(length, width)
...         layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
...         self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
...         self.head = nn.Linear(width, len(symbols))
...     def forward(self, tokens):
...         x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
...         mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
...         return self.head(self.encoder(x, mask=mask, is_causal=True))
>>> model = Transformer()
>>> # was: optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
>>> optimizer = SNGD(model, lr=3e-3, weight_decay=1e-2)
>>> losses = []
>>> for epoch in range(10):
...     for lines in tokens.split(20):
...         optimizer.zero_grad()
...         loss = cross_entropy(model(lines[:, :-1]).flatten(0, 1), lines[:, 1:].flatten())
...         loss.backward()
...         optimizer.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0]
True

Save and resume
---------------

States hold tensors and numbers only, so torch's safe loader takes them. Build model and optimizer with the same
settings, then load; training goes on bit for bit. Checkpoints of another optimizer are refused.

>>> import io
>>> file = io.BytesIO()                                                               # a path, in a script
>>> torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
>>> _ = file.seek(0)                                                                  # not with a path
>>> saved = torch.load(file, weights_only=True)
>>> resumed = Transformer()
>>> again = SNGD(resumed, lr=3e-3, weight_decay=1e-2)
>>> _ = resumed.load_state_dict(saved["model"])
>>> again.load_state_dict(saved["optimizer"])
>>> for each, its in ((model, optimizer), (resumed, again)):
...     its.zero_grad()
...     cross_entropy(each(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
...     its.step()
>>> all(map(torch.equal, model.parameters(), resumed.parameters()))
True

Mixed precision, accumulated gradients, compiled models
-------------------------------------------------------

All three are used as ever, here together. Statistics stay in float32 under autocast. Several backward passes before one
step are one batch to the statistics, too. Of a compiled model, steps that take statistics (one in 25 by default) run
eagerly, all others as one graph.

>>> model = torch.compile(network(), backend="aot_eager")                             # leave backend out
>>> optimizer = SNGD(model, lr=0.05, momentum=0.9)
>>> scaler = torch.amp.GradScaler("cpu")                                              # or "cuda"
>>> losses = []
>>> for epoch in range(8):
...     for batch in torch.randperm(512).split(64):
...         optimizer.zero_grad()
...         for part in batch.split(32):
...             with torch.autocast("cpu", dtype=torch.bfloat16):                     # the scaler is for float16
...                 loss = cross_entropy(model(images[part]), labels[part])
...             scaler.scale(loss / 2).backward()
...         scaler.step(optimizer)
...         scaler.update()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0]
True

Data-parallel training: wrap the model first, then give `SNGD` what you wrapped. The ranks average their statistics and
share out the work of the roots, so all of them hold the same state, and one rank's checkpoint is complete::

    model = nn.parallel.DistributedDataParallel(network())
    optimizer = SNGD(model)

Settings, for all layers or layer by layer
------------------------------------------

`FisherSettings` says how much of a layer's Fisher matrix is kept, how it is inverted, and how often:
``help("sngd_tune.FisherSettings")``. A mapping gives each layer the first that matches its name. Only what is matched
gets a local Fisher layer.

>>> from sngd_tune import FisherSettings
>>> settings = {
...     "0": FisherSettings(granularity="block:channel"),
...     "*": FisherSettings(granularity="kron", fisher="sampled", relative_damping=0.1, fisher_interval=20)}
>>> model = network()
>>> optimizer = SNGD(model, settings, lr=0.05, momentum=0.9)
>>> {entry.parameter: entry.reason for entry in optimizer.account if entry.treatment == "local Fisher"}["9.weight"]
'kron, cholesky, every 20'

``"unit"``, ``"kron"`` and ``"layer"`` also use the gradients of a layer's outputs: those of the training step
(``fisher="empirical"``, the default), or of targets that the model itself draws (``"sampled"``, ``"exact"``): the true
Fisher matrix. For that the optimizer has to see the outputs, and to know the likelihood whose negative logarithm the
loss is: ``"softmax"`` (cross-entropy), ``"gaussian"`` (``½ ‖y − f‖²``) or ``"bernoulli"``. One line more:

>>> losses = []
>>> for epoch in range(8):
...     for batch in torch.randperm(512).split(64):
...         optimizer.zero_grad()
...         outputs = model(images[batch])
...         optimizer.observe_outputs(outputs, "softmax")                             # before loss.backward()
...         loss = cross_entropy(outputs, labels[batch])
...         loss.backward()
...         optimizer.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0]
True

Look inside
-----------

Diagnostics are computed when asked for. A ``damping_share`` near 1 says that the natural gradient is hardly more than
the gradient there: lower ``relative_damping``. A large ``drift`` says that ``G`` has moved far since the last refresh:
shorten ``fisher_interval``.

>>> layer = optimizer.diagnostics().layers[-1]
>>> layer.name, layer.granularity, layer.condition_number > 1, 0 < layer.damping_share < 1, layer.root_failures
('9', 'kron', True, True, 0)

Memory is predicted from shapes, before anything is allocated; what will not fit is refused with the figures.

>>> from sngd_tune import predicted_memory
>>> with torch.device("meta"):
...     large = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000))
>>> for granularity in ("input", "kron"):
...     layers = predicted_memory(large, FisherSettings(granularity=granularity)).values()
...     kept, peak = sum(layer.kept for layer in layers), max(layer.peak for layer in layers)
...     print(f"{granularity}: {kept >> 20} MiB, and {peak >> 20} MiB more in a refresh")
input: 2 MiB, and 1 MiB more in a refresh
kron: 587 MiB, and 512 MiB more in a refresh

Settings chosen for you
-----------------------

`select_settings` trains a copy of the model for a moment on its own batches, measures what each layer could gain and
what that would cost on this device, and chooses: granularity, rank, damping and intervals layer by layer, and a
learning rate. The model itself stays as it is. `step_budget` limits the time of a step, over plain SGD's, and
`memory_budget` the bytes; without them it is the fastest progress that is sought.

>>> from sngd_tune import select_settings
>>> model = nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.Tanh(), nn.Linear(16, 4))
>>> batches = list(zip(images.split(64), labels.split(64)))                           # or a DataLoader
>>> chosen = select_settings(model, cross_entropy, batches, steps=64, seconds=5)      # training will have 64 steps
>>> optimizer = SNGD(model, chosen, **chosen.optimizer)
>>> losses = []
>>> for epoch in range(8):
...     for inputs, targets in batches:
...         optimizer.zero_grad()
...         loss = cross_entropy(model(inputs), targets)
...         loss.backward()
...         optimizer.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0]
True

``chosen.record`` has what was measured, and why each layer got what it got; ``chosen.save("auto.yaml")`` writes all of
it (with the extra ``tune``), with the lines that train from the file. The learning rate is the peak of a schedule,
``chosen.record.lr_schedule``, that `sngd_tune.lr_schedule.LrSchedule` sets.

>>> [choice.layer for choice in chosen.record.layers], chosen.record.step.ratio > 1
(['1', '3'], True)

Any other optimizer: the explicit form
--------------------------------------

`reconstruct` gives a copy of the model with the local Fisher layers in it. Any optimizer of torch then does natural
gradient descent on it, and `restore` gives the original classes back, for serving.

>>> from sngd_tune import diagnostics, reconstruct, restore
>>> rebuilt = reconstruct(network(), FisherSettings(root="eigh"))
>>> optimizer = torch.optim.NAdam(rebuilt.parameters(), lr=3e-3)
>>> losses = []
>>> for epoch in range(8):
...     for batch in torch.randperm(512).split(64):
...         optimizer.zero_grad()
...         loss = cross_entropy(rebuilt(images[batch]), labels[batch])
...         loss.backward()
...         optimizer.step()
...     losses.append(loss.item())
>>> losses[-1] < 0.6 * losses[0], len(diagnostics(rebuilt).layers)
(True, 3)
>>> plain = restore(rebuilt).eval()
>>> torch.allclose(plain(images), rebuilt.eval()(images), atol=1e-4), type(plain[0]).__name__
(True, 'Conv2d')

`sngd_tune.observe_outputs(rebuilt, outputs, "softmax")` is this form's line for ``"sampled"`` and ``"exact"``. Wrap or
compile what comes out of `reconstruct`, not what goes in.

What is refused, and why
------------------------

Each error names the value, the rule and the remedy.

>>> FisherSettings(relative_damping=-1.0)
Traceback (most recent call last):
sngd_tune.errors.SettingsError: relative_damping=-1.0: must be finite and ≥ 0; try 1e-2

- Not trained by natural gradients, and listed in the account with the reason: norms; frozen, tied and parametrized
  weights (weight norm, pruning); embeddings with sparse gradients; recurrent layers under ``"unit"``, ``"kron"`` and
  ``"layer"``, since torch's kernels do not show their output gradients.
- `ReconstructionError`: a model with no layer of a known kind; lazy layers before their first batch; sharded parameters
  (no rank sees a whole weight; `DistributedDataParallel` is fine); too little memory; `torch.optim.LBFGS` and
  `SparseAdam` on a reconstruction; an own optimizer whose state `sngd_tune.reconstruction.rebase.STATE_RULES` lacks.
- `SettingsError`: a name pattern that matches nothing; parameter groups that leave out a parameter or part a weight
  from its bias; Levenberg-Marquardt damping without a closure, or in a reconstruction, whose optimizers do not tell the
  loss after a step; ``root_scale="unit"`` with it or with ``step_bound="kl"``, which measure in the metric of ``G``;
  `GradScaler.unscale_` before `step` where it takes a scale that ``G`` needs.
- `FisherError`: ``fisher="sampled"`` without `observe_outputs` in a step that takes statistics.
- A step whose gradients are not finite is skipped whole, and counted; ten in a row are a `NonFiniteError`.
"""
