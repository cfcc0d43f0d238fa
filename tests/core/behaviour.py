"""What the tests of SNGD as a torch optimizer share."""

import copy
import io
import pickle
from typing import Any

import torch
from torch import nn

from sngd_tune import reconstruct
from tests.core.problems import network, settings

PLAIN = settings("input-eigh")
BASES: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adamw": {"base": "adamw"}}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value))}
FORMS = ("fused", "explicit")
TORCH_OPTIMIZERS = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0),
}


def same(model: nn.Module, expected: nn.Module) -> bool:
    return all(map(torch.equal, model.parameters(), expected.parameters()))


def rebuilt_network(seed: int = 0, dtype: torch.dtype = torch.float64, chosen: Any = PLAIN) -> nn.Module:
    return reconstruct(network(seed, dtype), chosen)


def on_disk(*parts: Any) -> list[dict[str, Any]]:
    """Their states as a checkpoint gives them back: tensors and numbers alone."""
    buffer = io.BytesIO()
    torch.save([part.state_dict() for part in parts], buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
