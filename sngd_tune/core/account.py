"""Which parameters of a model get a local Fisher layer, and why the others do not: each parameter exactly once.

Both forms read the same account, so that they rebuild the same layers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from sngd_tune.errors import ReconstructionError, SettingsError
from sngd_tune.settings import FisherSettings

__all__ = ["Entry", "Match", "SettingsLike", "account", "matches"]

#: One settings value for all layers, or a mapping from module-name patterns (``"encoder.*"``) to settings.
SettingsLike = FisherSettings | Mapping[str, FisherSettings]


@dataclass(frozen=True)
class Match:
    """A layer that gets a local Fisher layer: its module name, the module and its settings."""

    name: str
    module: nn.Linear
    settings: FisherSettings

    @property
    def d(self) -> int:
        """Inputs of the layer, the bias's 1 included."""
        return self.module.in_features + (self.module.bias is not None)


@dataclass(frozen=True)
class Entry:
    """One line of the account.

    Attributes:
        parameter: name as `named_parameters` gives it.
        treatment: ``"local Fisher"`` or ``"plain"``.
        reason: the settings in short, or why the parameter trains with the base optimizer alone.
    """

    parameter: str
    treatment: str
    reason: str


def matches(model: nn.Module, settings: SettingsLike) -> list[Match]:
    """The layers of `model` that get a local Fisher layer, in module order.

    Raises:
        ReconstructionError: there is none.
        SettingsError: a pattern matches no module.
    """
    found = [verdict for _, _, verdict in _verdicts(model, settings) if isinstance(verdict, Match)]
    if not found:
        reasons = "; ".join(f"{entry.parameter}: {entry.reason}" for entry in account(model, settings)[:5])
        raise ReconstructionError(
            f"{type(model).__name__} has no layer that can get a local Fisher layer"
            f" ({reasons or 'it has no parameters'}); nn.Linear can"
        )
    return found


def account(model: nn.Module, settings: SettingsLike) -> list[Entry]:
    """Every parameter of `model` once, with its treatment and the reason.

    Raises:
        SettingsError: a pattern matches no module.
    """
    entries: dict[int, Entry] = {}
    for name, module, verdict in _verdicts(model, settings):
        for parameter_name, parameter in module.named_parameters(recurse=False):
            full_name = f"{name}.{parameter_name}" if name else parameter_name
            if isinstance(verdict, Match):
                entry = Entry(full_name, "local Fisher", _in_short(verdict.settings))
            else:
                entry = Entry(full_name, "plain", verdict)
            entries.setdefault(id(parameter), entry)
    return list(entries.values())


def _verdicts(model: nn.Module, settings: SettingsLike) -> Iterator[tuple[str, nn.Module, Match | str]]:
    """Each module once, with its match or the reason why it has none."""
    _check_patterns(model, settings)
    owners = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for name, module in model.named_modules():
        tied = any(owners[id(parameter)] > 1 for parameter in module.parameters(recurse=False))
        yield name, module, _examine(name, module, settings, tied)


def _examine(name: str, module: nn.Module, settings: SettingsLike, tied: bool) -> Match | str:
    # A subclass may compute anything in its forward; only nn.Linear itself is known to be s = W a.
    if type(module) is not nn.Linear:
        return f"no local Fisher layer for {type(module).__name__}"
    if not all(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return "frozen"
    if tied:
        return "its weight is tied to another module"
    found = _settings_for(name, settings)
    return Match(name, module, found) if found is not None else "no settings pattern matches it"


def _settings_for(name: str, settings: SettingsLike) -> FisherSettings | None:
    if isinstance(settings, FisherSettings):
        return settings
    return next((value for pattern, value in settings.items() if fnmatchcase(name, pattern)), None)


def _check_patterns(model: nn.Module, settings: SettingsLike) -> None:
    if isinstance(settings, FisherSettings):
        return
    names = [name for name, _ in model.named_modules()]
    for pattern, value in settings.items():
        if not isinstance(value, FisherSettings):
            raise SettingsError(f"{pattern!r}: its settings are {type(value).__name__}, not FisherSettings")
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SettingsError(f"{pattern!r}: matches no module; the modules are {', '.join(filter(None, names))}")


def _in_short(settings: FisherSettings) -> str:
    rank = f", rank {settings.rank}" if settings.rank is not None else ""
    return f"{settings.granularity}, {settings.root}{rank}, every {settings.fisher_interval}"
