"""The source files that a trial's result depends on, with their hashes.

Ours are all of optim_core, trainables and this package. For the user's task and optimizers: the module named in the
sweep file, or that of a class registered by name, and, following its import statements (including those inside
functions), every module outside the standard library and site-packages. Installed packages are covered by their version
(`storage.provenance`), notebook definitions by a digest of their code (`class_code`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path

from orchestrator.definition import opened
from orchestrator.trial import class_code

OURS = ("optim_core", "trainables", "orchestrator.trial")


def files(names: Iterable[str]) -> dict[str, Path]:
    """Name -> file. `names` are tasks and optimizers as named in sweep files; registered ones belong to this project.

    A file is named relative to the folder it was imported from, so the same code elsewhere has the same names.
    """
    found = dict(_of_ours())
    waiting = [module for name in names for module in _modules(name)]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        path = _own(module)
        if path is None:
            continue
        found[_name(module, path)] = path
        waiting += _imported(module, path)
    return found


@cache
def _of_ours() -> dict[str, Path]:
    """The files of this project, which `files` always includes."""
    found: dict[str, Path] = {}
    for package in OURS:
        folder = Path(_origin(package) or "").parent
        base = folder.parents[package.count(".")]
        found |= {str(path.relative_to(base)): path for path in sorted(folder.rglob("*.py"))}
    return found


def _modules(name: str) -> list[str]:
    """The starting modules for the name of a task or optimizer."""
    module = module_of(name)
    if module and module != class_code.MAIN:
        return [module]
    cls = _class_of(name)
    if cls is None or is_ours(cls.__module__):
        return []
    return sorted(class_code.modules(cls)) if cls.__module__ == class_code.MAIN else [cls.__module__]


def _defined(names: Iterable[str]) -> dict[str, str]:
    """`__main__:Class` -> digest, for classes without a file."""
    short = [name for name in names if module_of(name) in ("", class_code.MAIN)]
    found = [cls for name in short if (cls := _class_of(name)) is not None and cls.__module__ == class_code.MAIN]
    return {f"{class_code.MAIN}:{cls.__qualname__}": class_code.digest(cls) for cls in found}


def _class_of(name: str) -> type | None:
    from orchestrator.trial import named_class

    return named_class.class_of(name)


def is_ours(module: str) -> bool:
    """Whether a module belongs to this project."""
    return module.partition(".")[0] in _tops()


def all_ours(name: str) -> bool:
    """Whether a named task or optimizer, with what wraps it, belongs to this project."""
    cls = _class_of(name)
    return cls is not None and is_ours(cls.__module__)


def module_of(name: str) -> str:
    """The module in `package.module:Task` or `package.module.Class`; empty for a registered name."""
    inner = name
    while inner.endswith(")") and "(" in inner:  # wrapper(package.module.Class)
        inner = inner[inner.index("(") + 1 : -1]
    return inner.partition(":")[0] if ":" in inner else inner.rpartition(".")[0]


def digests(names: Iterable[str], *, fresh: bool = False) -> dict[str, str]:
    """Name of a source file -> sha256 of its content when this process first asked, which is what it has loaded.

    `fresh`: of the current content.
    """
    names = list(names)
    found = sorted(files(names).items())
    of_files = {name: _current(path) if fresh else _first(path) for name, path in found}
    return of_files | _defined(names)


def unchanged(names: Iterable[str]) -> bool:
    """Whether the files are as this process first found them; one imported late may date from after a change."""
    return all(_first(path) == _current(path) for path in files(names).values())


@cache
def _first(path: Path) -> str:
    return _current(path)


def _current(path: Path) -> str:
    """The digest of the file, read again only if it was written since; for a file inside an archive, the archive's."""
    while not path.exists():
        path = path.parent
    return (path.is_file() and opened.digest(str(path))) or hashlib.sha256().hexdigest()


def combined(found: Mapping[str, str]) -> str:
    """One digest of many."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(found.items())).encode()).hexdigest()


def digest(task: str, optimizer: str) -> str:
    """The digest of everything that a trial of this task and optimizer imports, as this process first found it."""
    return combined(digests((task, optimizer)))


def _origin(module: str) -> str | None:
    """The file of a module, imported or not; parent packages are imported."""
    known = sys.modules.get(module)
    if known is not None and getattr(known, "__file__", None):
        return known.__file__
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec is not None else None


def _own(module: str) -> Path | None:
    """The source file of a user's module. Its package is checked first, and imported if it is the user's."""
    if not module or _is_installed(module.partition(".")[0]):
        return None
    path = _source(module)
    return None if path is None or any(path.is_relative_to(place) for place in _ours()) else path


@lru_cache(maxsize=1)
def _ours() -> tuple[Path, ...]:
    """Folders of this project's packages, which `files` names itself."""
    return tuple(Path(_origin(top) or "").resolve().parent for top in _tops())


def _tops() -> set[str]:
    """The packages of this project that contain trials."""
    return {package.partition(".")[0] for package in OURS}


def _is_installed(top: str) -> bool:
    """Whether a package or module without a user's file is third-party, or missing."""
    if _origin(top):
        return _source(top) is None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return not places or any(Path(p).resolve().is_relative_to(i) for p in places for i in _installed())


def _source(module: str) -> Path | None:
    """The file of a module, unless it is installed."""
    origin = _origin(module)
    if origin is None or not origin.endswith(".py"):
        return None
    return _not_installed(origin)


@lru_cache(maxsize=4096)  # every trial asks again
def _not_installed(origin: str) -> Path | None:
    path = Path(origin).resolve()
    return None if any(path.is_relative_to(place) for place in _installed()) else path


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """Folders of the standard library and of installed packages."""
    places = [*site.getsitepackages(), site.getusersitepackages()]
    places += [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple({Path(place).resolve() for place in places})


def _name(module: str, path: Path) -> str:
    parts = module.split(".")
    return "/".join([*parts, "__init__.py"] if path.name == "__init__.py" else parts) + (
        "" if path.name == "__init__.py" else ".py"
    )


def _imported(module: str, path: Path) -> tuple[str, ...]:
    """Every module that a file may import, including parent packages."""
    try:
        content = path.read_bytes()
    except OSError:  # inside an archive: it is hashed, not followed
        content = b""
    return _imported_by(module, module if path.name == "__init__.py" else module.rpartition(".")[0], content)


@lru_cache(maxsize=1024)  # every trial asks for the same files
def _imported_by(module: str, package: str, content: bytes) -> tuple[str, ...]:
    return tuple(_walked(module, package, content))


def _walked(module: str, package: str, content: bytes) -> Iterator[str]:
    yield from _parents(module)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # not for this Python: it is hashed, not followed
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                yield from _parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _resolved(node, package)
            yield base
            yield from _parents(base)
            for alias in node.names:
                yield f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and _named(node) in ("import_module", "__import__") and node.args:
            given = node.args[0]
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                yield _absolute(given.value, package)


def _absolute(name: str, package: str) -> str:
    """A module's absolute name, resolving `.helper` relative to the package."""
    bare = name.lstrip(".")
    if bare == name:
        return name
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - (len(name) - len(bare)) + 1])
    return f"{base}.{bare}" if bare else base


def _resolved(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1])
    return f"{base}.{node.module}" if node.module else base


def _named(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    for count in range(1, len(parts)):
        yield ".".join(parts[:count])
