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
from orchestrator.definition import model, places
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
    """Run a sweep, or continue it; a sweep that is done is returned at once.

    Ctrl-C (in a notebook: interrupt the kernel) drains it: every running trial writes a checkpoint, and the sweep is
    returned with `state` stopped. Call `run` again to continue.

    Args:
        sweep: A path, YAML text, or a dict with the content of the YAML. In a dict, a class may be given instead of
            the name of a task or an optimizer.
        root: Folder that holds all sweeps, or `s3://BUCKET/FOLDER`; default: GEOSWEEP_ROOT, else `runs`.
        executor: `ray`, or `debug` to run in this process, one trial after another.
        overrides: Dotted key -> value, applied to the sweep before it is read: `{"budget.per_trial": 100}`. They change
            its id just as an edited file would.
        on_report: Called for every report of a trial and at its end. An exception that it raises drains the sweep
            and is re-raised.
        progress: Show progress: bars in a notebook, elsewhere the output of the command.
        tracking: Log to MLflow.
        tracking_uri: MLflow server, if the sweep names none.
        cache: Reuse trials that were already trained under the root.
        storage: Database for the studies; default: GEOSWEEP_STORAGE, or else a journal in the sweep's folder.
        address: Ray cluster, `auto` or HOST:PORT; default: a private one.
        max_concurrent: Concurrent trials; 0: as the sweep says.
        accept_changed_code: Continue although source files changed; the result is stamped exploratory.
        fair: Refuse a sweep that breaks a rule of `geosweep lint` without a stated reason.
        retry_failed: Train failed trials again; the seal records it.

    Raises:
        SpecError: The definition is invalid; the message names the key.
        UsageError: The request cannot be carried out as given.
        Held: Another process is running this sweep.
        Unreachable: A cluster, database or tracking server does not answer.
        TrialsFailed: More trials failed than the sweep allows.
        CodeChanged: The source code that trials import differs from what was sealed.
        ControlFailed: A control did not give its known result.
        Unfair: `fair` was requested, but the sweep breaks a rule.

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
        left = "was ended or kept its own checkpoint" if spec.task.is_program else "wrote a checkpoint"
        shown.say(f"{found.state}: every running trial {left}; call run again to continue")
    else:
        try:
            launch.check_budget(ended.folder)
        except BudgetSpent as spent:
            shown.say(str(spent), warns=True)
    launch.check_failed(ended.spec, ended.folder)
    return found


def load(sweep: str | os.PathLike[str] = "@last", *, root: str | os.PathLike[str] | None = None) -> Sweep:
    """The sweep with this id or unique prefix, of this folder or sweep file, or the latest one (`@last`).

    It may still be running elsewhere. Raises NotFound with the available sweeps, SpecError for an invalid file.

    >>> import geosweep
    >>> try:
    ...     geosweep.load("llqr", root="nowhere")
    ... except geosweep.errors.NotFound as error:
    ...     print(error)
    no sweep under nowhere/; name another --root, or start one with: geosweep run FILE
    """
    if not isinstance(sweep, str | os.PathLike):
        raise UsageError(f"a sweep is named by an id or a path, and not by a {type(sweep).__qualname__}")
    name = os.fspath(sweep)
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        name = model.sweep_id(read_sweep(Path(name))[0])
    return Sweep(folders.find(root_at(root), name))


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
    """The local folder of a root; for one in an object store, its local mirror."""
    return object_store.near(os.fspath(given or os.environ.get("GEOSWEEP_ROOT") or "runs"))
