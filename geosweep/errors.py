"""All exceptions that `geosweep` raises about sweeps. The text of each is the message shown by the command.

| exception | when |
|---|---|
| `SpecError` | the sweep is invalid: the text begins with file, line, column and key, or for a dict with the key |
| `UsageError` | the request cannot be carried out as given |
| `NotFound` | no such sweep, trial or metric |
| `Held` | another process is running this sweep |
| `Unreachable` | a cluster, database or tracking server does not answer |
| `TrialsFailed` | more trials failed than the sweep allows |
| `BudgetSpent` | a limit of the budget ended the sweep before its trials did |
| `CodeChanged` | the source code that trials import differs from what was sealed |
| `ControlFailed` | a control did not give its known result |
| `Unfair` | a fair protocol was requested, but the sweep breaks rules without a stated reason |
| `Damaged` | a file of a sweep is not what was written |
| `Refused` | no comparison is possible; the text says why |

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
