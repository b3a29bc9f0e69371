"""The trial API for scripts, in three lines; the same script also runs alone, outside any sweep.

    import geosweep
    trial = geosweep.trial(rate=0.1)                  # values for when it runs alone; in a sweep the sweep's hold
    model = ...
    optimizer = trial.optimizer(model)                # the arm's optimizer; alone AdamW
    for step in trial.steps(1000):                    # as many as the budget allows; alone 1000
        loss = optimizer.step(closure)
        trial.report(step, loss=loss)                 # alone: printed

In a sweep `GEOSWEEP_TRIAL` names a folder through which worker and script communicate; no service is needed, and only
the parts of this project that are used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from geosweep import _hooks
from geosweep._parameters import Parameters

STOP_POLL_S = 0.25
ALONE = ("steps", 1000)


class Trial:
    """One trial. In a sweep it is built from what the worker left in `folder`, alone from `defaults`."""

    def __init__(self, folder: Path | None, defaults: Mapping[str, Any]) -> None:
        self._folder = folder
        given: dict[str, Any] = {}
        if folder is not None:
            given = json.loads((folder / "given.json").read_text(encoding="utf-8"))
        self._witness = _hooks.witness() if folder is not None else None
        self.in_sweep = folder is not None
        """Whether a sweep runs this script."""
        self.parameters = Parameters(defaults, given.get("parameters", {}))
        """The configuration, by the names in the sweep file."""
        self.id: str = given.get("trial_id", "")
        self.folder = Path(os.environ.get("GEOSWEEP_TRIAL_DIR", ".")) if self.in_sweep else Path()
        """This trial's own folder for its output; alone, the current folder."""
        self.unit: str = given.get("unit", ALONE[0])
        """The unit of the budget: grad_evals, steps, seconds, tokens or epochs."""
        self.budget: float = given.get("budget", ALONE[1])
        self._seed = int(given.get("seed", 0))
        self._name: str = given.get("optimizer", "")
        self._every = float(given.get("checkpoint_s", 10.0))
        self._began = self._saved = time.monotonic()
        self._looked = 0.0
        self._optimizer: Any = None
        self._done = self._first = 0
        """Steps taken, including the one in progress; steps taken by earlier runs."""
        self._measure: Callable[[], float] | None = None
        self._asked = self._saves = self._leaving = self._unheard = False

    @property
    def seed(self) -> int:
        """The trial's seed, paired between arms. Use it to draw weights and the order of data. Alone 0."""
        if not self._asked:
            self._asked = True
            self._say(seed=True)
        return self._seed

    def optimizer(
        self,
        model: Any,
        *,
        loss: Callable[..., Any] | None = None,
        batches: Callable[[int], Any] | None = None,
        default: Callable[..., Any] | None = None,
    ) -> Any:
        """The arm's optimizer, with the parameters that it accepts; its `step` takes a closure.

        `loss(outputs, targets)` and `batches(index)`, batches from a stream independent of training, are for optimizers
        that evaluate the loss themselves. Alone, and in an arm that names no optimizer, it is
        `default(model.parameters())`, or AdamW with the parameters lr and weight_decay. Raises ValueError if the arm's
        optimizer needs an argument that is missing.
        """
        if not self._name:
            self._optimizer = self._plain(model, default)
            return self._optimizer
        self._say(optimizer=True)
        with self._witness.aside() if self._witness is not None else nullcontext():  # classes are tried with a step
            self._optimizer = self._built(model, loss, batches)
        if self._witness is not None:
            witness = self._witness
            self._optimizer.register_step_post_hook(lambda o, a, k: witness.charge(float(o.grad_evals)))
        return self._optimizer

    def _built(self, model: Any, loss: Callable[..., Any] | None, batches: Callable[[int], Any] | None) -> Any:
        import optim_core

        given = self.parameters.of(optim_core.hyperparameters(self._name))
        if optim_core.needs_batches(self._name):
            if loss is None or batches is None:
                raise ValueError(
                    f"optimizer {self._name} looks at the loss itself: trial.optimizer(model, loss=.., batches=..)"
                )
            given |= {"loss": loss, "refresh_batches": batches}
        if optim_core.needs_run_seed(self._name):
            given["run_seed"] = self._seed
        return optim_core.build(self._name, model, **given)

    def _plain(self, model: Any, default: Callable[..., Any] | None) -> Any:
        if default is not None:
            return default(model.parameters())
        import torch

        return torch.optim.AdamW(model.parameters(), **self.parameters.of(("lr", "weight_decay")))

    def steps(self, total: int = ALONE[1], *, tokens: float | None = None, epoch: float | None = None) -> Iterator[int]:
        """Step numbers from 0, or from where `restore` resumed, until the budget is spent; alone `total` steps.

        `tokens`: per step, for a budget in tokens. `epoch`: steps per epoch, for a budget in epochs. A budget in
        grad_evals is spent by the count of the arm's optimizer, or by the observed backward passes, or else by steps.
        Raises ValueError if the budget cannot be counted.
        """
        enough = self._enough(total, tokens, epoch)
        self._say(budget=True)
        step = self._done = self._first
        while not enough(step):
            self._look()
            self._done = step + 1
            yield step
            step += 1

    def _enough(self, total: int, tokens: float | None, epoch: float | None) -> Callable[[int], bool]:
        budget, unit = self.budget, self.unit
        if not self.in_sweep or unit == "steps":
            most = int(budget) if self.in_sweep else total
            self._measure = lambda: float(self._done)
            return lambda step: step >= most
        if unit in ("tokens", "epochs"):
            each = tokens if unit == "tokens" else epoch and 1 / epoch
            if not each:
                key = "tokens" if unit == "tokens" else "epoch"
                raise ValueError(f"the budget is in {unit}: give the value of a step, trial.steps({key}=..)")
            self._measure = lambda: self._done * each
            return lambda step: (step + 1) * each > budget * (1 + 1e-9)
        if unit == "seconds":
            self._measure = lambda: time.monotonic() - self._began
            return lambda step: time.monotonic() - self._began >= budget
        counts = self._counts()
        if counts is None:
            self._measure = lambda: float(self._done)
            return lambda step: step >= budget
        self._measure = counts

        def spent(step: int) -> bool:
            following = getattr(self._optimizer, "next_cost", None)
            cost = float(following()) if callable(following) else counts() / step if step else 1.0
            return counts() + cost > budget * (1 + 1e-9)

        return spent

    def _counts(self) -> Callable[[], float] | None:
        """The counter of gradient evaluations, if there is one."""
        if hasattr(self._optimizer, "grad_evals"):
            return lambda: float(self._optimizer.grad_evals)
        witness = self._witness
        return None if witness is None or "torch" not in sys.modules else lambda: witness.grad_evals

    def report(self, step: float | None = None, metrics: Mapping[str, Any] | None = None, **named: Any) -> None:
        """Report metrics of the current model. `step` is the loop's count, converted to the budget's unit."""
        found = {key: _number(value) for key, value in {**(metrics or {}), **named}.items()}
        if self._folder is None:
            words = ", ".join(f"{key} {value:.6g}" for key, value in found.items())
            print(f"{'' if step is None else f'step {step:g}: '}{words}", flush=True)
            return
        at = self._measure() if self._measure is not None else step
        if self._witness is None and not self._unheard:
            self._unheard = True
            print(
                f"geosweep: reports from rank {_rank()} are ignored; the trial's metrics are those of rank 0",
                file=sys.stderr,
            )
        self._say(step=at, metrics=found, unread=sorted(self.parameters.unread))
        self._look()

    def checkpoint(self, **what: Any) -> None:
        """Save these objects (`model=model, optimizer=optimizer`, or plain values) if a checkpoint is due.

        Call it at the end of a step, in a distributed run in every process; the first one saves for all. If the sweep
        is told to stop, the script exits here once everything is saved. Alone nothing is saved.
        """
        if self._folder is None:
            return
        if not self._saves:
            self._saves = True
            (self._folder / "listens").touch()
        self._look()
        if not self._leaving and time.monotonic() - self._saved < self._every:
            return
        if self._witness is not None:
            self._save(what)
        self._saved = time.monotonic()
        if self._leaving:
            (self._folder / "left").touch()
            raise SystemExit(0)

    def restore(self, **what: Any) -> dict[str, Any] | None:
        """Restore these objects from the last checkpoint, so that `steps` continues there; None if there is none.

        Returns the plain values that were saved. The generators of torch, numpy and Python are restored too.
        """
        if self._folder is None or not (self._folder / "checkpoint.pt").exists():
            return None
        import torch

        saved = torch.load(self._folder / "checkpoint.pt", map_location="cpu", weights_only=False)
        for name, thing in what.items():
            if name in saved["states"]:
                thing.load_state_dict(saved["states"][name])
        self._first = int(saved["done"])
        self._began -= float(saved["seconds"])
        _restore_random(saved["random"])
        values: dict[str, Any] = saved["values"]
        return values

    def _save(self, what: Mapping[str, Any]) -> None:
        import torch

        assert self._folder is not None
        states = {name: thing.state_dict() for name, thing in what.items() if hasattr(thing, "state_dict")}
        values = {name: thing for name, thing in what.items() if name not in states}
        done = self._done
        saved = {"states": states, "values": values, "done": done, "random": _random()}
        saved["seconds"] = time.monotonic() - self._began
        temporary = self._folder / ".checkpoint.pt"
        torch.save(saved, temporary)
        temporary.replace(self._folder / "checkpoint.pt")
        at = self._measure() if self._measure is not None else float(done)
        note = self._folder / ".checkpoint.json"
        note.write_text(
            json.dumps({"step": at, "counts": self._witness.counts() if self._witness else [0, 0]}), encoding="utf-8"
        )
        note.replace(self._folder / "checkpoint.json")

    def _look(self) -> None:
        """Check whether the sweep is to stop."""
        now = time.monotonic()
        if self._folder is not None and now - self._looked > STOP_POLL_S:
            self._looked = now
            self._leaving = self._leaving or (self._folder / "stop").exists()

    def _say(self, **what: Any) -> None:
        if self._witness is not None:
            self._witness.say(**what)


def _number(value: Any) -> float:
    """The loss returned by a step as a number: torch warns when a tensor with a graph is converted."""
    return float(value.detach() if hasattr(value, "detach") else value)


def _rank() -> str:
    return os.environ.get("RANK") or os.environ.get("LOCAL_RANK", "?")


def _random() -> dict[str, Any]:
    """The state of the available random generators."""
    import random

    found: dict[str, Any] = {"python": random.getstate()}
    if "numpy" in sys.modules:
        found["numpy"] = sys.modules["numpy"].random.get_state()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        found["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def _restore_random(found: Mapping[str, Any]) -> None:
    import random

    random.setstate(found["python"])
    if "numpy" in found:
        import numpy

        numpy.random.set_state(found["numpy"])
    if "torch" in found:
        import torch

        torch.set_rng_state(found["torch"])
        if "cuda" in found and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(found["cuda"])


_TRIAL: list[Trial] = []


def trial(**defaults: Any) -> Trial:
    """The trial of this process. `defaults`: parameters for running outside a sweep."""
    if not _TRIAL:
        named = os.environ.get("GEOSWEEP_TRIAL", "")
        folder = Path(named) if named and (Path(named) / "given.json").exists() else None
        _TRIAL.append(Trial(folder, defaults))
    for key, value in defaults.items():
        _TRIAL[0].parameters.setdefault(key, value)
    return _TRIAL[0]
