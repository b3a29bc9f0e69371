"""Search spaces in our own terms: parameters, conditions, constraints. Knows neither Ray nor Optuna.

A configuration is made from one number in [0, 1) per parameter (inverse distribution function), so that random and
Sobol points, and any index of theirs, are plain functions.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orchestrator.definition import prior

MOST, CORNERS = 100_000, 2000
"""Values of a parameter, and points of a grid, that are listed one by one."""
Kind = Literal["constant", "categorical", "float", "int"]


class SpaceError(ValueError):
    """A space that cannot be searched as requested; says which parameter, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One hyperparameter and where its values come from."""

    name: str
    kind: Kind
    values: tuple[Any, ...] = ()
    """constant: the one value; categorical: all values."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    """Uniform in the logarithm."""
    step: float | None = None
    """Quantum of the values."""
    one_minus: bool = False
    """value = 1 - x, x log-uniform in [1 - high, 1 - low]."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Parent -> the parent's values under which this parameter is active."""
    prior: Any = None
    """A guess, and the confidence in it (see `prior`); without confidence there is none."""
    prior_confidence: str = ""


def order(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Parents before children, else as given. Raises SpaceError on a missing parent or a cycle."""
    names = {p.name for p in parameters}
    left, done = list(parameters), dict[str, Parameter]()
    for p in left:
        for parent in p.when:
            if parent not in names:
                raise SpaceError(f"{p.name}: `when` names {parent}, which is not a parameter here")
    while left:
        ready = [p for p in left if all(parent in done for parent in p.when)]
        if not ready:
            raise SpaceError(f"{left[0].name}: `when` conditions form a cycle: {', '.join(p.name for p in left)}")
        for p in ready:
            done[p.name] = p
            left.remove(p)
    return tuple(done.values())


def is_active(parameter: Parameter, config: Mapping[str, Any]) -> bool:
    """Whether the parameter has a value in this configuration (parents first)."""
    return all(parent in config and config[parent] in values for parent, values in parameter.when.items())


def value_at(p: Parameter, u: float) -> Any:
    """The parameter's value at the share `u` in [0, 1) of its distribution."""
    if p.prior_confidence and p.kind == "categorical":
        index = next(i for i, v in enumerate(p.values) if repr(v) == repr(p.prior))
        u = prior.among(u, index, len(p.values), p.prior_confidence)
    elif p.prior_confidence:
        u = prior.around(u, place_of(p, p.prior), p.prior_confidence)
    if p.kind in ("constant", "categorical"):
        return p.values[min(int(u * len(p.values)), len(p.values) - 1)]
    if p.one_minus:
        return 1 - _log_between(1 - p.high, 1 - p.low, 1 - u)
    if p.kind == "int":
        if p.log:
            return min(int(p.high), int(_log_between(p.low, p.high + 1, u)))
        step = int(p.step or 1)
        return int(p.low) + step * int(u * (int(p.high - p.low) // step + 1))
    value = _log_between(p.low, p.high, u) if p.log else p.low + u * (p.high - p.low)
    if p.step:
        value = p.step * round(value / p.step) if p.log else p.low + p.step * math.floor(u * (_count(p)))
    return min(p.high, max(p.low, value))


def place_of(p: Parameter, value: float) -> float:
    """Where in [0, 1] a number lies on its parameter's own scale; for whole and stepped ones the middle of their part.

    `value_at` of that place is the value, for a parameter without a prior.
    """
    if p.one_minus:
        return 1 - _share_between(1 - p.high, 1 - p.low, 1 - value)
    if p.kind == "int":
        if p.log:
            return sum(_share_between(p.low, p.high + 1, v) for v in (value, value + 1)) / 2
        step = int(p.step or 1)
        return ((int(value) - int(p.low)) // step + 0.5) / (int(p.high - p.low) // step + 1)
    if p.step and not p.log:
        return (min(_count(p) - 1, round((value - p.low) / p.step)) + 0.5) / _count(p)
    return _share_between(p.low, p.high, value) if p.log else (value - p.low) / (p.high - p.low)


def _share_between(low: float, high: float, value: float) -> float:
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _count(p: Parameter) -> int:
    assert p.step
    return math.floor((p.high - p.low) / p.step + 1e-9) + 1


def _log_between(low: float, high: float, u: float) -> float:
    return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))


def from_unit(parameters: Sequence[Parameter], u: Sequence[float]) -> dict[str, Any]:
    """The configuration at a point of the unit cube; inactive parameters are left out."""
    config: dict[str, Any] = {}
    for p, x in zip(parameters, u, strict=True):
        if is_active(p, config):
            config[p.name] = value_at(p, x)
    return config


def levels(p: Parameter) -> list[Any] | None:
    """All values of a finite parameter, None for a continuous one and for one of more than MOST values."""
    if p.kind in ("constant", "categorical"):
        return list(p.values)
    if p.kind == "int":
        whole = range(int(p.low), int(p.high) + 1, int(p.step or 1))
        return list(whole) if len(whole) <= MOST else None
    if p.step and not p.log and _count(p) <= MOST:
        return [p.low + i * p.step for i in range(_count(p))]
    return None


def size(parameters: Sequence[Parameter]) -> int | None:
    """How many configurations a finite space has at most, None for a continuous one."""
    found = [levels(p) for p in parameters]
    return None if any(one is None for one in found) else math.prod(len(one) for one in found if one is not None)


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """All configurations of a finite space, each once. Raises SpaceError for a continuous one, and above MOST."""
    columns = []
    for p in parameters:
        found = levels(p)
        if found is None:
            many = p.kind == "int" or p.step
            why = f"a grid lists at most {MOST:,} values" if many else "a grid needs values"
            raise SpaceError(f"{p.name}: {why}; give values: [...] or a {'larger ' if many else ''}step q")
        columns.append(found)
    if (size := math.prod(map(len, columns))) > MOST:
        raise SpaceError(f"{parameters[-1].name}: the grid has {size:,} points; give fewer values, or search at random")
    seen: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for row in itertools.product(*columns):
        config: dict[str, Any] = {}
        for p, value in zip(parameters, row, strict=True):
            if is_active(p, config):
                config[p.name] = value
        seen.setdefault(tuple((k, repr(v)) for k, v in config.items()), config)
    return list(seen.values())


def corners(parameters: Sequence[Parameter], names: Sequence[str]) -> list[dict[str, Any]]:
    """The configurations of these parameters, and of those that they depend on, at all values and ends of ranges.

    Of more than CORNERS all values in turn, the others at their first.
    """
    wanted = set(names)
    for p in reversed(parameters):  # parents come first
        if p.name in wanted:
            wanted |= set(p.when)
    ends = [replace(p, kind="categorical", values=tuple(ends_of(p))) for p in parameters if p.name in wanted]
    if math.prod(len(p.values) for p in ends) <= CORNERS:
        return grid(ends)
    found = list[dict[str, Any]]()
    for turned in ends:
        for config in grid([p if p is turned else replace(p, values=p.values[:1]) for p in ends]):
            found += [config] if config not in found else []
    return found


def ends_of(p: Parameter) -> list[Any]:
    """All listed values of a parameter, or both ends of its range, of the type that is drawn from it."""
    if p.values:
        return list(p.values)
    if p.kind == "int":
        return [int(p.low), int(p.high)]
    return [p.low, p.high] if p.step else [float(p.low), float(p.high)]


BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
}
COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "log10": math.log10, "abs": abs}


def names_in(constraint: str) -> set[str]:
    """The names in a constraint. Raises SpaceError when it is not an expression we allow."""
    try:
        tree = ast.parse(constraint, mode="eval").body
    except SyntaxError:
        raise SpaceError(f"{constraint!r} is not an expression; write, for instance: PARAMETER * 5 <= steps") from None
    if not isinstance(tree, ast.Compare | ast.BoolOp):
        raise SpaceError(f"{constraint!r} is not a comparison; write, for instance: PARAMETER * 5 <= steps")
    allowed: tuple[type, ...] = (
        ast.Compare,
        ast.BoolOp,
        ast.BinOp,
        ast.UnaryOp,
        ast.Name,
        ast.Attribute,
        ast.Constant,
        ast.Call,
        ast.Load,
    )
    allowed += (ast.And, ast.Or, ast.USub, ast.Not, *BINARY, *COMPARE)
    for node in ast.walk(tree):
        if not isinstance(node, allowed):
            raise SpaceError(
                f"{constraint!r} contains {type(node).__name__}; numbers, names, + - * / and comparisons are allowed"
            )
        if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name | ast.Attribute):
            raise SpaceError(f"{constraint!r} contains {ast.unparse(node)!r}, which is not a name")
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
            raise SpaceError(f"{constraint!r} calls {ast.unparse(node.func)}; available: {', '.join(FUNCTIONS)}")
    return {name for _, name in _named(tree)}


def renamed(constraint: str, names: Mapping[str, str]) -> str:
    """The constraint with some names replaced; unchanged when it contains none of them."""
    text = constraint.encode()
    tree = ast.parse(constraint, mode="eval").body
    for node, name in sorted(_named(tree), key=lambda found: found[0].col_offset, reverse=True):
        if name in names:
            assert node.end_col_offset is not None
            text = text[: node.col_offset] + names[name].encode() + text[node.end_col_offset :]
    return text.decode()


def _named(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """The names below a node, dotted ones whole, each with its place; not those of functions."""
    if isinstance(node, ast.Name | ast.Attribute):
        yield node, ast.unparse(node)
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.Call) and child is node.func):
            yield from _named(child)


def satisfied(constraints: Sequence[str], config: Mapping[str, Any], **facts: Any) -> bool:
    """Whether the configuration satisfies all constraints.

    One that names an inactive parameter counts as satisfied; one that cannot be computed (`1 / x` at 0) does not.
    """
    known = {**facts, **config}
    return all(_holds(text, known) for text in constraints if names_in(text) <= set(known))


def _holds(constraint: str, known: Mapping[str, Any]) -> bool:
    try:
        return bool(_value(ast.parse(constraint, mode="eval").body, known))
    except (ArithmeticError, ValueError):  # a division by 0, a logarithm of 0, a root of -1
        return False


def mismatch(constraint: str, config: Mapping[str, Any], **facts: Any) -> str:
    """What the constraint compares although it has no order, such as text with a number; empty: it is computable."""
    known = {**facts, **config}
    if not names_in(constraint) <= set(known):
        return ""
    try:
        _value(ast.parse(constraint, mode="eval").body, known)
    except TypeError as error:
        return str(error)
    except (ArithmeticError, ValueError):
        return ""
    return ""


def _value(node: ast.AST, known: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() | ast.Attribute():
            return known[ast.unparse(node)]
        case ast.UnaryOp():
            inner = _value(node.operand, known)
            return not inner if isinstance(node.op, ast.Not) else -inner
        case ast.BinOp():
            found = BINARY[type(node.op)](_value(node.left, known), _value(node.right, known))
            if isinstance(found, complex):
                raise ValueError(f"{ast.unparse(node)} is not a real number")
            return found
        case ast.BoolOp():
            values = (_value(v, known) for v in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.Call(func=ast.Name(id=name)):
            return FUNCTIONS[name](*(_value(a, known) for a in node.args))
        case ast.Compare():
            sides = [_value(s, known) for s in (node.left, *node.comparators)]
            return all(COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:], strict=False))
    raise SpaceError(f"{ast.unparse(node)} cannot be computed")


def movable(parameters: Sequence[Parameter], changeable: frozenset[str]) -> list[Parameter]:
    """The searched hyperparameters that children change: numbers that the optimizer lets change."""
    return [p for p in parameters if p.name in changeable and ladder(p) != []]


def ladder(p: Parameter) -> list[Any] | None:
    """The numbers that a categorical parameter may take, in order, if there are two; None for a range."""
    if p.kind in ("float", "int"):
        return None if p.high > p.low else []
    numbers = sorted(v for v in p.values if is_number(v))
    return numbers if p.kind == "categorical" and len(numbers) > 1 else []


def is_number(value: Any) -> bool:
    """Whether a value is a number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
