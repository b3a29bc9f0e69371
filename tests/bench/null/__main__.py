"""`python -m tests.bench.null [PART ...]`: false verdicts of two identical arms, what repeated searches do to them.

table      simulated designs on the table of trained values (values.parquet, made by train_values.py), a minute or two
pipeline   whole sweeps: sweep file, conductor, studies, Optuna, folders, tables, `compare`; six minutes of CPU
power      the same with a known difference: does the predicted power hold? Three minutes of CPU
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from tests.bench.null import designs, verdicts

REPEATS = 4000
SWEEPS = 300


def table() -> Iterator[str]:
    """The simulated designs."""
    yield from designs.false_verdicts(REPEATS)
    yield ""
    yield from designs.power_and_coverage(REPEATS)


def pipeline() -> Iterator[str]:
    """Identical arms."""
    yield from verdicts.false_verdicts(SWEEPS)


def power() -> Iterator[str]:
    """Arms of a known difference."""
    yield from verdicts.predicted_power(SWEEPS)


PARTS: dict[str, Callable[[], Iterator[str]]] = {"table": table, "pipeline": pipeline, "power": power}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        for line in PARTS[name]():
            print(line, flush=True)
