"""Names of columns in the table of a sweep's trials that no metric may take."""

from __future__ import annotations

PARAMETER = "param."
"""Prefix of the column name of a hyperparameter."""
METRIC = "metric."
"""Prefix of the column name of a metric whose own name is taken."""
AMOUNTS = frozenset({"grad_evals", "seconds"})
"""What a trial spent; a sweep may still tune a metric of that name, whose column then has the metric."""
SELECTED, TOKENS = "selected.value", "batch.tokens"
"""In a frame of `compare`: the value by which a trial was judged, and the tokens in its batches."""
FACTS = frozenset({
    "sweep_id", "arm", "study", "stage", "trial_id", "seed", "state", "parameters", "init_digest", "data_digest",
    "lineage", "feasible", "superseded", "exploratory", "configuration", "proof", SELECTED, TOKENS,
})  # fmt: skip
"""What a trial is, also in frames that `compare` derives from the table."""


def of_parameter(name: str) -> str:
    """The column of a hyperparameter."""
    return PARAMETER + name


def is_fact(name: str) -> bool:
    """Whether no sweep can tune a metric of this name."""
    return name in FACTS or name.startswith(PARAMETER)


def of_metric(name: str, asked: frozenset[str] = frozenset()) -> str:
    """The column of a metric; `asked` are the metrics that the sweep tunes or reports."""
    return METRIC + name if is_fact(name) or (name in AMOUNTS and name not in asked) else name
