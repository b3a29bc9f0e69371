"""Amounts of CPU, memory and devices, as Kubernetes writes them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

SUFFIXES = {
    **{"m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9"), "": Decimal(1)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def amount(text: str) -> Decimal:
    """`500m` -> 0.5, `2Gi` -> 2147483648. Raises ValueError."""
    digits = text.rstrip("numkKMGTPEi")
    try:
        return Decimal(digits) * SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        raise ValueError(f"{text!r} is no quantity of Kubernetes") from None


def asked_for(pod: Mapping[str, Any]) -> str:
    """What the containers of a Pod request together: `cpu 2500m, memory 9Gi, nvidia.com/gpu 1`."""
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
            whole = found / SUFFIXES[suffix]
            if whole >= 1 and whole == whole.to_integral_value():
                return f"{int(whole)}{suffix}"
    return f"{int(found)}"
