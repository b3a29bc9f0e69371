"""HTML for notebook cells."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table with the columns of the first row."""
    if not rows:
        return ""
    heads = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row.get(name, '')))}</td>" for name in rows[0]) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def titled(title: str, content: str, lines: Sequence[str], stamps: Sequence[str] = ()) -> str:
    """A title, the content, lines of text below it, and why it is exploratory."""
    below = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    marks = "".join(f'<div style="color: #b35900">exploratory: {html.escape(stamp)}</div>' for stamp in stamps)
    return f"<div><strong>{html.escape(title)}</strong>{content}{below}{marks}</div>"
