"""`python -m tests.bench.null [table]`: false verdicts of two identical arms, and what repeated searches do to them.

`table` simulates designs on the table of trained values (values.parquet, made by train_values.py), a minute or two.
A part that runs whole sweeps takes its place beside it in PARTS: a function of no arguments that yields lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from tests.bench.null import designs

REPEATS = 4000


def table() -> Iterator[str]:
    """The simulated designs."""
    yield from designs.false_verdicts(REPEATS)
    yield ""
    yield from designs.power_and_coverage(REPEATS)


PARTS: dict[str, Callable[[], Iterator[str]]] = {"table": table}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        for line in PARTS[name]():
            print(line, flush=True)
