"""The application object, options that all verbs share, and exit codes."""

from __future__ import annotations

import enum
import errno
import gc
import importlib
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console, Group
from rich.table import Table

from orchestrator import terminal
from orchestrator.cli.root import ROOT as ROOT
from orchestrator.cli.root import Root as Root
from orchestrator.definition import places
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial import termination

if TYPE_CHECKING:
    from orchestrator.definition.overrides import Asked
    from orchestrator.scheduling.conductor import SweepConductor

app = typer.Typer(
    help="Hyperparameter sweeps for optimizers that use the geometry of the loss.\n\n"
    "    geosweep run quickstart\n\n    geosweep best @last",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
talk = Console(stderr=True)
data = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else terminal.PIPED)


VERBS = {
    "init": ("init",),
    "run": ("run", "validate"),
    "extend": ("extend",),
    "plan": ("plan",),
    "lint": ("lint",),
    "sweeps": ("status", "best", "export", "stop"),
    "logs": ("logs", "metrics"),
    "watch": ("watch",),
    "keep": ("list", "delete"),
    "compare": ("compare", "report", "verify", "profile"),
    "table": ("table",),
    "convert": ("convert",),
    "imports": ("import",),
    "reconcile": ("reconcile",),
    "ui": ("ui",),
    "services": ("doctor",),
    "data": ("data",),
    "k8s": ("k8s",),
    "submit": ("submit",),
}
"""Modules of this package; importing one adds its verbs. They stand in this order on the help page."""


class Exit(enum.IntEnum):
    """Exit codes of every verb."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID_FILE = 3
    NOT_FOUND = 4
    BUDGET = 5
    CHECK_FAILED = 6
    SEAL_BROKEN = 7
    TRIALS_FAILED = 8
    UNREACHABLE = 75
    INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"geosweep {version('geosweep')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the verb."""


def beside(file: Path | None) -> Path | None:
    """The named sweep file, by path or bundled name; modules and files are looked up in its folder,
    then in the current one. Raises SpecError.
    """
    if file is None:
        return None
    from orchestrator.definition import bundled
    from orchestrator.definition.errors import UnreadableError

    found = bundled.sweep(file)
    if not found.exists() and (meant := bundled.meant(file)):
        raise UnreadableError(file, f"no such file, and no bundled sweep of that name{meant}")
    places.remember(found.absolute().parent)
    return found


def named(sweep: str | None) -> str | None:
    """The id of the sweep that a file defines, where a file is named; what was typed otherwise. Raises SpecError."""
    if sweep is None or not sweep.endswith((".yaml", ".yml")) or not Path(sweep).is_file():
        return sweep
    from orchestrator.definition import model

    return model.sweep_id(asked_of(beside(Path(sweep)) or Path(sweep), ()).load())


Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="GEOSWEEP_STORAGE",
        show_default=False,
        show_envvar=True,
        help="Database for the studies, postgresql+psycopg://...; default: a journal file in the sweep's folder.",
    ),
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        show_default=False,
        help="Ask the cluster that it was submitted to: a Ray dashboard, http://HOST:8265; or k8s, k8s://CONTEXT.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
File = Annotated[
    Path, typer.Argument(help="A sweep file (YAML), or the name of a bundled one: quickstart.", callback=beside)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Keys of the file to change, such as budget.trials_per_arm=16.", show_default=False
    ),
]
SWEEP = "Sweep id, unique prefix, or @last; or its folder, or its file."
Sweep = Annotated[str, typer.Argument(help=SWEEP, callback=named)]
NO_PLACE = (errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG)
"""Why a place cannot be written to, beyond the errors that Python has classes for."""


def emit(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output; non-finite numbers become null."""
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(json.loads(json.dumps(document), parse_constant=lambda name: None), indent=1)
    sys.stdout.write(text + "\n")


def show(shown: Table | Group) -> None:
    """Print a table, or a group with one; nothing is cut off, however narrow the terminal."""
    terminal.show(data, shown)


def say(message: str, style: str | None = None) -> None:
    """Print a message on standard error; a command at its end gets its own line."""
    terminal.say(talk, message, style)


def typed(context: typer.Context, verb: str = "", leave: Sequence[str] = (), arguments: Sequence[str] = ()) -> str:
    """The current command, to be run again: with the options that were typed or came from variables.

    `verb` and `arguments` replace its own, for another verb that has the same options except those in `leave`.
    Passwords in addresses and the addresses of messages are not shown.
    """
    from orchestrator.storage import object_store

    given, words = list(arguments), list[str]()
    for one in context.command.params:
        name, source = str(one.name), context.get_parameter_source(str(one.name))
        value = context.params.get(name)
        if value is None or name in leave or source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT"):
            continue
        if name == "root":
            value = object_store.far(value) or value
        several = [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
        if name == "notify":
            several = [re.sub(r"https?://.*", "URL", v) for v in several]
        elif name == "overrides":
            several = [re.sub(r"https?://\S+", "URL", v) if v.startswith("notify") else v for v in several]
        if one.param_type_name == "argument":
            given += [] if verb else several
        elif isinstance(value, bool):
            words.append((one.opts if value else one.secondary_opts)[0])
        else:
            words += [word for v in several for word in (one.opts[0], v)]
    line = shlex.join(["geosweep", verb or str(context.info_name), *given, *words])
    return re.sub(r"(://[^:/@\s]+):[^/@\s]+@", r"\1:PASSWORD@", line)


MOST_LOOKED_AT = 2000


def comparable(found: SweepFolder) -> bool:
    """Whether `compare` answers; for a sweep of more than MOST_LOOKED_AT trials, judged by a quick look."""
    from orchestrator import results

    if len(results.arm_values(found, found.resolved().report_metric)) < 2:
        return False
    if len(results.ended_trials(found)) > MOST_LOOKED_AT:
        return True
    from orchestrator.compare.answer import answer
    from orchestrator.compare.evidence import Evidence
    from orchestrator.statistics.refused import Refused

    try:
        answer(Evidence(found))
    except (Refused, NotFound):
        return False
    return True


def next_steps(*commands: str) -> None:
    """Next commands, each on one line, ready to copy."""
    for lead, command in zip(("Next:", *[" " * 5] * len(commands)), commands, strict=False):
        talk.print(f"{lead} {command}", highlight=False, markup=False, soft_wrap=True)


def asked_of(file: Path, words: Sequence[str] | None) -> Asked:
    """A sweep file with the overrides of the command line. Raises SpecError."""
    from orchestrator.definition import overrides

    for word in words or ():
        if not overrides.is_override(word):
            fail(f"{word}: an override has the form KEY=VALUE, such as budget.trials_per_arm=16", Exit.USAGE)
    return overrides.asked(file, words or ())


def show_stamps(stamps: Sequence[str]) -> None:
    """Say below a table why it is exploratory (see `seal.stamps`)."""
    for stamp in stamps:
        terminal.say(data, f"exploratory: {stamp}", "yellow")


class Failed(typer.Exit):
    """An exit code and its message."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(int(code))
        self.message = message


def fail(message: str, code: Exit) -> NoReturn:
    """Print an error message on standard error and exit."""
    say(message, "red")
    raise Failed(code, message)


def judged(error: BaseException) -> tuple[Exit, str] | None:
    """(exit code, message) for an error that users can fix or that is not ours; None for an unexpected one."""
    from orchestrator.definition.errors import BudgetSpent, SpecError, TrialsFailed, UsageError
    from orchestrator.protocol.errors import CodeChanged, ControlFailed, Unfair
    from orchestrator.storage import disk
    from orchestrator.storage.errors import Damaged, Held, NotFound, Unreachable
    from orchestrator.storage.object_store import StoreError
    from orchestrator.travel.errors import CannotTravel
    from orchestrator.trial.workspace import NotShared

    codes: dict[type[Exception], Exit] = {
        SpecError: Exit.INVALID_FILE,
        UsageError: Exit.USAGE,
        TrialsFailed: Exit.TRIALS_FAILED,
        BudgetSpent: Exit.BUDGET,
        NotFound: Exit.NOT_FOUND,
        NotShared: Exit.USAGE,
        CannotTravel: Exit.CHECK_FAILED,
        ControlFailed: Exit.CHECK_FAILED,
        Unfair: Exit.CHECK_FAILED,
        Damaged: Exit.CHECK_FAILED,
        CodeChanged: Exit.SEAL_BROKEN,
        Held: Exit.UNREACHABLE,
        Unreachable: Exit.UNREACHABLE,
        StoreError: Exit.UNREACHABLE,
    }
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
    if code is not None:
        return code, str(error)
    if isinstance(error, (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)):
        return Exit.USAGE, f"{error.filename}: {error.strerror}; name a place that you can write to"
    if isinstance(error, OSError) and error.errno in NO_PLACE and error.filename:
        return Exit.USAGE, f"{error.filename}: {error.strerror}; name another place"
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED, "stopped"
    if isinstance(error, Exception) and disk.is_full(error):
        where = Path(getattr(error, "filename", None) or ".")
        return Exit.UNREACHABLE, str(error) if isinstance(error, disk.DiskFull) else disk.described(where)
    return None


def _end(number: int, frame: Any) -> NoReturn:
    """Ctrl-C in a command that already ends because of one."""
    os._exit(Exit.INTERRUPTED)


LOADING, LASTING = (1_000_000, 50, 100), (300_000, 20, 100)
"""Thresholds of garbage collection: imports are no garbage, and looking for some takes up to a quarter of their time;
a driver that runs for days has some, 200 objects for each trial.
"""


def watched(conductor: SweepConductor) -> AbstractContextManager[None]:
    """Progress of a sweep, whose driver has loaded what it needs and may run for days."""
    from orchestrator import display

    gc.freeze()
    gc.set_threshold(*LASTING)
    return display.watching(conductor, talk)


def add_verbs(words: Sequence[str] = ()) -> None:
    """Import the verb that a command begins with; all of them if it names none, for help and the shell's completion."""
    asked = [group for group, verbs in VERBS.items() if words and words[0] in verbs]
    for group in asked or VERBS:
        importlib.import_module(f"orchestrator.cli.{group}")


@lru_cache(maxsize=1)
def _command(verbs: int) -> Callable[..., Any]:
    """The `verbs` that were added so far; made once, since that takes 30 ms."""
    return typer.main.get_command(app)


def main() -> None:
    """Errors that users can fix become one line and an exit code."""
    gc.set_threshold(*LOADING)
    places.ours_first()
    places.current_last()
    add_verbs(sys.argv[1:])
    try:
        terminal.readable()
        with termination.exits_raise():
            _command(len(app.registered_commands) + len(app.registered_groups))(prog_name="geosweep")
    except (Exception, KeyboardInterrupt) as error:
        if (found := judged(error)) is None:
            raise
        code, said = found
        if code is Exit.INTERRUPTED:
            signal.signal(signal.SIGINT, _end)
        say(said, None if code is Exit.INTERRUPTED else "red")
        sys.exit(int(code))
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            say("stopped")  # typer ends without a word
        if end.code == int(Exit.INTERRUPTED):
            signal.signal(signal.SIGINT, _end)  # what is being ended shows no traceback, and the code stays what it is
        raise
    finally:
        gc.freeze()  # else the process spends a second on a last garbage collection at exit
