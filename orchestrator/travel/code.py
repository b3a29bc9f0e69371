"""The user's code as a parcel: which folder, which modules from elsewhere, what the workers would miss.

The uploaded folder is that of the sweep file, or the current folder if the sweep file is below it and modules are found
there. A module from anywhere else (an editable install, a folder on PYTHONPATH) is added with everything it imports.
Nothing is uploaded for a sweep that uses only registered names.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.definition import method
from orchestrator.definition.addresses import secrets
from orchestrator.definition.model import Spec
from orchestrator.definition.overrides import without_secrets
from orchestrator.definition.parts import TASK, section_of
from orchestrator.remote import Parcel
from orchestrator.storage.object_store import own_scratch
from orchestrator.travel.archive import Contents, digest_of, pack
from orchestrator.travel.errors import CannotTravel
from orchestrator.travel.files import IGNORE, traveling
from orchestrator.travel.secrets import found_in
from orchestrator.trial import source

LIMIT = 100_000_000
"""Bytes of all files together: code and small data. Larger data sets belong on the cluster."""
LARGEST = 5
DATA_SET = "dataset.json"
LONGEST = 1_000_000
"""Bytes of a sweep file."""


def parcel(spec: Spec, file: Path, *, leave_out: Sequence[Path] = (), limit: int = LIMIT) -> Parcel | None:
    """What the sweep in `file` needs on other machines, archived; None if nothing.

    Raises CannotTravel for a file that cannot be uploaded, for a secret, for too much data, and for what a worker would
    miss.
    """
    modules = own_modules(spec)
    named = list(paths_of(spec))
    requirements = spec.environment.file
    if not modules and not any(_is_near(path) for _, path in named) and not requirements:
        return None
    file = file.resolve()
    base = _base(file, modules)
    if base in (Path.home(), Path(base.anchor)):
        raise CannotTravel(
            f"{base} is not a folder to upload to a cluster; put the sweep file and its code in a folder of their own"
        )
    carried, secrets = traveling(base, leave_out)
    carried[file.relative_to(base).as_posix()] = file
    inside, paths = _roots(base, modules)
    for name, path in modules.items():
        if name in inside:
            if path.relative_to(base).as_posix() not in carried:
                raise CannotTravel(_missing(f"{name}, which the sweep imports,", path, base))
        elif carried.setdefault(name, path).read_bytes() != path.read_bytes():
            raise CannotTravel(f"{name} is imported from {path}, and {base / name} is another file; rename one")
    _check_paths(named, base, carried)
    if requirements and requirements.resolve().relative_to(base).as_posix() not in carried:
        raise CannotTravel(_missing("environment.requirements", requirements, base))
    _check_size(base, carried, limit)
    _hide_secrets(carried)
    _check_secrets(carried)
    contents = Contents(sweep=file.relative_to(base).as_posix(), paths=paths)
    return Parcel(
        archive=pack(carried, contents, own_scratch() / "code"),
        digest=digest_of(carried, contents),
        sweep=contents.sweep,
        paths=paths,
        folder=str(base),
        files=len(carried),
        left_out=tuple(secrets),
    )


def own_modules(spec: Spec) -> dict[str, Path]:
    """Source files outside our packages and the installed ones, by import name."""
    ours = source.files(())
    optimizers = (arm.optimizer for arm in spec.arms.values())
    names = (spec.task.name, *optimizers, method.origin(spec.method.name))
    return {name: path.resolve() for name, path in source.files(names).items() if name not in ours}


def _base(file: Path, modules: Mapping[str, Path]) -> Path:
    here, beside = Path.cwd().resolve(), file.parent
    if not beside.is_relative_to(here) or here == Path(here.anchor) or here == Path.home():
        return beside
    found_here = any(path.is_relative_to(here) and not path.is_relative_to(beside) for path in modules.values())
    return here if found_here or not modules else beside


def _roots(base: Path, modules: Mapping[str, Path]) -> tuple[set[str], tuple[str, ...]]:
    """(modules that are imported from inside the folder, the places below it that they are imported from).

    The source of `pkg/task.py` at `src/pkg/task.py` is imported from `src`.
    """
    inside: set[str] = set()
    roots: set[str] = set()
    for name, path in modules.items():
        if path.is_relative_to(base) and path.as_posix().endswith(f"/{name}"):
            root = Path(path.as_posix().removesuffix(name))
            if root.is_relative_to(base):
                inside.add(name)
                roots.add(root.relative_to(base).as_posix())
    order = [place.relative_to(base).as_posix() for place in map(_resolved, sys.path) if place.is_relative_to(base)]
    known = [place for place in order if place in roots]
    return inside, tuple(dict.fromkeys(place for place in [*known, *sorted(roots)] if place != "."))


def _resolved(place: str) -> Path:
    return Path(place or ".").resolve()


def paths_of(spec: Spec) -> Iterator[tuple[str, Path]]:
    """(key, path) for what the file names as a file or folder on this machine; data sets are on the cluster."""
    if spec.method.registry:
        yield "method.registry", Path(spec.method.registry)
    for key, value in _texts(spec):
        if not ("/" in value or Path(value).suffix) or "://" in value:
            continue
        path = Path(value)
        try:
            if path.exists() and not (path / DATA_SET).exists():
                yield key, path
        except OSError:  # a long string
            continue


def _texts(spec: Spec) -> Iterator[tuple[str, str]]:
    """(key, text) for every argument of the task or script, fixed or searched."""
    given: list[tuple[str, Any]] = [(f"task.{key}", value) for key, value in spec.task.parameters.items()]
    for arm in spec.arms.values():
        wanted = [p for p in arm.parameters if spec.task.is_program or section_of(p.name)[0] == TASK]
        given += [(p.name, list(p.values)) for p in wanted]
    for key, value in given:
        yield from ((key, text) for text in dict.fromkeys(_inner(value)))


def _inner(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _inner(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _inner(one)


def _is_near(path: Path) -> bool:
    return not path.is_absolute()


def _check_paths(named: Sequence[tuple[str, Path]], base: Path, carried: Mapping[str, Path]) -> None:
    """A relative path must lead, from the archive's root, to a file that is uploaded."""
    for key, path in named:
        if not _is_near(path):
            continue  # checked on the workers
        near = path.as_posix()
        if Path.cwd().resolve() != base and not (base / path).exists():
            raise CannotTravel(
                f"{key}: {near} exists relative to {Path.cwd()}, but {base} is what gets uploaded; run the command "
                "there, or give an absolute path that exists on all machines of the cluster"
            )
        if near not in carried and not any(name.startswith(f"{near.rstrip('/')}/") for name in carried):
            raise CannotTravel(_missing(f"{key}: {near}", base / path, base))


def _missing(what: str, path: Path, base: Path) -> str:
    if not path.resolve().is_relative_to(base):
        return f"{what} is at {path}, outside {base}, which is what gets uploaded; move it there"
    return (
        f"{what} would be missing on the workers: {path.relative_to(base)} is not uploaded, because git or {IGNORE} "
        "ignores it, or because its name suggests that it holds secrets; fix that, or give an absolute path that "
        "exists on all machines of the cluster"
    )


def _check_size(base: Path, carried: Mapping[str, Path], limit: int) -> None:
    sizes = {name: path.stat().st_size for name, path in carried.items()}
    if (total := sum(sizes.values())) <= limit:
        return
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    listed = ", ".join(f"{name} ({sizes[name] / 1e6:,.1f} MB)" for name in largest)
    raise CannotTravel(
        f"{base} has {total / 1e6:,.0f} MB in {len(sizes)} files; at most {limit / 1e6:,.0f} MB may be uploaded with "
        f"a sweep; the largest: {listed}. List what the trials do not need in {base / IGNORE}, as in a .gitignore; "
        "data sets belong on the cluster (geosweep data convert)"
    )


def _hide_secrets(carried: dict[str, Path]) -> None:
    """Sweep files that hold addresses or passwords are replaced by copies without them: only their driver needs those,
    and it runs here.
    """
    for name, path in carried.items():
        if path.suffix not in (".yaml", ".yml") or path.stat().st_size > LONGEST:
            continue
        text = path.read_bytes().decode(errors="replace")
        if any(secrets(text)):
            clean = without_secrets(text).encode()
            place = own_scratch() / "code" / "without-secrets" / hashlib.sha256(clean).hexdigest()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(clean)
            carried[name] = place


def _check_secrets(carried: Mapping[str, Path]) -> None:
    for name, path in carried.items():
        if (hit := found_in(path.read_bytes())) is not None:
            raise CannotTravel(
                f"{name}:{hit[1]}: this looks like {hit[0]}, which must not leave this machine; read it from the "
                f"environment instead, or list the file in {IGNORE}"
            )
