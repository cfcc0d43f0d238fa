"""Which parameters of a model get a local Fisher layer, and why the others do not: each parameter exactly once.

Both forms read the same account, so that they rebuild the same layers.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from sngd_tune.core.layers import KINDS, kind_of
from sngd_tune.core.layers.base import LayerKind, Site
from sngd_tune.core.operators import Parts
from sngd_tune.core.schedule import Offset, staggered
from sngd_tune.errors import ReconstructionError, SettingsError
from sngd_tune.settings import NONE, FisherSettings, ModelSettings, SettingsLike, as_settings

__all__ = ["Entry", "Match", "account", "attribute", "check_patterns", "matches"]


@dataclass(frozen=True)
class Match:
    """A site that gets a local Fisher layer.

    Attributes:
        name: of the site: the module's name, with the site's suffix where the module has several.
        path: the module's name; empty for the model itself.
        module: where the site is.
        kind: of the module.
        place: number of the site among those of its module.
        site: what is where.
        settings: of the local Fisher layer.
        offset: where its regular statistics and refreshes lie in their intervals.
    """

    name: str
    path: str
    module: nn.Module
    kind: LayerKind
    place: int
    site: Site
    settings: FisherSettings
    offset: Offset = field(default_factory=Offset)

    @property
    def parameters(self) -> Parts:
        """The weight and, if there is one, the bias."""
        return tuple(attribute(self.module, path) for path in self.site.parameters)


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


def matches(model: nn.Module, settings: ModelSettings, together: bool = False) -> list[Match]:
    """The sites of `model` that get a local Fisher layer, in module order.

    Args:
        model: with layers of the kinds in `core.layers`.
        settings: of the layers.
        together: whether all take statistics in the same steps (`core.schedule.staggered`).

    Raises:
        ReconstructionError: there is none.
        SettingsError: a pattern matches no module, or a layer without a kernel is asked for blocks of a kernel.
    """
    found = [verdict for _, verdict in _verdicts(model, settings) if isinstance(verdict, Match)]
    if not found:
        reasons = "; ".join(f"{entry.parameter}: {entry.reason}" for entry in account(model, settings)[:5])
        known = ", ".join(module.__name__ for kind in KINDS for module in kind.modules)
        raise ReconstructionError(
            f"{type(model).__name__} has no layer that can get a local Fisher layer"
            f" ({reasons or 'it has no parameters'}); these can: {known}"
        )
    for match in found:
        _check_block(match)
    offsets = staggered([(match.path, match.settings) for match in found], together)
    return [replace(match, offset=offset) for match, offset in zip(found, offsets, strict=True)]


def _check_block(match: Match) -> None:
    settings, shape = match.settings, match.site.shape
    if settings.block in ("channel", "position") and not match.kind.convolves and not shape.one_hot:
        raise SettingsError(
            f"granularity={settings.granularity!r}: is for convolutions, and {match.name or 'the model'} is"
            f" {type(match.module).__name__}; give it settings of its own, before the others:"
            f" {{{match.path or '*'!r}: FisherSettings(granularity='input'), …}}"
        )


def account(model: nn.Module, settings: SettingsLike) -> list[Entry]:
    """Every parameter of `model` once, with its treatment and the reason.

    Args:
        model: as it is.
        settings: as in `SNGD`.

    Raises:
        SettingsError: a pattern matches no module, or what is given is no settings.
    """
    chosen = as_settings(settings)
    verdicts = {id(parameter): verdict for parameters, verdict in _verdicts(model, chosen) for parameter in parameters}
    return [_entry(name, verdicts[id(parameter)]) for name, parameter in model.named_parameters()]


def attribute(module: nn.Module, path: str) -> nn.Parameter:
    """The parameter at a dotted path from `module`."""
    return operator.attrgetter(path)(module)


def _entry(name: str, verdict: Match | str) -> Entry:
    if isinstance(verdict, Match):
        return Entry(name, "local Fisher", _in_short(verdict))
    return Entry(name, "plain", verdict)


def _verdicts(model: nn.Module, settings: ModelSettings) -> Iterator[tuple[Parts, Match | str]]:
    """Groups of parameters, each with its match or the reason why it has none; no parameter twice."""
    _check_initialized(model)
    if not isinstance(settings, FisherSettings):
        check_patterns(model, settings)
    owners = _owners(model)
    done: set[int] = set()
    for path, module in model.named_modules():
        for parameters, verdict in _examine(path, module, settings, owners):
            fresh = tuple(parameter for parameter in parameters if id(parameter) not in done)
            done.update(map(id, fresh))
            if fresh:
                yield fresh, verdict


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Every place of each parameter, by its name; a module under several names is one place."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append(name)
    return owners


def _examine(
    path: str, module: nn.Module, settings: ModelSettings, owners: Mapping[int, list[str]]
) -> Iterator[tuple[Parts, Match | str]]:
    """The sites of one module, then what is left of its own parameters."""
    kind = kind_of(module)
    reason = kind.refusal(module) if kind else _unknown(module)
    if kind and reason is None:
        for place, site in enumerate(kind.sites(module)):
            name = ".".join(filter(None, (path, site.suffix)))
            found = _settings_for(path, name, settings)
            match = Match(name, path, module, kind, place, site, found) if found is not None else None
            parameters = tuple(attribute(module, each) for each in site.parameters)
            refusal = _refusal(path, parameters, site, found, owners)
            own = tuple(parameter for parameter in parameters if isinstance(parameter, nn.Parameter))
            yield own, refusal or match or _without(path, name, settings)
    for name, parameter in module.named_parameters(recurse=False):
        yield (parameter,), reason or (kind.plain.get(name) if kind else None) or "not a weight of this layer"


def _unknown(module: nn.Module) -> str:
    """Why a module of no known kind has no local Fisher layer."""
    if is_parametrized(module):
        return f"{type(module).__bases__[0].__name__} with a parametrized weight"
    if isinstance(module, ParametrizationList):
        return "its layer's weight is computed from it (torch.nn.utils.parametrize)"
    return f"no local Fisher layer for {type(module).__name__}"


def _refusal(
    path: str, parameters: Parts, site: Site, settings: FisherSettings | None, owners: Mapping[int, list[str]]
) -> str | None:
    """Why a site that its kind supports has no local Fisher layer, or None."""
    if not all(isinstance(parameter, nn.Parameter) for parameter in parameters):
        return "its weight is computed before each forward pass (weight norm, pruning, …), not a parameter"
    if not all(parameter.requires_grad for parameter in parameters):
        return "frozen"
    own = {".".join(filter(None, (path, name))) for name in site.parameters}
    others = [name for parameter in parameters for name in owners[id(parameter)] if name not in own]
    if others:
        return f"tied to {', '.join(others)}"
    if settings is not None and settings.needs_gradients and not site.gradients and not site.shape.one_hot:
        return f"granularity {settings.granularity!r} needs output gradients, which this layer does not show"
    return None


def _settings_for(path: str, name: str, settings: ModelSettings) -> FisherSettings | None:
    """By the name of the site or of its module; the first pattern that matches counts."""
    if isinstance(settings, FisherSettings):
        return settings
    pattern = _pattern_of(path, name, settings)
    return None if pattern is None else settings[pattern]


def _pattern_of(path: str, name: str, patterns: Iterable[str]) -> str | None:
    return next((each for each in patterns if fnmatchcase(name, each) or fnmatchcase(path, each)), None)


def _without(path: str, name: str, settings: ModelSettings) -> str:
    """Why a site that could have settings has none."""
    pattern = None if isinstance(settings, FisherSettings) else _pattern_of(path, name, settings)
    return "no settings pattern matches it" if pattern is None else f"{pattern!r} says {NONE!r}"


def _check_initialized(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ReconstructionError(f"{name}: has no shape yet, as it is lazy; run a batch through the model first")


def check_patterns(model: nn.Module, patterns: Iterable[str]) -> None:
    """See whether each pattern matches a module of the model, or a site of one.

    Raises:
        SettingsError: one matches none; the message lists the modules.
    """
    names = [name for name, _ in model.named_modules()]
    names += [
        f"{path}.{site.suffix}" for path, module in model.named_modules() for site in _sites(module) if site.suffix
    ]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise SettingsError(f"{pattern!r}: matches no module; the modules are {', '.join(filter(None, names))}")


def _sites(module: nn.Module) -> Sequence[Site]:
    kind = kind_of(module)
    return kind.sites(module) if kind and kind.refusal(module) is None else ()


def _in_short(match: Match) -> str:
    settings = match.settings
    if match.site.shape.one_hot:
        return f"diagonal (its inputs are one-hot), every {settings.fisher_interval}"
    rank = f", rank {settings.rank}" if settings.rank is not None else ""
    return f"{settings.granularity}, {settings.root}{rank}, every {settings.fisher_interval}"
