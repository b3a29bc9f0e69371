"""Formulas as MathML, made when the site is built: browsers draw them without a script and without a network.

In Markdown they are written as on GitHub, `$x$` and `$$x$$`.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
UNKNOWN = re.compile(r"<m(?:i|o|text)>\s*(?:\\[a-zA-Z]+|&<)")
"""A command, or an alignment, that the converter did not know and left as it is."""


def mathml(latex: str, display: str) -> str:
    """One formula. Raises ValueError naming one that cannot be shown."""
    try:
        made = convert(latex.replace("{aligned}", "{split}"), display=display)
    except Exception as error:
        raise ValueError(f"formula {latex!r}: {type(error).__name__} {error}") from error
    if UNKNOWN.search(made):
        raise ValueError(f"formula {latex!r} has a command that is not known")
    return str(made)


def drawn(page: str) -> str:
    """HTML with its formulas as MathML."""

    def one(found: re.Match[str]) -> str:
        display = "block" if found[2] == "[" else "inline"
        made = mathml(html.unescape(found[3]).strip(), display)
        return f'<div class="formula">{made}</div>' if display == "block" else made

    return FORMULA.sub(one, page)
