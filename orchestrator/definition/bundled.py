"""Bundled files: sweeps, guides, manifests. A checkout has them at its top level, an installed package inside."""

from __future__ import annotations

from pathlib import Path

from orchestrator.definition.errors import nearest

TOP = Path(__file__).parents[2]


def folder(name: str) -> Path:
    """`sweeps`, `docs` or `k8s`: inside the installed package, or at the top of the checkout."""
    inside = TOP / "geosweep" / name
    return inside if inside.is_dir() else TOP / name


def sweeps() -> dict[str, Path]:
    """Name -> file of each bundled sweep: `quickstart`, `own_data/cifar100_sam`."""
    home = folder("sweeps")
    return {str(file.relative_to(home).with_suffix("")): file for file in sorted(home.rglob("*.yaml"))}


def sweep(given: Path) -> Path:
    """The file meant: the one at this path, or the bundled sweep of this name, or else the path unchanged.

    A folder of that name, such as the data of a sweep, is not a sweep file.
    """
    if given.is_file() or given.suffix or given.is_absolute():
        return given
    return sweeps().get(str(given), given)


def meant(given: Path) -> str:
    """For an error about a missing file: the bundled sweep that a bare name could have meant, or an empty string."""
    return nearest(str(given), names) if not given.suffix and (names := sweeps()) else ""
