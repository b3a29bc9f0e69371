"""Amounts in Kubernetes' notation."""

from __future__ import annotations

import math
import re
from typing import Any

QUANTITY = re.compile(r"(\+?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)|)")
UNITS = {letter: 1000.0**power for power, letter in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)
}


def quantity(amount: Any) -> float:
    """The number behind a quantity, NaN for none. Stricter than `kubernetes.utils.quantity`, as the API server is: that
    reads "8 Gi", "1K" and "-1" too.
    """
    found = QUANTITY.fullmatch(str(amount))
    return float(found[1] + (found[2] or "")) * UNITS[found[3] or ""] if found else math.nan
