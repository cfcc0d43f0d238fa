"""The user's batches and loss as the probe takes them, checked where they enter."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sngd_tune.errors import ConfigurationError, NonFiniteError

__all__ = ["Batch", "Batches", "LossFunction", "loss_of", "outputs_of"]

#: ``(inputs, targets)``; the inputs are what the model is called with: a tensor, or a tuple or mapping of arguments.
Batch = tuple[Any, Any]
LossFunction = Callable[[Any, Any], Tensor]


class Batches:
    """An endless supply out of what the user gave, moved to the model's device.

    What can be iterated anew (a DataLoader, a list) is gone through again and again; a generator must last.

    Args:
        batches: pairs ``(inputs, targets)``.
        device: of the model.

    Attributes:
        taken: batches so far.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device):
        self._batches, self._device = batches, device
        self._again = not isinstance(batches, Iterator)
        self._pass: Iterator[Batch] = iter(batches)
        self._in_pass = 0
        self.taken = 0

    def take(self) -> Batch:
        """The next one.

        Raises:
            ConfigurationError: there is none, or it is no pair.
        """
        found = next(self._pass, None)
        if found is None and self._again and self._in_pass:
            self._pass, self._in_pass = iter(self._batches), 0
            found = next(self._pass, None)
        if found is None:
            raise ConfigurationError(
                f"batches: ended after {self.taken}, and more are needed; pass what can be iterated again (a"
                " DataLoader, a list), or a generator that goes on"
            )
        if not isinstance(found, Sequence) or len(found) != 2:
            raise ConfigurationError(
                f"batches: a {type(found).__name__} is no pair (inputs, targets); yield such pairs, where inputs are"
                " what the model is called with: a tensor, a tuple of arguments or a mapping of them"
            )
        self.taken, self._in_pass = self.taken + 1, self._in_pass + 1
        return _moved(found[0], self._device), _moved(found[1], self._device)


def loss_of(model: nn.Module, loss_fn: LossFunction, batch: Batch) -> Tensor:
    """The mean loss of a batch.

    Raises:
        ConfigurationError: it is no scalar that can be differentiated.
        NonFiniteError: it is NaN or infinite.
    """
    loss = loss_fn(outputs_of(model, batch), batch[1])
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ConfigurationError(
            f"loss_fn: gave a {type(loss).__name__}{shape}; it must give the mean loss of the batch, a scalar tensor"
            " that depends on the model, such as torch.nn.CrossEntropyLoss()"
        )
    if not bool(loss.isfinite()):
        raise NonFiniteError(
            f"loss={float(loss.detach())}: not finite on a batch that the probe was given; look for NaN or infinity in"
            " the inputs and in the model's parameters"
        )
    return loss


def outputs_of(model: nn.Module, batch: Batch) -> Any:
    """What the model says to the inputs of a batch."""
    inputs = batch[0]
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    return type(value)(_moved(each, device) for each in value) if type(value) in (tuple, list) else value
