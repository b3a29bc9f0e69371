"""Errors about data: file, row group, field, and what is wrong."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """`FILE: row group N: FIELD: message`; row group and field are omitted if there is none."""

    def __init__(
        self, file: Path | str, message: str, *, row_group: int | None = None, field: str | None = None
    ) -> None:
        self.file, self.row_group, self.field, self.message = str(file), row_group, field, message
        place = [self.file]
        if row_group is not None:
            place.append(f"row group {row_group}")
        if field is not None:
            place.append(field)
        super().__init__(": ".join([*place, message]))

    def document(self) -> dict[str, str | int | None]:
        """The parts, for JSON."""
        return {"file": self.file, "row_group": self.row_group, "field": self.field, "message": self.message}
