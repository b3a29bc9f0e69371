"""Registries by name: optimizers, tasks, rotations, structures of a preconditioner, diagnostics."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
Added = TypeVar("Added")
NO_HOMES: Mapping[str, Sequence[str]] = {}


class Named(Generic[T]):
    """A registry; `kind` is the word for its entries in messages.

    `homes`: module of `package` -> names that its import registers. A module is imported when one of its names is first
    requested, so a process loads only what it uses.
    """

    def __init__(self, kind: str, package: str = "", homes: Mapping[str, Sequence[str]] = NO_HOMES) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._package = f"{package}."
        self._homes = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def add(self, name: str) -> Callable[[Added], Added]:
        """Decorator that registers a class or function as `name`. Raises ValueError for a name already taken.

        Redefining the same class or function (a notebook cell, a reloaded module) replaces it.
        """

        def put(thing: Added) -> Added:
            known = self._things.get(name)
            taken = known is not None and _origin(known) != _origin(thing)
            if taken or (name in self._homes and not _module_of(thing).startswith(self._package)):
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._things[name] = cast(T, thing)
            return thing

        return put

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted({*self._homes, *self._things})

    def in_order(self) -> list[str]:
        """All registered names: the bundled ones, then in order of registration."""
        return [*self._homes, *(name for name in self._things if name not in self._homes)]

    def loaded(self) -> dict[str, T]:
        """Name -> entry, for those requested so far."""
        return dict(self._things)

    def get(self, name: str) -> T | None:
        """The entry registered as `name`, or None."""
        if name in self._homes:
            importlib.import_module(self._homes[name])  # waits for another thread that is importing it
        return self._things.get(name)

    def lookup(self, name: str) -> T:
        """The entry registered as `name`. Raises KeyError with the nearest name."""
        if (found := self.get(name)) is None:
            raise KeyError(f"no {self.kind} {name!r}{nearest(name, self.names())}")
        return found

    def value(self, name: str) -> T:
        """The same if `name` is the value of a hyperparameter called `kind`: ValueError with the available names."""
        if (found := self.get(name)) is None:
            raise ValueError(f"{self.kind} is {name!r}; it must be one of {', '.join(self.names())}")
        return found


def _module_of(thing: Any) -> str:
    return str(getattr(thing, "__module__", ""))


def _origin(thing: Any) -> tuple[str, str] | int:
    """Where a class or function is defined; the object itself if it has no such place."""
    name = getattr(thing, "__qualname__", "")
    return (_module_of(thing), name) if name else id(thing)


def nearest(word: str, choices: Iterable[Any]) -> str:
    """'; did you mean X?' or a list of the available choices."""
    options = [str(c) for c in choices]
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; available: {', '.join(options)}" if options else ""
