"""Metrics that are shares, and the range of a metric."""

from __future__ import annotations

import re

Bounds = tuple[float, float]
SHARE, PERCENT = (0.0, 1.0), (0.0, 100.0)
SHARES = {"accuracy", "acc", "share", "recall", "f1", "auroc", "auprc", "iou", "dice", "top1", "top5"}
"""Words in names of metrics that are shares."""
AMOUNTS = {"loss", "cost", "time"}
"""Words for quantities without such a range, such as the loss or the cost of anything."""


def is_share(metric: str) -> bool:
    """Whether the name says that it is a share, of one or in percent."""
    words = set(re.split(r"[/_.@\s-]+", metric.lower()))
    return bool(SHARES & words) and not AMOUNTS & words


def obeying(at_most: bool, limit: float, bounds: Bounds) -> str:
    """`nothing` or `everything`, where that satisfies a limit on a metric within `bounds`; empty where it depends."""
    least, most = bounds
    if limit < least:
        return "nothing" if at_most else "everything"
    if limit > most:
        return "everything" if at_most else "nothing"
    return ""
