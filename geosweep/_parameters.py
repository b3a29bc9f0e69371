"""The parameters of a trial, which note what the script looks at: one that nobody looks at changes nothing."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any


class Parameters(dict[str, Any]):
    """A dictionary. `unread`: those of `given` that were not looked at; whoever takes all of them has looked at all."""

    def __init__(self, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        super().__init__({**defaults, **given})
        self.unread = set(given)

    def of(self, names: Iterable[str]) -> dict[str, Any]:
        """Those with these names, which are looked at by that."""
        return {name: self[name] for name in names if name in self}

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default."""
        self.unread.discard(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """The value, which is taken out."""
        self.unread.discard(name)
        return super().pop(name, *default)

    def __contains__(self, name: object) -> bool:
        self.unread.discard(str(name))
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self.unread.clear()
        return super().__iter__()

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """All names."""
        self.unread.clear()
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """All values."""
        self.unread.clear()
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """All names and values."""
        self.unread.clear()
        return super().items()

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {**self, **other}

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of all."""
        return dict(self.items())
