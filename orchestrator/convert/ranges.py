"""Distributions of other systems as ranges of ours.

exponents      log_uniform on [a, b] draws exp(u), u uniform on [a, b]: log_uniform_values on [exp a, exp b]
inverse        inv_log_uniform: log(1/x) is uniform, and so is log x: log_uniform_values on [exp -b, exp -a]
unbounded      normal, log_normal: a search needs bounds; the middle 95%, mu -+ 2 sigma, takes their place
quantum        others round to multiples of q, here values are min, min + q, ...: the ends are rounded
"""

from __future__ import annotations

import math
from typing import Any

SIGMAS = 2.0


def uniform(low: Any, high: Any) -> dict[str, Any]:
    """Uniform on [low, high], whole where both ends are."""
    if low == high:
        return {"value": low}
    if isinstance(low, int) and isinstance(high, int):
        return {"distribution": "int_uniform", "min": low, "max": high}
    return {"distribution": "uniform", "min": low, "max": high}


def log_uniform(low: float, high: float) -> dict[str, Any]:
    """Uniform in the logarithm on [low, high]."""
    return {"value": low} if low == high else {"distribution": "log_uniform_values", "min": low, "max": high}


def quantized(found: dict[str, Any], q: float) -> dict[str, Any]:
    """The same, rounded to multiples of q."""
    if "value" in found:
        return {"value": rounded(found["value"], q)}
    if found["distribution"] == "log_uniform_values":
        return {**found, "distribution": "q_log_uniform_values", "q": q}
    low, high = rounded(found["min"], q), rounded(found["max"], q)
    if low == high:
        return {"value": low}
    whole = isinstance(low, int) and isinstance(high, int)
    return {"distribution": "int_uniform" if whole else "q_uniform", "min": low, "max": high, "q": q}


def exponents(low: float, high: float) -> dict[str, Any]:
    """Where exp(u) is drawn, u uniform on [low, high]. Raises OverflowError for exponents beyond about 700."""
    return log_uniform(_short(math.exp(low)), _short(math.exp(high)))


def middle(mu: float, sigma: float) -> tuple[float, float]:
    """Where a normal variable lies with 95%."""
    return _short(mu - SIGMAS * sigma), _short(mu + SIGMAS * sigma)


def rounded(value: float, q: float) -> Any:
    """The nearest multiple of q; whole when q is."""
    found = round(value / q) * q
    return int(found) if isinstance(q, int) else _short(found)


def _short(value: float) -> float:
    """Without the noise of the last digits."""
    return float(f"{value:.12g}")
