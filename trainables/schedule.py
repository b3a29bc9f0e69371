"""Learning rate over the budget, relative to its peak; progress is the share of the budget that is spent.

After a linear warm-up over the first share w of the budget, with x running from 0 to 1 over the rest:

    constant      1
    cosine        f + (1 - f) (1 + cos(pi x)) / 2                    (Loshchilov and Hutter 2017, eq. 5)
    linear        f + (1 - f) (1 - x)
    step          0.1^k after 30, 70 and 90% of the rest            (He et al. 2016, section 3.4, made relative)
    inverse_sqrt  sqrt(w / progress); without warm-up 1 / sqrt(1 + 99 x)   (Vaswani et al. 2017, eq. 3)

Because progress counts gradient evaluations, a two-pass method has half the steps and the same schedule.
"""

from __future__ import annotations

import math

NAMES = ("cosine", "linear", "constant", "step", "inverse_sqrt")
TO_A_FLOOR = ("cosine", "linear")
DROPS = (0.3, 0.7, 0.9)


def factor(schedule: str, progress: float, warmup: float = 0.0, final_lr: float = 0.0) -> float:
    """The share of the peak at `progress` in [0, 1]; `warmup` in [0, 1) of the budget, `final_lr` f in [0, 1]."""
    if progress < warmup:
        return min(1.0, max(progress, 1e-3) / warmup)
    rest = (progress - warmup) / (1 - warmup)
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return float(0.1 ** sum(rest >= at for at in DROPS))
    if schedule == "inverse_sqrt":
        return math.sqrt(warmup / progress) if warmup else 1 / math.sqrt(1 + 99 * rest)
    falling = {"cosine": 0.5 * (1 + math.cos(math.pi * rest)), "linear": 1 - rest}[schedule]
    return final_lr + (1 - final_lr) * falling
