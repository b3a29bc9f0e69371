"""Which files of a folder are uploaded: what git has or would add, except what a `.geosweepignore` lists.

In a git repository these are the tracked files and the untracked ones that git does not ignore; elsewhere all files, as
git would add them to a new repository. A `.geosweepignore` applies to its folder and everything below, including nested
repositories, as a `.gitignore` does within one. Git itself reads every pattern. Always excluded: folders of sweeps,
virtual environments and byte code, and files whose names suggest secrets.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.travel.errors import CannotTravel
from orchestrator.travel.secrets import is_secret_name

IGNORE = ".geosweepignore"
NEVER = {".git", ".hg", ".svn", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
TRACKING = {"mlruns", "mlartifacts", "mlflow.db", "mlflow.db-shm", "mlflow.db-wal"}


def traveling(base: Path, leave_out: Sequence[Path] = ()) -> tuple[dict[str, Path], list[str]]:
    """(name below `base`, with slashes -> file; the names that were left out because they suggest secrets).

    A symbolic link is replaced by its target. `leave_out`: files and folders, such as the root of sweeps.

    Raises CannotTravel for a link that leads out of the folder or to an excluded file, and if git is missing where
    there is something for it to read.
    """
    base = base.resolve()
    outside = [place.resolve() for place in leave_out]
    names = _less_ignored(base, [n for n in _listed(base) if not _is_machinery(base, n, outside)])
    secrets = sorted(n for n in names if is_secret_name(n))
    plain = [n for n in names if n not in set(secrets)]
    found = {n: base / n for n in plain if not _linked(base, n) and (base / n).is_file()}
    links = [n for n in plain if _linked(base, n)]
    for name in links:
        found |= _followed(base, name, found)
    return dict(sorted(found.items())), secrets


def _listed(base: Path) -> list[str]:
    """Names below the folder as listed by git; all files if there is no git and nothing for it to read."""
    inside = _repository(base)
    try:
        if inside is not None:
            return sorted(_expanded(base, "", _names(base, "--cached", "--others", "--exclude-standard")))
        with _empty_repository(base) as new:
            return sorted(_expanded(base, "", _names(base, "--others", "--exclude-standard", place=new)))
    except FileNotFoundError:
        if inside is not None or any(True for kind in (".gitignore", IGNORE) for _ in base.rglob(kind)):
            raise CannotTravel(
                f"{base}: git is needed to find out what is ignored, but is not installed; install it"
            ) from None
    return sorted(p.relative_to(base).as_posix() for p in _walked(base))


def _expanded(base: Path, below: str, names: Iterable[str]) -> Iterator[str]:
    """These names in the folder `below`; a nested repository is replaced by the names of its files."""
    for name in names:
        place = base / below / name
        if not place.is_dir() or place.is_symlink():
            yield f"{below}{name}"
        elif (place / ".git").exists():  # of a submodule that was never fetched there is nothing
            inner = _names(place, "--cached", "--others", "--exclude-standard")
            yield from _expanded(base, f"{below}{name.rstrip('/')}/", inner)


def _less_ignored(base: Path, names: Sequence[str]) -> list[str]:
    """These names without those that a `.geosweepignore` names, in a folder below or above, up to the repository's.

    Git is asked in a tree of empty files, which has no inner repositories that it would not look into.
    """
    top = _repository(base) or base
    below = base.relative_to(top)
    folders = {below / parent for name in names for parent in Path(name).parents} | set(below.parents)
    lists = [folder / IGNORE for folder in folders if (top / folder / IGNORE).is_file()]
    if not lists:
        return list(names)
    with tempfile.TemporaryDirectory() as tree, _empty_repository(Path(tree)) as new:
        for path in (below / name for name in names if os.path.lexists(base / name)):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).touch()
        for path in lists:
            (tree / path).write_bytes((top / path).read_bytes())
        ignored = _names(Path(tree), "--others", "--ignored", f"--exclude-per-directory={IGNORE}", place=new)
    return [name for name in names if (below / name).as_posix() not in ignored]


@contextmanager
def _empty_repository(tree: Path) -> Iterator[tuple[str, str]]:
    """The words that have git take `tree` for a repository in which nothing is tracked yet."""
    with tempfile.TemporaryDirectory() as place:
        _git(tree, "init", "--quiet", "--bare", place)
        yield f"--git-dir={place}", f"--work-tree={tree}"


def _names(folder: Path, *kinds: str, place: Sequence[str] = ()) -> set[str]:
    """What git lists of these kinds in the folder."""
    return {name for name in _git(folder, *place, "ls-files", "-z", *kinds).split("\0") if name}


def _git(folder: Path, *words: str) -> str:
    """The output of git. Raises FileNotFoundError without git, CannotTravel if it fails."""
    plain = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False, env=plain)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CannotTravel(f"{folder}: git failed to list ignored files: {said[0]}")
    return os.fsdecode(done.stdout)


def _repository(base: Path) -> Path | None:
    """The folder of the repository that `base` is, or lies in."""
    return next((place for place in (base, *base.parents) if (place / ".git").exists()), None)


def _walked(base: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(base):
        here = Path(place)
        folders[:] = [f for f in folders if f not in NEVER]
        yield from (here / name for name in files)
        yield from (here / f for f in folders if (here / f).is_symlink())


def _is_machinery(base: Path, name: str, outside: Sequence[Path]) -> bool:
    """Whether it is not source: it belongs to a tool, a virtual environment, a sweep, or the root of sweeps."""
    path = base / name
    parts = set(name.split("/"))
    if parts & (NEVER | TRACKING) or name.endswith((".pyc", ".pyo")):
        return True
    if any(path == place or path.is_relative_to(place) for place in outside):
        return True
    above = [p for p in path.parents if p != base and p.is_relative_to(base)]
    return any(
        (p / "pyvenv.cfg").exists() or ((p / "resolved.json").exists() and (p / "trials").is_dir()) for p in above
    )


def _linked(base: Path, name: str) -> bool:
    """Whether the file, or a folder on the way to it, is a symbolic link."""
    path = base / name
    return any(p.is_symlink() for p in (path, *path.parents) if p != base and p.is_relative_to(base))


def _followed(base: Path, name: str, found: dict[str, Path]) -> dict[str, Path]:
    """The target of a link, under the link's name: only files that are uploaded themselves."""
    path = base / name
    try:
        target = path.resolve()
    except RuntimeError:  # Python 3.13 resolves it to itself
        target = path
    if target.is_symlink():
        raise CannotTravel(f"{name} is a link that leads to itself; remove it, or name it in {IGNORE}")
    if not target.is_relative_to(base):
        raise CannotTravel(
            f"{name} is a link to {target}, outside {base}; replace it with a copy, or list it in {IGNORE}"
        )
    inner = target.relative_to(base).as_posix()
    if not target.exists():
        return {}
    if target.is_file():
        if inner not in found:
            raise CannotTravel(f"{name} is a link to {inner}, which is not uploaded; list the link in {IGNORE} too")
        return {name: target}
    if path.is_relative_to(target):
        raise CannotTravel(f"{name} is a link to a folder that contains it; list it in {IGNORE}")
    below = f"{inner}/"
    return {f"{name}/{n[len(below) :]}": found[n] for n in found if n.startswith(below)}
