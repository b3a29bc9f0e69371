"""`convert`: sweep files of other systems, converted to ours."""

from __future__ import annotations

import enum
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import Exit, Json, app, emit, fail, next_steps, talk
from orchestrator.definition.errors import SpecError, read

SCHEMA = "geosweep.schema.json"
"""Where editors find the JSON Schema of the written file."""


class System(enum.StrEnum):
    """Whose file it is."""

    WANDB = "wandb"
    OPTUNA = "optuna"
    KATIB = "katib"
    RAY = "ray"


@app.command()
def convert(
    system: Annotated[System, typer.Argument(help="wandb, optuna, katib or ray.")],
    file: Annotated[Path, typer.Argument(help="A file of that system (YAML or JSON).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: standard output.")
    ] = None,
    arms: Annotated[
        str, typer.Option(help="A parameter with a list of values: each value becomes an arm.", show_default=False)
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Convert a sweep file of another system. Comments in the new file say what was changed, and why.

    Example: geosweep convert wandb sweep.yaml -o new.yaml
    """
    from orchestrator.convert import program, systems
    from orchestrator.definition import sweep_file
    from orchestrator.storage import whole

    if output is not None and output.exists() and not force:
        fail(f"{output} already exists; name another file, or give --force", Exit.USAGE)
    try:
        draft = systems.convert(system.value, read(file), str(file), by=arms)
    except program.NoListError as error:
        fail(str(error), Exit.USAGE)
    text = draft.text()
    if output is not None:
        written = {output: f"# yaml-language-server: $schema={SCHEMA}\n{text}"}
        if not (schema := output.with_name(SCHEMA)).exists():
            written[schema] = json.dumps(sweep_file.json_schema(), indent=1) + "\n"
        whole.write(written)
    problems: list[str] = []
    try:
        sweep_file.loads(text, str(output or "NEW.yaml"))
    except SpecError as error:
        problems = str(error).splitlines()
    if as_json:
        notes = [asdict(note) for note in draft.notes]
        emit({"schema": "geosweep/convert/1", "file": str(file), "sweep": text, "notes": notes, "problems": problems})
        return
    if output is None:
        typer.echo(text, nl=False)
    for kind in ("changed", "left out", "to fill in"):
        found = sorted((note for note in draft.notes if note.kind == kind), key=lambda note: note.line)
        if found:
            talk.print(f"{kind}: {len(found)}", style="bold", highlight=False)
        for note in found:
            key = f"{note.key}: " if note.key else ""
            talk.print(f"  {file}:{note.line}: {key}{note.text}", highlight=False, markup=False, soft_wrap=True)
    for line in problems:
        talk.print(f"still to fix: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if output is not None:
        next_steps(shlex.join(["geosweep", "validate" if problems else "plan", str(output)]))
