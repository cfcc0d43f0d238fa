"""How a law's figures are written."""

import math

from sngd_tune.scaling.fits import NoFit, PowerLaw

__all__ = ["exponent", "interval"]


def exponent(fit: PowerLaw | NoFit | None) -> str:
    """``0.48 (0.31 to 0.65), over a floor``, or a dash."""
    if not isinstance(fit, PowerLaw):
        return "–"
    return f"{fit.exponent:.2f} ({interval(fit)})" + (", over a floor" if fit.floor > 0 else "")


def interval(fit: PowerLaw) -> str:
    """``0.31 to 0.65``."""
    return f"{_end(fit.low)} to {_end(fit.high)}"


def _end(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "open"
