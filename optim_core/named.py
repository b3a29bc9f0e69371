"""Things of one kind by name: optimizers, tasks, rotations, structures of a preconditioner, diagnostics."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
Added = TypeVar("Added")


class Named(Generic[T]):
    """A registry; `kind` is what messages call its things.

    `package`, `modules`: whose import registers what comes along. They are imported before the first thing is read.
    """

    def __init__(self, kind: str, package: str = "", modules: Sequence[str] = ()) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._awaited, self._loading = [f"{package}.{module}" for module in modules], RLock()

    def add(self, name: str) -> Callable[[Added], Added]:
        """Decorator that makes a class or function reachable as `name`. A name taken twice raises ValueError.

        The same class or function, defined once more (a cell of a notebook, a module reloaded), takes its old place.
        """

        def put(thing: Added) -> Added:
            if name in self._things and _origin(self._things[name]) != _origin(thing):
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._things[name] = cast(T, thing)
            return thing

        return put

    def _known(self) -> dict[str, T]:
        """What is registered, with what comes along."""
        with self._loading:  # the modules' own imports read what is there so far
            while self._awaited:
                importlib.import_module(self._awaited.pop(0))
        return self._things

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._known())

    def in_order(self) -> list[str]:
        """All registered names in the order of their registration."""
        return list(self._known())

    def name_of(self, thing: Any) -> str | None:
        """The first name of a thing, or None."""
        return next((name for name, known in self._known().items() if known is thing), None)

    def get(self, name: str) -> T | None:
        """What is registered as `name`, or None."""
        return self._known().get(name)

    def lookup(self, name: str) -> T:
        """What is registered as `name`. Raises KeyError with the nearest name."""
        if name not in self._known():
            raise KeyError(f"no {self.kind} {name!r}{nearest(name, self.names())}")
        return self._known()[name]

    def value(self, name: str) -> T:
        """The same where `name` is the value of a hyperparameter called `kind`: ValueError with what there is."""
        if name not in self._known():
            raise ValueError(f"{self.kind} is {name!r}; it has to be one of {', '.join(self.names())}")
        return self._known()[name]


def _origin(thing: Any) -> tuple[str, str] | int:
    """Where a class or function is defined; itself, for what has no such place."""
    name = getattr(thing, "__qualname__", "")
    return (thing.__module__, name) if name else id(thing)


def nearest(word: str, choices: Iterable[Any]) -> str:
    """'; did you mean X?' or a list of what there is."""
    options = [str(c) for c in choices]
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is: {', '.join(options)}" if options else ""
