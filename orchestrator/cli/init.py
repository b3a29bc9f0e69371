"""`init`: a first sweep of one's own, ready to run."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import Exit, app, data, fail
from orchestrator.definition import bundled

STARTER = Path(__file__).with_name("starter")
FILES = {
    "sweep.yaml": STARTER / "sweep.yaml",
    "spirals.py": STARTER / "spirals.py",
    "README.md": STARTER / "README.md",
    ".gitignore": STARTER / "gitignore",
    "schema.json": bundled.folder("sweeps") / "schema.json",
}
"""Name in the new folder -> what is copied."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into, made if need be.")] = Path(),
) -> None:
    """Write a sweep file, a task and a README to start from; they run as they are. Writes over nothing.

    Example: geosweep init my-sweep
    """
    if there := [name for name in FILES if (folder / name).exists() and name != ".gitignore"]:
        fail(f"{folder}: {', '.join(there)} is there already; name an empty or a new folder", Exit.USAGE)
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in FILES.items():
        if not (folder / name).exists():
            shutil.copyfile(source, folder / name)
    data.print(f"{folder}: wrote {', '.join(FILES)}", highlight=False)
    data.print("Next:", highlight=False)
    if folder != Path():
        data.print(f"  cd {shlex.quote(str(folder))}", highlight=False, soft_wrap=True)
    data.print("  geosweep run sweep.yaml", highlight=False)
