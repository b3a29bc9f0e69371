"""Everything that `geosweep` raises about sweeps. The text of each is the sentence that the command shows.

| exception | when |
|---|---|
| `SpecError` | the sweep is wrong: the text begins with file, line, column and key, of a dict with the key |
| `UsageError` | what was asked for cannot be done in this way |
| `NotFound` | no such sweep, trial or metric |
| `Held` | another process is running this sweep |
| `Unreachable` | a cluster, database or tracking server does not answer |
| `TrialsFailed` | more trials failed than the sweep allows |
| `BudgetSpent` | a limit of the budget ended the sweep before its trials did |
| `CodeChanged` | the source that trials import is not what was sealed |
| `ControlFailed` | a special case did not come out as it has to |
| `Unfair` | a fair protocol was asked for, and the sweep breaks rules without saying why |
| `Damaged` | a file of a sweep is not what was written |
| `Refused` | there is no comparison, and why |

    >>> import geosweep
    >>> try:
    ...     geosweep.run({"schema_version": 1, "name": "x", "arms": {"sgd": {"parameters": {"momentun": 0.9}}},
    ...                   "task": {"name": "digits"}, "metric": {"name": "accuracy/val", "goal": "maximize"},
    ...                   "budget": {"per_trial": 10, "trials_per_arm": 1}})
    ... except geosweep.errors.SpecError as error:
    ...     print(error)
    sweep: arms.sgd.parameters.momentun: unknown to optimizer sgd; did you mean momentum?
"""

from __future__ import annotations

from orchestrator.definition.errors import BudgetSpent, SpecError, TrialsFailed, UsageError
from orchestrator.protocol.errors import CodeChanged, ControlFailed, Unfair
from orchestrator.statistics.pairing import Refused
from orchestrator.storage.errors import Damaged, Held, NotFound, Unreachable

__all__ = [
    "BudgetSpent",
    "CodeChanged",
    "ControlFailed",
    "Damaged",
    "Held",
    "NotFound",
    "Refused",
    "SpecError",
    "TrialsFailed",
    "Unfair",
    "Unreachable",
    "UsageError",
]
