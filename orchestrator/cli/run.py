"""`run`, `validate`: commands on a sweep file."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orchestrator.cli import children
from orchestrator.cli.ahead import ahead
from orchestrator.cli.app import (
    ROOT,
    Exit,
    Failed,
    File,
    Json,
    Overrides,
    Root,
    Storage,
    app,
    asked_of,
    comparable,
    data,
    emit,
    fail,
    next_steps,
    say,
    show,
    show_stamps,
    talk,
    typed,
    watched,
)
from orchestrator.cli.ending import kept
from orchestrator.cli.k8s_options import Fair
from orchestrator.cli.remote import packed
from orchestrator.definition.errors import SpecError, SpecErrors, errors_of
from orchestrator.definition.states import SweepState

if TYPE_CHECKING:
    from orchestrator.definition.model import Spec
    from orchestrator.definition.overrides import Asked
    from orchestrator.launch import Launched, Options
    from orchestrator.storage.folder import SweepFolder

Notify = Annotated[
    list[str] | None,
    typer.Option(help="Webhook for messages, URL or EVENT=URL: done, diverged, failed, stuck.", show_default=False),
]


SkipSteps = Annotated[
    bool,
    typer.Option("--skip-steps", help="Skip the step that each arm takes at corners of its space."),
]


READING_S = 30.0
"""How long a file may take to be read, the modules that it names included."""


class Backend(enum.StrEnum):
    """Where trials run."""

    RAY = "ray"
    DEBUG = "debug"


Executor = Annotated[Backend, typer.Option(help="ray, or debug: this process, one trial after another.")]
Tracking = Annotated[bool, typer.Option(help="Log to MLflow.")]
RayAddress = Annotated[
    str, typer.Option(help="Ray cluster, auto or HOST:PORT; default: a private one.", show_default=False)
]
ChangedCode = Annotated[
    bool, typer.Option("--accept-changed-code", help="Continue although source files changed; stamped exploratory.")
]


@app.command()
def run(
    context: typer.Context,
    file: File,
    overrides: Overrides = None,
    root: Root = ROOT,
    executor: Executor = Backend.RAY,
    tracking: Tracking = True,
    cache: Annotated[bool, typer.Option(help="Reuse trials that were already trained under the root.")] = True,
    storage: Storage = "",
    address: RayAddress = "",
    max_concurrent: Annotated[
        int, typer.Option(min=0, help="Concurrent trials; 0: as the file says.", show_default=False)
    ] = 0,
    tracking_uri: Annotated[
        str,
        typer.Option(help="MLflow server when the file names none.", show_default=False),
    ] = "",
    accept_changed_code: ChangedCode = False,
    code: Annotated[
        str,
        typer.Option(help="Archive of your own code that contains FILE, as named by `k8s render`.", show_default=False),
    ] = "",
    notify: Notify = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Retrain trials that failed, once the cause is fixed; sealed."),
    ] = False,
    skip_steps: SkipSteps = False,
    fair: Fair = False,
    as_job: Annotated[
        bool,
        typer.Option(
            "--as-job",
            help="For jobs started by an operator: a spent budget or a stop also gives code 0, and machine faults are "
            "retried here.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a sweep, or continue it where it stopped. Ctrl-C drains and checkpoints.

    Example: geosweep run sweeps/quickstart.yaml budget.trials_per_arm=16
    """
    if as_job:
        from orchestrator.cli.job import DRIVER, Supervisor

        raise typer.Exit(Supervisor([*DRIVER, *(word for word in sys.argv[1:] if word != "--as-job")]).run())
    here = executor is Backend.RAY and not (address or code)
    with kept() as place, ahead(file, overrides or (), root, max_concurrent) if here else nullcontext() as cluster:
        from orchestrator import launch
        from orchestrator.definition import model
        from orchestrator.remote import CODE
        from orchestrator.travel.arrival import arrive

        root = root.absolute() if code else root
        parcel = arrive(code) if code else None
        asked = asked_of(file, overrides)
        definition = _loaded(asked, lambda error: _say(f"{error.message.partition(';')[0]}; waiting", warns=True))
        place.at(root, model.sweep_id(definition))
        if tracking:
            place.tracked(definition.name, definition.tracking.mlflow or tracking_uri or None)
        if executor is Backend.RAY and address not in ("", "local") and CODE not in os.environ:
            parcel = packed(definition, file, root)
        options = launch.Options(
            executor=executor,
            tracking=tracking,
            cache=cache,
            storage=storage,
            address=address,
            max_concurrent=max_concurrent,
            tracking_uri=tracking_uri,
            accept_changed_code=accept_changed_code,
            parcel=parcel,
            notify=tuple(notify or ()),
            steps=not skip_steps,
            fair=fair,
            retry_failed=retry_failed,
            give_up=_giving_up(asked),
            cluster=cluster,
        )
        ended = carry_out(asked, definition, root, options, typed(context))
        if as_json:
            from orchestrator import results

            emit(results.best(ended.folder).document())
        else:
            show_end(ended, options)
        conclude(ended)


def carry_out(asked: Asked, definition: Spec, root: Path, options: Options, again: str) -> Launched:
    """Run or continue the sweep, showing progress; ends the command if it was drained.

    `again`: the command that continues it.
    """
    from orchestrator import display, launch

    try:
        own = options.executor is Backend.DEBUG
        with asked.located(), children.ended() if own else nullcontext():
            ended = launch.launch(
                definition,
                asked.text,
                root,
                options,
                say=_say,
                callbacks=(display.Stretched(talk),),
                watch=watched,
            )
    except KeyboardInterrupt:
        fail(f"stopped at once; {_left(root, definition)}: {again}", Exit.INTERRUPTED)
    if ended.unfinished:
        _stopped(ended, definition, again)
    return ended


def _left(root: Path, definition: Spec) -> str:
    """What a sweep that was stopped at once has, and how the command that goes on is announced."""
    from orchestrator import results
    from orchestrator.definition import model
    from orchestrator.storage.folder import SweepFolder

    folder = SweepFolder(root, model.sweep_id(definition))
    if not next(folder.path.glob("trials/*/trial.json"), None):
        return "no trial had begun. Begin with"
    if not results.status(folder).total.unended:
        return "all trials had ended, but tables and MLflow may lack some. Complete them with"
    return "running trials resume from their newest checkpoint, if they have one. Continue with"


def show_end(ended: Launched, options: Options) -> None:
    """The table of arms, why it may be exploratory, and what to do next."""
    from orchestrator import display, results
    from orchestrator.protocol import seal
    from orchestrator.trial import noticed

    show(display.arms_table(ended.spec, ended.folder))
    if ended.spec.task.is_program:
        for line in noticed.unread(results.ended_trials(ended.folder)):
            say(line, "yellow")
    show_stamps(seal.stamps(ended.folder))
    next_steps(*_following(ended, options))


def _following(ended: Launched, options: Options) -> Iterator[str]:
    """Commands that can show something about the sweep."""
    from orchestrator import results

    folder, spec = ended.folder, ended.spec
    status, best = results.status(folder), results.best(folder)
    if status.total.failed:
        yield folder.command("logs", folder.sweep_id)
    if comparable(folder):
        yield folder.command("compare", folder.sweep_id)
    if best.arms:
        yield folder.command("best", folder.sweep_id)
        yield folder.command("report", folder.sweep_id)
    if options.tracking and not spec.tracking.mlflow:
        yield folder.command("ui")


def conclude(ended: Launched) -> None:
    """Note that the result was seen, and exit with the code for a spent budget or too many failed trials."""
    from orchestrator import launch
    from orchestrator.protocol import extensions

    extensions.look(ended.folder, "run")
    launch.check_budget(ended.folder)
    launch.check_failed(ended.spec, ended.folder)


def _say(line: str, *, warns: bool = False) -> None:
    say(line, "yellow" if warns else None)


def _stopped(ended: Launched, definition: Spec, again: str) -> None:
    if ended.state is SweepState.BUDGET:
        fail(f"the wall-clock budget is spent; raise budget.wall_clock and continue with: {again}", Exit.BUDGET)
    said = f"drained: {drained(ended.folder, definition)}. Continue with: {again}"
    say(said)
    raise Failed(Exit.INTERRUPTED, said)


def drained(folder: SweepFolder, definition: Spec) -> str:
    """What the trials that were running have left; where checkpoints are on this machine, which of them have none."""
    if definition.task.is_program:
        return "every running trial was stopped or kept its own checkpoint"
    running = [
        path.parent for path in folder.path.glob("trials/*/trial.json") if not (path.parent / "result.json").exists()
    ]
    bare = sorted(path.name for path in running if not next(path.glob("checkpoint-*.pt"), None))
    if not bare or folder.far or definition.resources.pack > 1:
        return "every running trial wrote a checkpoint"
    who = f"{len(bare)} trials ({', '.join(bare[:3])}{', ...' if len(bare) > 3 else ''})" if bare[1:] else bare[0]
    rest = "; every other running trial wrote one" if len(running) > len(bare) else ""
    return f"{who} wrote no checkpoint and start{'' if bare[1:] else 's'} over{rest}"


@app.command()
def validate(
    file: File,
    overrides: Overrides = None,
    skip_steps: SkipSteps = False,
    trace: Annotated[bool, typer.Option("--traceback", help="Show the traceback of each error.")] = False,
    as_json: Json = False,
) -> None:
    """Check a sweep file; each arm takes a step, nothing is started. Exit code 3, with file:line:column of every
    error, by line.

    Example: geosweep validate sweeps/quickstart.yaml
    """
    from orchestrator.definition import method, model
    from orchestrator.definition import plan as planning

    left_out, notes = "", list[str]()
    try:
        asked = asked_of(file, overrides)
        give_up = _giving_up(asked, as_json)
        try:
            definition = asked.load() if skip_steps else _loaded(asked, give_up)
            identity = model.sweep_id(definition)
        except SpecError as error:
            raise error if skip_steps or error.rest is None else _with_steps(error, error.rest, asked) from None
        if method.is_foreign(definition.method.name):
            from orchestrator.scheduling.studies import check_sampler

            with asked.located():
                check_sampler(definition, asked.text)
        if not skip_steps:
            from orchestrator.protocol import rehearsal

            with asked.located(), children.ended():
                left_out, found = rehearsal.rehearse(definition, asked.text, give_up=give_up)
                notes += found
    except SpecError as error:
        if trace:
            _show_origins(error)
        if not as_json:
            raise
        emit(_invalid(file, error))
        raise typer.Exit(int(Exit.INVALID_FILE)) from None
    notes += planning.whole_by_chance(definition)
    if as_json:
        document = {"schema": "geosweep/validate/1", "file": str(file), "valid": True, "sweep_id": identity}
        emit(document | ({"left_out": left_out} if left_out else {}) | ({"notes": notes} if notes else {}))
    else:
        for line in (*([left_out] if left_out else []), *notes):
            _say(line, warns=True)
        data.print(f"{file}: valid, sweep {identity}", highlight=False)


def _invalid(file: str | Path, error: SpecError) -> dict[str, Any]:
    """The document of a file in which something is wrong."""
    from orchestrator.definition.overrides import OverrideError

    rows = [
        {"line": one.line, "column": one.column, "key": one.key, "message": one.message}
        | ({"override": one.word} if isinstance(one, OverrideError) else {})
        for one in errors_of(error)
    ]
    return {"schema": "geosweep/validate/1", "file": str(file), "valid": False, "errors": rows}


def _loaded(asked: Asked, overdue: Callable[[SpecError], None]) -> Spec:
    """The sweep; `overdue` is called for a module or task that does not finish. Raises SpecError."""
    from orchestrator.protocol.patience import endless_reading, watched

    with watched(READING_S, lambda frames: overdue(endless_reading(asked.text, asked.file, frames, READING_S))):
        return asked.load()


def _with_steps(error: SpecError, rest: Spec, asked: Asked) -> SpecError:
    """The errors of the file, and those in the first steps of its valid arms."""
    from orchestrator.protocol import rehearsal

    try:
        with asked.located(), children.ended():
            rehearsal.rehearse(rest, asked.text, give_up=_giving_up(asked))
    except SpecError as broken:
        both = [*errors_of(error), *errors_of(broken)]
        return SpecErrors(sorted(both, key=lambda one: (one.line, one.column)))
    return error


def _giving_up(asked: Asked, as_json: bool = False) -> Callable[[SpecError], NoReturn]:
    """Ends the command at once with the error, from any thread: the main one cannot be interrupted."""
    from orchestrator.protocol.patience import at_once

    out = os.dup(1) if as_json else -1

    def give_up(error: SpecError) -> NoReturn:
        try:
            with asked.located():
                raise error
        except SpecError as located:
            said = located
        if as_json:
            at_once(Exit.INVALID_FILE, out, json.dumps(_invalid(asked.file, said), indent=1))
        at_once(Exit.INVALID_FILE, 2, str(said))

    return give_up


def _show_origins(error: SpecError) -> None:
    """The traceback behind each error."""
    import traceback

    for one in errors_of(error):
        if (origin := one.__cause__ or one.__context__) is not None:
            lines = "".join(traceback.format_exception(origin))
            talk.print(lines, highlight=False, markup=False, soft_wrap=True, style="dim", end="")
