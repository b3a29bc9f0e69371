"""`--root`: the folder that holds all sweeps, or a place in an object store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.storage.folder import USUAL_ROOT

ROOT = Path(USUAL_ROOT)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/*")
"""A root in an object store, of which nothing but `s3://` is given."""


def _given(root: str | Path) -> Path:
    """A root as typed. `Path` would make the current folder of nothing, as from a variable that is not set."""
    if root == "":
        raise typer.BadParameter("it is empty; name a folder, . for the current one")
    return Path(root)


def _near(root: Path) -> Path:
    """The local mirror of a root in an object store; `Path` has collapsed slashes in its URI."""
    from orchestrator.storage.object_store import StoreError, near

    if root.exists() and not root.is_dir():
        raise typer.BadParameter(f"{root} is a file; name the folder that holds the sweeps")
    if SCHEME.fullmatch(str(root)):
        raise typer.BadParameter(f"{root}// names no bucket; write {root}//BUCKET/FOLDER")
    try:
        slashes = ":///" if str(root).startswith("file:/") else "://"
        return near(str(root).replace(":/", slashes, 1))
    except StoreError as error:
        raise typer.BadParameter(str(error)) from None


Root = Annotated[
    Path,
    typer.Option(
        "--root",
        parser=_given,
        metavar="<path>",
        envvar="GEOSWEEP_ROOT",
        help="Folder that holds all sweeps, or s3://BUCKET/FOLDER.",
        show_default=True,
        callback=_near,
    ),
]
