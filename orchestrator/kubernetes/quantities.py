"""Amounts of CPU, memory and devices in Kubernetes' notation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

QUANTITY = re.compile(r"(\+?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)|)")
UNITS = {letter: 1000.0**power for power, letter in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)
}


def quantity(amount: Any) -> float:
    """The number in a quantity, NaN if it is not one. Like the API server, stricter than `kubernetes.utils.quantity`,
    which also accepts "8 Gi", "1K" and "-1".
    """
    found = QUANTITY.fullmatch(str(amount))
    return float(found[1] + (found[2] or "")) * UNITS[found[3] or ""] if found else math.nan


def amount(text: str) -> Decimal:
    """The exact number: `500m` -> 0.5, `2Gi` -> 2147483648. Raises ValueError."""
    found = quantity(text)
    if math.isnan(found):
        raise ValueError(f"{text!r} is not a Kubernetes quantity")
    return round(Decimal(found), 9)


def asked_for(pod: Mapping[str, Any]) -> str:
    """The sum of what a Pod's containers request: `cpu 2500m, memory 9Gi, nvidia.com/gpu 1`."""
    total: dict[str, Decimal] = {}
    for container in (pod.get("spec") or {}).get("containers", ()):
        given = container.get("resources") or {}
        for name, text in {**(given.get("limits") or {}), **(given.get("requests") or {})}.items():
            total[name] = total.get(name, Decimal(0)) + amount(str(text))
    return ", ".join(f"{name} {_written(name, found)}" for name, found in total.items()) or "nothing"


def _written(name: str, found: Decimal) -> str:
    if name == "cpu":
        return f"{int(found)}" if found == found.to_integral_value() else f"{int(found * 1000)}m"
    for suffix in ("Gi", "Mi", "Ki"):
        if "memory" in name or "storage" in name:
            whole = found / Decimal(UNITS[suffix])
            if whole >= 1 and whole == whole.to_integral_value():
                return f"{int(whole)}{suffix}"
    return f"{int(found)}"
