"""A digest of the code of a class without a source file: from a notebook, or from the started script.

It covers bytecode, constants, defaults, attributes and what the class uses from `__main__` by a global name, but not
line numbers and comments. It is the same in the defining process and in a worker that received the class.
"""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

MAIN = "__main__"
BESIDE_THE_CODE = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__", "_abc_impl"}
)
GLOBALS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")


def digest(cls: type) -> str:
    """sha256 of the code of a class and of what it uses from its module; the same in every process."""
    found = hashlib.sha256()
    for part in _parts(cls, {}):
        found.update(part.encode() + b"\n")
    return found.hexdigest()


def modules(cls: type) -> set[str]:
    """The modules that the class, or what it uses from `__main__`, refers to by a global name or imports in a
    function.
    """
    return {part.removeprefix("module ") for part in _parts(cls, {}) if part.startswith("module ")}


def _parts(thing: Any, seen: dict[int, int]) -> Iterator[str]:
    """A canonical description; an object that was described before, perhaps containing itself, is given by its
    number.
    """
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
        yield repr(thing)
        return
    if not isinstance(
        thing, tuple | frozenset | types.CodeType
    ):  # equal ones may be one object in one process and two in another
        if id(thing) in seen:
            yield f"again {seen[id(thing)]}"
            return
        seen[id(thing)] = len(seen)
    if isinstance(thing, types.ModuleType):
        yield f"module {thing.__name__}"
    elif isinstance(thing, type | types.FunctionType) and thing.__module__ != MAIN:
        yield f"from {thing.__module__} {thing.__qualname__}"
    elif isinstance(thing, type):
        yield f"class {thing.__qualname__}"
        for base in thing.__bases__:
            yield from _parts(base, seen)
        for name in sorted(vars(thing).keys() - BESIDE_THE_CODE):
            yield f"attribute {name}"
            yield from _parts(vars(thing)[name], seen)
    elif isinstance(thing, types.FunctionType):
        yield from _function(thing, seen)
    elif isinstance(thing, types.CodeType):
        yield from _code(thing, seen)
    elif isinstance(thing, staticmethod | classmethod):
        yield type(thing).__name__
        yield from _parts(thing.__func__, seen)
    elif isinstance(thing, property):
        for part in (thing.fget, thing.fset, thing.fdel):
            yield from _parts(part, seen)
    else:
        yield from _value(thing, seen)


def _function(function: types.FunctionType, seen: dict[int, int]) -> Iterator[str]:
    yield f"def {function.__qualname__}"
    yield from _parts(function.__code__, seen)
    yield from _parts(function.__defaults__, seen)
    yield from _parts(function.__kwdefaults__, seen)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    for name in sorted(set(_global_names(function.__code__)) & function.__globals__.keys()):
        yield f"global {name}"
        yield from _parts(function.__globals__[name], seen)


def _code(code: types.CodeType, seen: dict[int, int]) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars}"
    for constant in code.co_consts:
        yield from _parts(constant, seen)
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            yield f"module {step.argval}"


def _global_names(code: types.CodeType) -> Iterator[str]:
    """Globals that code reads or writes, including those of functions inside it."""
    for step in dis.get_instructions(code):
        if step.opname in GLOBALS:
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _value(value: Any, seen: dict[int, int]) -> Iterator[str]:
    """Data: containers and dataclasses part by part, arrays by their bytes; for anything else its type and function."""
    yield f"{type(value).__module__} {type(value).__qualname__}"
    if isinstance(value, Mapping):
        for key, part in sorted(value.items(), key=lambda item: repr(item[0])):
            yield from _parts(key, seen)
            yield from _parts(part, seen)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value)))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part, seen)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name), seen)
    elif hasattr(value, "__array__"):
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else value.__array__()
        yield f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    else:
        for name in ("__wrapped__", "func"):  # lru_cache; cached_property and partial
            yield from _parts(getattr(value, name, None), seen)
