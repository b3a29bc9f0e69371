"""The `training:` section as a pydantic model, made from the keys of a recipe: how each may be written in a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from orchestrator.definition.field_types import Seconds, Share, Warmup, number_or_auto
from orchestrator.definition.parameter_models import Model
from trainables.recipe import INF, KEYS, Key

WRITTEN = {"share": (Share, "."), "budget": (Warmup, ", for instance 5%, or an amount in its unit (1 or more).")}
"""Unit of a key -> its type, and how its description ends."""


def _one_of(key: Key) -> Callable[[Any], Any]:
    """Words beside true and false, in the spelling that ids contain."""

    def checked(value: Any) -> Any:
        if isinstance(value, bool) or value in [word for word in key.words if isinstance(word, str)]:
            return key.same.get(value, value)
        raise ValueError(f"expected {key.demand().removeprefix('it must be ')}")

    return checked


def _field(key: Key) -> tuple[Any, Any]:
    """Type and field of a key that may be left out."""
    words: Any = Literal[tuple(word for word in key.words if isinstance(word, str))]
    description, bounds = key.description, dict[str, Any]()
    if key.counts:
        number = Annotated[int, Field(ge=key.least)]
        of: Any = Annotated[number | words, BeforeValidator(number_or_auto(key.counts, key.least or 0, key.most))]
    elif key.unit:
        of, end = WRITTEN[key.unit]
        description = description.removesuffix(".") + end
    elif key.least is not None:
        of = float | int
        bounds = {"ge": key.least} | ({"lt" if key.open else "le": key.most} if key.most < INF else {})
    else:
        of = Annotated[bool | words, BeforeValidator(_one_of(key))] if True in key.words else words
    return of | None, Field(None, description=description, **bounds)


if TYPE_CHECKING:
    Keys = Model
else:
    Keys = create_model("Keys", __base__=Model, **{name: _field(key) for name, key in KEYS.items()})


class TrainingModel(Keys):
    """How every trial is trained, the same for all arms. Keys left out follow the task's own recipe."""

    step_timeout: Seconds | None = Field(
        600.0,
        json_schema_extra={"default": "10m"},
        description="A step that takes longer ends its trial as FAILED with the stack; null: never.",
    )
