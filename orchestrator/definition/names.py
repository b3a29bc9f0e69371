"""What the names of hyperparameters in a sweep file refer to: the optimizer, the task, or training.

`task.width` and `training.warmup` say so themselves. A bare name is the optimizer's argument wherever an arm's
optimizer has it; one that none has is the task's or the recipe's; one that both have is rejected.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import optim_core
import trainables
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.parts import GROUPS, TASK, TRAINING, section_of
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.training_model import TrainingModel
from orchestrator.definition.yaml12 import Path

NOT_SEARCHED = ("step_timeout",)
"""Keys of `training:` that do not change results."""


@dataclass(frozen=True)
class Names:
    """The names that a sweep file may use."""

    optimizers: Mapping[str, Mapping[str, inspect.Parameter]]
    """Arm -> arguments of its optimizer."""
    called: Mapping[str, str]
    """Arm -> its optimizer."""
    task_name: str
    task: Mapping[str, inspect.Parameter]
    training: tuple[str, ...]

    @classmethod
    def of(cls, model: SweepModel, optimizers: Mapping[str, str]) -> Names:
        """Of a sweep file whose arms have these `optimizers`, and whose task is known to exist."""
        task = str(model.task["name"])
        return cls(
            optimizers={arm: optim_core.hyperparameters(name) for arm, name in optimizers.items()},
            called=optimizers,
            task_name=task,
            task=trainables.parameters(task),
            training=tuple(key for key in TrainingModel.model_fields if key not in NOT_SEARCHED),
        )

    def alias(self, name: str) -> str:
        """The dotted name for a bare one that no arm's optimizer has; otherwise the name unchanged."""
        if "." in name or any(name in known for known in self.optimizers.values()):
            return name
        sections = self._sections(name)
        return f"{sections[0]}.{name}" if len(sections) == 1 else name

    def meant(self, name: str, arm: str | None, where: Where, path: Path) -> str:
        """The full name of the parameter at `path`, in an arm or (None) for all of them. Raises SpecError."""
        section, rest = section_of(name)
        if section:
            self._check_section(section, rest, where, path)
            return name
        having = [one for one, known in self.optimizers.items() if name in known]
        if arm in having or (arm is None and having):
            return name
        sections = self._sections(name)
        if len(sections) == 2:
            raise where.error(
                path,
                f"task {self.task_name} and training both have {name}; write {TASK}.{name} or {TRAINING}.{name}",
            )
        if not sections:
            raise where.error(path, self._unknown(name, arm))
        full = f"{sections[0]}.{name}"
        if having:
            raise where.error(
                path,
                f"not an argument of this arm's optimizer, only in {', '.join(having)}; write {full} if you mean that",
            )
        return full

    def _sections(self, name: str) -> list[str]:
        return [*([TASK] if name in self.task else []), *([TRAINING] if name in self.training else [])]

    def _unknown(self, name: str, arm: str | None) -> str:
        further = {*(f"{TASK}.{key}" for key in self.task), *(f"{TRAINING}.{key}" for key in self.training)}
        if arm is None:
            known = {key for arguments in self.optimizers.values() for key in arguments}
            return f"no arm's optimizer has it{nearest(name, known | further)}"
        return f"unknown to optimizer {self.called[arm]}{nearest(name, {*self.optimizers[arm], *further})}"

    def _check_section(self, section: str, rest: str, where: Where, path: Path) -> None:
        if section == GROUPS:
            raise where.error(path, f"a group's own values go under it: groups: {{{rest.partition('.')[0]}: ...}}")
        if section == TASK and rest not in self.task:
            raise where.error(path, f"task {self.task_name} has no parameter {rest!r}{nearest(rest, self.task)}")
        if section == TRAINING and rest in NOT_SEARCHED:
            raise where.error(path, f"does not change results; set it in training: {{{rest}: ...}}")
        if section == TRAINING and rest not in self.training:
            raise where.error(path, f"training has no key {rest!r}{nearest(rest, self.training)}")
