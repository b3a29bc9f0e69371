"""The command-line reference, generated from the application: every command with its arguments and options."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Any

import typer

from orchestrator.cli.app import Exit, add_verbs, app

SAYS = {
    Exit.DONE: "done",
    Exit.UNEXPECTED: "unexpected error, shown with its traceback",
    Exit.USAGE: "wrong arguments, or a location that is not writable",
    Exit.INVALID_FILE: "the sweep file is invalid",
    Exit.NOT_FOUND: "no such sweep, trial, or file",
    Exit.BUDGET: "the sweep exhausted its budget",
    Exit.CHECK_FAILED: "a check failed: a fairness rule, a control, or a damaged file",
    Exit.SEAL_BROKEN: "the sweep or its source differs from what was sealed",
    Exit.TRIALS_FAILED: "more trials failed than `max_failed` allows",
    Exit.UNREACHABLE: "a service is unreachable, or another driver is running the sweep; try again later",
    Exit.INTERRUPTED: "interrupted; run it again to continue",
}
HEAD = """# The command line

`geosweep COMMAND --help` shows the same text. SWEEP is a sweep's id, a unique prefix of it, or `@last`; FILE is a
[sweep file](sweep_file.md). With `--json`, a command prints one JSON document to standard output; messages go to
standard error.

"""


def application() -> Any:
    """The application with all its commands."""
    add_verbs()
    return typer.main.get_command(app)


def verbs(command: Any, path: str = "geosweep") -> Iterator[tuple[str, Any]]:
    """(invocation, command) of every visible leaf command."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, one in inner.items():
        if not one.hidden:
            yield from verbs(one, f"{path} {name}")


def usage(path: str, command: Any) -> str:
    """The usage line."""
    words = [path]
    if any(one.param_type_name == "option" for one in command.params):
        words.append("[OPTIONS]")
    for one in command.params:
        if one.param_type_name == "argument":
            word = (one.metavar or one.name.upper()) + ("..." if one.nargs == -1 else "")
            words.append(word if one.required else f"[{word}]")
    return " ".join(words)


def prose(text: str) -> str:
    """Convert help text to Markdown paragraphs, with the example as a code block."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        line = " ".join(part.split())
        example = re.fullmatch(r"Examples?: (geosweep .*)", line)
        parts.append(f"```sh\n{example[1]}\n```" if example else line)
    return "\n\n".join(parts)


def row(one: Any) -> str:
    """The table row of an argument or option."""
    if one.param_type_name == "argument":
        name = f"`{one.metavar or one.name.upper()}`"
    else:
        name = ", ".join(f"`{word}`" for word in (*one.opts, *one.secondary_opts))
    value = one.default
    value = value.value if isinstance(value, enum.Enum) else value
    told = "*required*" if one.required else "" if value in (None, "", False, ()) else f"`{value}`"
    if one.secondary_opts and isinstance(value, bool):
        told = f"`{(one.opts if value else one.secondary_opts)[0]}`"
    extra = f" Environment: `{one.envvar}`." if one.envvar else ""
    more = " Repeatable." if getattr(one, "multiple", False) else ""
    return f"| {name} | {told} | {(one.help or '') + more + extra} |".replace("||", "\\|\\|")


def page() -> str:
    """The page, in Markdown."""
    lines = [HEAD]
    for path, command in verbs(application()):
        lines += [f"## {path.removeprefix('geosweep ')}", "", f"```text\n{usage(path, command)}\n```", ""]
        lines += [prose(command.help or ""), ""]
        shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
        if shown:
            lines += ["| argument or option | default | meaning |", "|---|---|---|", *map(row, shown), ""]
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {SAYS[code]} |" for code in Exit]
    return "\n".join(lines) + "\n"
