"""`run`, `validate`: verbs on a sweep file."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import ROOT, Exit, File, Json, Root, Storage, app, data, emit, fail, show, show_stamps, talk
from orchestrator.cli.remote import packed
from orchestrator.definition.errors import SpecError, errors_of, read
from orchestrator.definition.states import SweepState


class Backend(enum.StrEnum):
    """Where trials run."""

    RAY = "ray"
    DEBUG = "debug"


@app.command()
def run(
    file: File,
    root: Root = ROOT,
    executor: Annotated[
        Backend, typer.Option(help="ray, or debug: this process, one trial after another.")
    ] = Backend.RAY,
    tracking: Annotated[bool, typer.Option(help="Log to MLflow.")] = True,
    cache: Annotated[bool, typer.Option(help="Take over trials that were already trained under the root.")] = True,
    storage: Storage = "",
    address: Annotated[
        str, typer.Option(help="Ray cluster, auto or HOST:PORT; default: a private one.", show_default=False)
    ] = "",
    max_concurrent: Annotated[
        int, typer.Option(min=0, help="Trials at a time; 0: what the file says.", show_default=False)
    ] = 0,
    tracking_uri: Annotated[
        str,
        typer.Option(help="MLflow server when the file names none.", show_default=False),
    ] = "",
    accept_changed_code: Annotated[
        bool,
        typer.Option("--accept-changed-code", help="Continue although source files changed; stamped exploratory."),
    ] = False,
    code: Annotated[
        str,
        typer.Option(help="Archive of your own code that holds FILE, as `k8s render` names it.", show_default=False),
    ] = "",
    as_json: Json = False,
) -> None:
    """Run a sweep, or continue it where it stopped. Ctrl-C drains and checkpoints.

    Example: geosweep run sweeps/quickstart.yaml
    """
    from orchestrator import display, launch, results
    from orchestrator.definition import sweep_file
    from orchestrator.protocol import seal
    from orchestrator.remote import CODE
    from orchestrator.travel.arrival import arrive

    root = root.absolute() if code else root
    parcel = arrive(code) if code else None
    definition = sweep_file.load(file)
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
    )
    ended = launch.launch(
        definition,
        read(file),
        root,
        options,
        say=_say,
        callbacks=(display.Stretched(talk),),
        watch=lambda conductor: display.watching(conductor, talk),
    )
    folder, identity = ended.folder, ended.folder.sweep_id
    if ended.unfinished:
        _stopped(file, ended.state)
    if as_json:
        emit(results.best(folder))
    else:
        show(display.arms_table(ended.spec, folder))
        show_stamps(seal.stamps(folder))
        talk.print(f"Next: geosweep ui; geosweep best {identity} --json; geosweep compare @last", highlight=False)
    launch.check_budget(folder)
    launch.check_failed(ended.spec, folder)


def _say(line: str, *, warns: bool = False) -> None:
    talk.print(line, highlight=False, markup=False, style="yellow" if warns else None)


def _stopped(file: Path, state: SweepState) -> None:
    if state is SweepState.BUDGET:
        fail(f"the wall-clock budget is spent; raise budget.wall_clock and continue: geosweep run {file}", Exit.BUDGET)
    talk.print(f"drained: every running trial wrote a checkpoint. Continue with: geosweep run {file}", highlight=False)
    raise typer.Exit(int(Exit.INTERRUPTED))


@app.command()
def validate(file: File, as_json: Json = False) -> None:
    """Check a sweep file; nothing is started. Exit code 3, and file:line:column of all that is wrong, by line.

    Example: geosweep validate sweeps/quickstart.yaml
    """
    from orchestrator.definition import model, sweep_file

    try:
        identity = model.sweep_id(sweep_file.load(file))
    except SpecError as error:
        if not as_json:
            raise
        found = [
            {"line": one.line, "column": one.column, "key": one.key, "message": one.message} for one in errors_of(error)
        ]
        emit({"schema": "geosweep/validate/1", "file": str(file), "valid": False, "errors": found})
        raise typer.Exit(int(Exit.INVALID_FILE)) from None
    if as_json:
        emit({"schema": "geosweep/validate/1", "file": str(file), "valid": True, "sweep_id": identity})
    else:
        data.print(f"{file}: valid, sweep {identity}", highlight=False)
