"""What a sweep's folder alone says: the trials that ended, the best configuration, the state of each arm."""

from orchestrator.results.choices import Best, Front, best, infeasible, pareto, value_words
from orchestrator.results.metrics import declared_bounds, reported, tuned
from orchestrator.results.progress import Status, status, suggestions_digest
from orchestrator.results.trials import arm_values, ended_trials, told_values

__all__ = [
    "Best",
    "Front",
    "Status",
    "arm_values",
    "best",
    "declared_bounds",
    "ended_trials",
    "infeasible",
    "pareto",
    "reported",
    "status",
    "suggestions_digest",
    "told_values",
    "tuned",
    "value_words",
]
