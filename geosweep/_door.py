"""`run` and `load`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geosweep._progress import for_this_place
from geosweep._reports import Listener, TrialReport
from geosweep._sweep import Sweep
from orchestrator import launch
from orchestrator.definition import given_sweep as overriding
from orchestrator.definition import places
from orchestrator.definition.errors import BudgetSpent, UsageError, read
from orchestrator.definition.model import Spec
from orchestrator.storage import folder as folders
from orchestrator.storage import object_store

Given = str | os.PathLike[str] | Mapping[str, Any]
NO_OVERRIDES: Mapping[str, Any] = {}


def run(
    sweep: Given,
    *,
    root: str | os.PathLike[str] | None = None,
    executor: str = launch.RAY,
    overrides: Mapping[str, Any] = NO_OVERRIDES,
    on_report: Callable[[TrialReport], None] | None = None,
    progress: bool = True,
    tracking: bool = True,
    tracking_uri: str = "",
    cache: bool = True,
    storage: str = "",
    address: str = "",
    max_concurrent: int = 0,
    accept_changed_code: bool = False,
    fair: bool = False,
    retry_failed: bool = False,
) -> Sweep:
    """Run a sweep, or continue it where it stopped; a sweep that is done comes back at once.

    Ctrl-C (in a notebook: interrupt the kernel) drains it: every running trial writes a checkpoint, and the sweep is
    returned with `state` stopped. Call `run` again to go on.

    Args:
        sweep: A path, YAML text, or a dict with what the YAML would say. In a dict a class may stand in the place of
            the name of a task or an optimizer.
        root: Folder that holds all sweeps, or `s3://BUCKET/FOLDER`; default: GEOSWEEP_ROOT, else `runs`.
        executor: `ray`, or `debug` for this process, one trial after another.
        overrides: Dotted key -> value, put into the sweep before it is read: `{"budget.per_trial": 100}`. They change
            its id as an edited file would.
        on_report: Called for every report of a trial and at its end. An exception of its drains the sweep and is
            raised.
        progress: Show how the sweep goes: bars in a notebook, elsewhere what the command shows.
        tracking: Log to MLflow.
        tracking_uri: MLflow server when the sweep names none.
        cache: Take over trials that were already trained under the root.
        storage: Database for the studies; default: GEOSWEEP_STORAGE, else a journal in the sweep's folder.
        address: Ray cluster, `auto` or HOST:PORT; default: a private one.
        max_concurrent: Trials at a time; 0: what the sweep says.
        accept_changed_code: Continue although source files changed; stamped exploratory.
        fair: Refuse a sweep that breaks a rule of `geosweep lint` and does not say why.
        retry_failed: Train trials that failed again; the seal records it.

    Raises:
        SpecError: What is asked for is wrong, with the key.
        UsageError: It cannot be done in this way.
        Held: Another process is running this sweep.
        Unreachable: A cluster, database or tracking server does not answer.
        TrialsFailed: More trials failed than the sweep allows.
        CodeChanged: The source that trials import is not what was sealed.
        ControlFailed: A special case did not come out as it has to.
        Unfair: `fair` was asked for, and it is not.

    >>> import geosweep, tempfile
    >>> sweep = geosweep.run(
    ...     {
    ...         "schema_version": 1,
    ...         "name": "quick",
    ...         "task": {"name": "digits", "model": "mlp"},
    ...         "metric": {"name": "accuracy/val", "goal": "maximize"},
    ...         "arms": {"sgd": {}, "adamw": {}},
    ...         "parameters": {"lr": {"values": [0.01, 0.1]}},
    ...         "method": {"name": "grid"},
    ...         "budget": {"per_trial": 20},
    ...         "seeds": {"tune": 1, "confirm": 2},
    ...     },
    ...     root=tempfile.mkdtemp(), executor="debug", tracking=False, progress=False,
    ... )
    >>> sweep.state, len(sweep.trials), sorted(sweep.best().index)
    ('done', 8, ['adamw', 'sgd'])
    >>> sweep.trials["param.lr"].unique().tolist()
    [0.01, 0.1]
    """
    spec, text = read_sweep(sweep, overrides)
    options = launch.Options(
        executor=executor,
        tracking=tracking,
        tracking_uri=tracking_uri,
        cache=cache,
        storage=storage or os.environ.get("GEOSWEEP_STORAGE", ""),
        address=address,
        max_concurrent=max_concurrent,
        accept_changed_code=accept_changed_code,
        fair=fair,
        retry_failed=retry_failed,
    )
    shown = for_this_place(progress)
    listener = Listener(on_report)
    ended = launch.launch(
        spec,
        text,
        root_at(root),
        options,
        say=shown.say,
        callbacks=(listener, *shown.callbacks),
        watch=listener.beside(shown.watch),
    )
    listener.raise_again()
    found = Sweep(ended.folder)
    if ended.unfinished:
        left = "was ended or kept a checkpoint of its own" if spec.task.is_program else "wrote a checkpoint"
        shown.say(f"{found.state}: every running trial {left}; call run again to go on")
    else:
        try:
            launch.check_budget(ended.folder)
        except BudgetSpent as spent:
            shown.say(str(spent), warns=True)
    launch.check_failed(ended.spec, ended.folder)
    return found


def load(sweep: str = "@last", *, root: str | os.PathLike[str] | None = None) -> Sweep:
    """The sweep of this id or unique prefix, `@last` for the one worked on last; it may still be running elsewhere.

    Raises NotFound with what there is.

    >>> import geosweep
    >>> try:
    ...     geosweep.load("llqr", root="nowhere")
    ... except geosweep.errors.NotFound as error:
    ...     print(error)
    no sweep under nowhere/; name another --root, or start one with: geosweep run FILE
    """
    return Sweep(folders.find(root_at(root), sweep))


def read_sweep(given: Given, overrides: Mapping[str, Any] = NO_OVERRIDES) -> tuple[Spec, str]:
    """A sweep given as a path, a dict or YAML text, and the text of its file. Raises SpecError."""
    if isinstance(given, Mapping):
        return overriding.from_dict(given, overrides)
    if isinstance(given, str) and ("\n" in given or ": " in given or given.lstrip().startswith("{")):
        return overriding.from_text(given, "<text>", overrides)
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"a sweep is a path, a dict or YAML text, and not a {type(given).__qualname__}")
    path = Path(given)
    places.remember(path.absolute().parent)
    return overriding.from_text(read(path), str(path), overrides)


def root_at(given: str | os.PathLike[str] | None) -> Path:
    """The folder on this machine of a root, of one in an object store its near side."""
    return object_store.near(os.fspath(given or os.environ.get("GEOSWEEP_ROOT") or "runs"))
