"""The task whose results come from a table (see `pipeline`): it has metrics and trains nothing."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from trainables import Metric, Task


class Tabulated(Task):
    """Accuracies in [0, 1]."""

    METRICS: ClassVar = {
        "accuracy/val": Metric(goal="maximize", worst=0.0),
        "accuracy/test": Metric(goal="maximize", worst=0.0),
    }

    def _nothing(self, *words: object) -> NoReturn:
        raise RuntimeError("Tabulated trains nothing")

    model = batch = batch_identity = loss = evaluate = _nothing
