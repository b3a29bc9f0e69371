"""The command line of a script, in the syntax of W&B sweeps.

    ${env}                     /usr/bin/env
    ${interpreter}             the Python that runs this sweep
    ${program}                 the script
    ${args}                    --name=value for every parameter
    ${args_no_boolean_flags}   likewise, but --name for true and nothing for false
    ${args_no_hyphens}         name=value
    ${args_json}               all parameters as one JSON object; dotted names are nested: optim.lr is lr in optim
    ${args_json_file}          the path of a file that holds it
    ${envvar:NAME}             an environment variable

and ours: ${seed}, ${budget}, ${trial_dir} (the trial's own folder), ${checkpoint} (see `resume_arg`). An argument
written `seed_arg: --seed` is appended as --seed=VALUE; `seed_arg: seed` makes it one of the parameters.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNNER = Path("geosweep") / "_run.py"
MACRO = re.compile(r"\$\{([a-z_]+)(?::([A-Za-z_][A-Za-z0-9_]*))?\}")
MACROS = ("env", "interpreter", "program", "args", "args_no_boolean_flags", "args_no_hyphens", "args_json",
          "args_json_file", "envvar", "seed", "budget", "trial_dir", "checkpoint")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Given:
    """The inputs of one run."""

    program: Path
    """Its path on this machine."""
    folder: Path
    """The trial's folder."""
    parameters: Mapping[str, Any]
    seed: int
    budget: float
    resume: str | None = None
    """The value of `resume_arg` for a run that continues, with `checkpoint` filled in."""
    checkpoint: str = ""


def usual(program: str) -> list[str]:
    """The default command."""
    start = ["${interpreter}"] if program.endswith(".py") else []
    return [*start, "${program}", "${args}"]


def line(task: Mapping[str, Any], given: Given) -> list[str]:
    """The command line. `task` holds the keys of the sweep file's section."""
    parameters, after = dict(given.parameters), list[str]()
    for key, value in (("seed_arg", given.seed), ("budget_arg", number(given.budget)), ("output_arg", given.folder)):
        name = task.get(key)
        if name and (name.startswith("-") or name.endswith("=")):
            after.append(f"{name}{value}" if name.endswith("=") else f"{name}={value}")
        elif name:
            parameters[name] = value if key == "seed_arg" else str(value) if key == "output_arg" else given.budget
            if key == "budget_arg":
                parameters[name] = whole(given.budget)
    if given.resume is not None:
        after += [_filled(word, given, parameters) for word in given.resume.split()]
    words = list(task["command"] or usual(task["program"]))
    found = [part for word in words for part in _expanded(word, given, parameters)] + after
    return _under_runner(found, str(given.program)) if task.get("prove", True) else found


def number(value: float) -> str:
    """A budget as a script reads it: integers without a decimal point."""
    return str(whole(value))


def whole(value: float) -> int | float:
    """The same number, as an int if it is an integer."""
    return int(value) if float(value).is_integer() else value


def _expanded(word: str, given: Given, parameters: Mapping[str, Any]) -> Iterator[str]:
    match word:
        case "${args}":
            yield from (f"--{key}={text(value)}" for key, value in parameters.items())
        case "${args_no_boolean_flags}":
            for key, value in parameters.items():
                if not isinstance(value, bool):
                    yield f"--{key}={text(value)}"
                elif value:
                    yield f"--{key}"
        case "${args_no_hyphens}":
            yield from (f"{key}={text(value)}" for key, value in parameters.items())
        case _:
            yield _filled(word, given, parameters)


def _filled(word: str, given: Given, parameters: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        match found[1]:
            case "env":
                return "/usr/bin/env"
            case "interpreter":
                return sys.executable
            case "program":
                return str(given.program)
            case "args_json":
                return json.dumps(nested(parameters))
            case "args_json_file":
                path = given.folder / "parameters.json"
                path.write_text(json.dumps(nested(parameters), indent=1), encoding="utf-8")
                return str(path)
            case "envvar":
                return os.environ.get(found[2] or "", "")
            case "seed":
                return str(given.seed)
            case "budget":
                return number(given.budget)
            case "trial_dir":
                return str(given.folder)
            case "checkpoint":
                return given.checkpoint
        return found[0]

    return MACRO.sub(value, word)


def nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with dots in names as levels. A name below one that has a value of its own stays as it is."""
    found: dict[str, Any] = {}
    for key, value in sorted(parameters.items(), key=lambda item: item[0].count(".")):
        *above, last = key.split(".")
        place = found
        if any(".".join(above[:n]) in parameters for n in range(1, len(above) + 1)):
            above, last = [], key
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def text(value: Any) -> str:
    """A value on a command line: as W&B writes it, with lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict | tuple) else str(value)


def _under_runner(command: Sequence[str], program: str) -> list[str]:
    """The command with our runner between Python and its script; unchanged if the command is not Python."""
    runner = Path(__file__).parents[3] / RUNNER
    for i, word in enumerate(command[:-1]):
        python = word == sys.executable or re.fullmatch(r"python(\d(\.\d+)?)?", Path(word).name)
        if python and (command[i + 1] == program or command[i + 1] == "-m") and runner.exists():
            return [*command[: i + 1], str(runner), *command[i + 1 :]]
        if python:
            break
    return list(command)
