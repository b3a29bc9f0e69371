"""The fairness rules by their stable codes; `sweeps/LINT.md` explains them, `protocol.lint` applies them."""

from __future__ import annotations

RULES: dict[str, str] = {
    "GS101": "unequal effort",
    "GS102": "equal steps where compute differs",
    "GS103": "optimum at the edge of the space",
    "GS104": "fewer than six studies or confirm seeds",
    "GS105": "too few studies or seeds for the number of comparisons",
    "GS106": "overlapping tune and confirm seeds",
    "GS107": "selection on the test metric",
    "GS108": "uneven evaluation",
    "GS109": "best intermediate value",
    "GS110": "schedule tuned in one arm only",
    "GS111": "missing default arm",
    "GS112": "expected-best curve on adaptive trials",
    "GS113": "pruning across arms",
    "GS114": "nested arm without its special case",
    "GS115": "learning rate not tuned",
    "GS116": "label noise or split tied to the arm",
    "GS117": "learning-rate ranges of unequal width",
    "GS118": "learning rate searched on a linear scale",
    "GS119": "reported on the metric that was tuned",
    "GS120": "one study per arm, so configurations only",
    "GS121": "priors in some arms only",
}
