"""Methods that need an optional package, which is looked for before anything starts."""

from collections.abc import Mapping
from importlib.util import find_spec

from sngd_tune.errors import MissingDependencyError

__all__ = ["check_installed"]

#: Method → its package, which the extra `peers` brings.
_PACKAGES: Mapping[str, str] = {"soap": "pytorch_optimizer"}


def check_installed(method: str) -> None:
    """Look for the package of a method, without importing it.

    Raises:
        MissingDependencyError: it is not installed; the message names the extra.
    """
    package = _PACKAGES.get(method)
    if package is not None and find_spec(package) is None:
        raise MissingDependencyError(f"optimizer={method!r}: needs {package}: pip install 'sngd_tune[peers]'")
