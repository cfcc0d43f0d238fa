"""Workloads by name, and a user's own by ``module:attribute``; with other sizes as ``mnist_mlp?width=256``."""

import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import torch

from sngd_tune.core.account import check_patterns
from sngd_tune.errors import ConfigurationError, SettingsError, SngdTuneError
from sngd_tune.records.parameters import nearest
from sngd_tune.workloads.likelihood import check_likelihood, required_likelihood
from sngd_tune.workloads.workload import Splits, Workload

__all__ = ["WORKLOADS", "find_workload", "load_data", "scaled_name"]

#: Name → ``module:attribute``, imported on use.
WORKLOADS: dict[str, str] = {
    "cifar10_resnet": "sngd_tune.workloads.cifar10_resnet:Cifar10Resnet",
    "cifar10_resnet_narrow": "sngd_tune.workloads.cifar10_resnet:Cifar10ResnetNarrow",
    "digits_mlp": "sngd_tune.workloads.digits_mlp:DigitsMlp",
    "fashion_cnn": "sngd_tune.workloads.fashion_cnn:FashionCnn",
    "housing_mlp": "sngd_tune.workloads.housing_mlp:HousingMlp",
    "mnist_autoencoder": "sngd_tune.workloads.mnist_autoencoder:MnistAutoencoder",
    "mnist_mlp": "sngd_tune.workloads.mnist_mlp:MnistMlp",
    "ptb_lstm": "sngd_tune.workloads.ptb_lstm:PtbLstm",
    "shakespeare_transformer": "sngd_tune.workloads.shakespeare_transformer:ShakespeareTransformer",
}


def find_workload(name: str, import_path: Path | str | None = None) -> Workload:
    """The workload of that name.

    Args:
        name: a registered name, or ``module:attribute`` where the attribute is a `Workload`, a subclass of it, or a
            function without arguments that gives one; sizes may follow, ``?width=256&depth=2``.
        import_path: folder added to Python's import path for the user's own module; default the current one.

    Raises:
        ConfigurationError: an unknown name, an import that fails, an attribute that is no workload, or a size that it
            has not.
    """
    plain, _, query = name.partition("?")
    workload = _find(plain, import_path)
    return workload.scaled(**_sizes(name, query)) if query else workload


def scaled_name(name: str, sizes: Mapping[str, int]) -> str:
    """The name by which `find_workload` finds it with these sizes.

    >>> scaled_name("mnist_mlp", {"width": 256, "depth": 2})
    'mnist_mlp?width=256&depth=2'
    """
    return f"{name}?{urlencode(sizes)}" if sizes else name


def _sizes(name: str, query: str) -> dict[str, int]:
    try:
        return {axis: int(size) for axis, size in parse_qsl(query, keep_blank_values=True, strict_parsing=True)}
    except ValueError as error:
        raise ConfigurationError(
            f"workload={name!r}: sizes are whole numbers: {name.split('?')[0]}?width=256"
        ) from error


def _find(name: str, import_path: Path | str | None) -> Workload:
    """The workload of a name without sizes."""
    if ":" not in name:
        if name not in WORKLOADS:
            message = f"workload={name!r}: not registered{nearest(name, WORKLOADS)}; your own is named module:attribute"
            raise ConfigurationError(message)
        name = WORKLOADS[name]
    else:
        folder = str(import_path or Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
    made = _made(name, _import(name))
    if not isinstance(made, Workload):
        message = f"workload={name!r}: is a {type(made).__name__}; it must be a sngd_tune.workloads.workload.Workload"
        raise ConfigurationError(message)
    return made


def load_data(
    name: str,
    data_dir: Path | str | None,
    objectives: Iterable[str] = (),
    fishers: Iterable[str] = (),
    patterns: Iterable[str] = (),
) -> Splits:
    """The data of the workload of that name.

    Args:
        name: as in `find_workload`.
        data_dir: the user's data directory.
        objectives: of the study.
        fishers: kinds of Fisher matrix that its trials may take (`StudyConfig.fishers`).
        patterns: of module names, each of which has to match (`StudyConfig.patterns`).

    Raises:
        ConfigurationError: as `find_workload`; where the data is missing, or reading it fails in any way; where an
            objective needs an accuracy that the workload does not have; where a Fisher matrix needs a likelihood that
            it does not have, or that is not the one of its loss; and where a pattern matches no module of its model.
    """
    workload = find_workload(name)
    observed = not set(fishers) <= {"empirical"}
    if observed:
        required_likelihood(workload)
    if "validation_accuracy" in objectives and type(workload).correct is Workload.correct:
        message = f"objectives: validation_accuracy: workload {name} has no accuracy; choose validation_loss"
        raise ConfigurationError(message)
    if patterns:
        _look_for(name, workload, sorted(patterns))
    try:
        splits = workload.load(Path(data_dir) if data_dir is not None else None)
    except SngdTuneError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise ConfigurationError(f"workload={name!r}: loading its data failed ({_where(error)})") from error
    if not isinstance(splits, Splits):
        raise ConfigurationError(f"workload={name!r}: its load() gave a {type(splits).__name__}; it must give Splits")
    if observed:
        _compare(name, workload, splits)
    return splits


def _look_for(name: str, workload: Workload, patterns: Sequence[str]) -> None:
    """`check_patterns` on a model, the making of which may raise anything and draws random numbers."""
    try:
        with torch.random.fork_rng(devices=[]):
            check_patterns(workload.model(), patterns)
    except SettingsError as error:
        raise ConfigurationError(f"workload={name!r}: {error}") from error
    except Exception as error:
        raise ConfigurationError(f"workload={name!r}: making its model failed ({_where(error)})") from error


def _compare(name: str, workload: Workload, splits: Splits) -> None:
    """`check_likelihood`, where the user's model and loss may raise anything."""
    try:
        check_likelihood(workload, splits.train)
    except SngdTuneError:
        raise
    except Exception as error:
        raise ConfigurationError(f"workload={name!r}: trying its model and loss failed ({_where(error)})") from error


def _made(name: str, found: object) -> object:
    """What was imported, called where it is a class or a function."""
    if not callable(found) or isinstance(found, Workload):
        return found
    try:
        return found()
    except Exception as error:  # an abstract method that is missing, arguments that are wanted, anything else
        raise ConfigurationError(f"workload={name!r}: making it failed ({_where(error)})") from error


def _where(error: Exception) -> str:
    """The error with the place in the user's code that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}; {last.filename}:{last.lineno}"


def _import(name: str) -> object:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything while it is imported
        reason = f"importing {module_name} failed ({type(error).__name__}: {error})"
        raise ConfigurationError(f"workload={name!r}: {reason}") from error
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigurationError(f"workload={name!r}: {module_name} has no {attribute!r}{nearest(attribute, public)}")
    return getattr(module, attribute)
