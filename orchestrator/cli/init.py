"""`init`: a first sweep of your own, ready to run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import Exit, app, data, fail
from orchestrator.definition import bundled
from orchestrator.storage import whole

STARTER = Path(__file__).with_name("starter")
FILES = {
    "sweep.yaml": STARTER / "sweep.yaml",
    "spirals.py": STARTER / "spirals.py",
    "README.md": STARTER / "README.md",
    ".gitignore": STARTER / "gitignore",
    "schema.json": bundled.folder("sweeps") / "schema.json",
}
"""Name in the new folder -> file to copy."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into, created if needed.")] = Path(),
) -> None:
    """Write a sweep file, a task and a README to start from; they run as they are. Overwrites nothing.

    Example: geosweep init my-sweep
    """
    if there := [name for name in FILES if os.path.lexists(folder / name) and name != ".gitignore"]:
        verb = "is" if len(there) == 1 else "are"
        fail(f"{folder}: {', '.join(there)} {verb} there already; name an empty or new folder", Exit.USAGE)
    whole.make(folder)
    wrote = [name for name in FILES if not os.path.lexists(folder / name)]
    whole.write({folder / name: FILES[name].read_bytes() for name in wrote})
    data.print(f"{folder}: wrote {', '.join(wrote)}", highlight=False, markup=False)
    data.print("Next:", highlight=False)
    if folder != Path():
        words = shlex.quote(f"./{folder}" if str(folder).startswith("-") else str(folder))
        data.print(f"  cd {words}", highlight=False, soft_wrap=True, markup=False)
    data.print("  geosweep run sweep.yaml", highlight=False)
