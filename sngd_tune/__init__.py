"""Structured natural gradient descent (SNGD) in PyTorch, tuned on Ray with Optuna, tracked in MLflow and Parquet.

    from sngd_tune import SNGD, FisherSettings

    optimizer = SNGD(model, FisherSettings(granularity="input", rank=16), lr=1e-3)

or with settings that are chosen for the model, layer by layer:

    from sngd_tune import SNGD, select_settings

    settings = select_settings(model, loss_fn, batches)
    optimizer = SNGD(model, settings, **settings.optimizer)

How to use it in a training script: ``help("sngd_tune.guide")``.
The names below load on first use: `import sngd_tune` costs nothing, and the optimizer needs torch alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sngd_tune.core.account import account
    from sngd_tune.core.diagnostics import diagnostics
    from sngd_tune.core.memory import predicted_memory
    from sngd_tune.core.optimizer import SNGD
    from sngd_tune.core.outputs import observe_outputs
    from sngd_tune.reconstruction.transform import reconstruct, restore
    from sngd_tune.selection.select import select_settings
    from sngd_tune.settings import FisherSettings

__all__ = [
    "SNGD",
    "FisherSettings",
    "__version__",
    "account",
    "diagnostics",
    "observe_outputs",
    "predicted_memory",
    "reconstruct",
    "restore",
    "select_settings",
]

__version__ = "0.1.0"

_HOMES = {
    "SNGD": "sngd_tune.core.optimizer",
    "FisherSettings": "sngd_tune.settings",
    "account": "sngd_tune.core.account",
    "diagnostics": "sngd_tune.core.diagnostics",
    "observe_outputs": "sngd_tune.core.outputs",
    "predicted_memory": "sngd_tune.core.memory",
    "reconstruct": "sngd_tune.reconstruction.transform",
    "restore": "sngd_tune.reconstruction.transform",
    "select_settings": "sngd_tune.selection.select",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
