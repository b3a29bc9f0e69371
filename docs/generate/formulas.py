"""Convert formulas to MathML when the site is built, so that browsers render them without scripts or a network.

Markdown uses GitHub's syntax, `$x$` and `$$x$$`.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
UNKNOWN = re.compile(r"<m(?:i|o|text)>\s*(?:\\[a-zA-Z]+|&<)")
"""A command or an alignment that the converter did not recognize and left unchanged."""


def mathml(latex: str, display: str) -> str:
    """Convert one formula. Raises ValueError, naming it, if it cannot be converted."""
    try:
        made = convert(latex.replace("{aligned}", "{split}"), display=display)
    except Exception as error:
        raise ValueError(f"formula {latex!r}: {type(error).__name__} {error}") from error
    if UNKNOWN.search(made):
        raise ValueError(f"formula {latex!r} has an unknown command")
    return str(made)


def drawn(page: str) -> str:
    """Replace the formulas in HTML by MathML."""

    def one(found: re.Match[str]) -> str:
        display = "block" if found[2] == "[" else "inline"
        made = mathml(html.unescape(found[3]).strip(), display)
        return f'<div class="formula">{made}</div>' if display == "block" else made

    return FORMULA.sub(one, page)
