"""Repository files that are also pages of the site, and the links between them.

Documents read the same in the repository and on the site: file names in backquotes (`docs/search.md`) become
links to their pages. `<!-- include: FILE # HEADING -->` inserts a section of another document.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "k8s/README.md": "cluster.md",
    "sweeps/LINT.md": "reference/lint.md",
    "sweeps/README.md": "sweeps.md",
    "sweeps/RESULTS.md": "findings.md",
    "optim_core/README.md": "optimizers_alone.md",
    "docs/notebook.ipynb": "notebook.md",
}
"""File of the repository -> page of the site. Files in docs/ are pages already."""
INCLUDE = re.compile(r"<!-- include: (\S+) # (.+?) -->")
FENCE = re.compile(r"(^```.*?^```[ \t]*$)", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!\[)`((?:docs|sweeps|k8s|optim_core)/[\w/]+\.md|CONTRIBUTING\.md|CHANGELOG\.md)`(?!\])")
LINK = re.compile(r"(!?\[[^\]\n]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")


def page_of(file: str) -> str | None:
    """The page for a file of the repository; None if it is not a page."""
    if file in ELSEWHERE:
        return ELSEWHERE[file]
    inner = file.removeprefix("docs/")
    return inner if inner != file and (ROOT / file).exists() else None


def included(markdown: str) -> str:
    """Insert the included sections of other documents."""
    return INCLUDE.sub(lambda found: section(found[1], found[2]), markdown)


def section(file: str, heading: str) -> str:
    """The text under a heading, up to the next heading. Raises ValueError if the heading does not exist."""
    text = (ROOT / file).read_text()
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} (?!#)|\Z)", text + "\n", re.DOTALL | re.MULTILINE
    )
    if found is None:
        raise ValueError(f"{file} has no heading {heading!r}")
    return found[2].strip()


def indented(markdown: str) -> str:
    """Indent the continuation lines of numbered items by four columns for Python-Markdown; GitHub accepts three."""
    lines, numbered = [], False
    for line in markdown.split("\n"):
        if line and not line.startswith(" "):
            numbered = bool(re.match(r"\d\. ", line))
        lines.append(f" {line}" if numbered and line.startswith("   ") else line)
    return "\n".join(lines)


def turned(markdown: str, here: str) -> str:
    """Turn document names on the page `here` into links, and rewrite links for the site; code is unchanged.

    Links in the source are relative to the file in the repository. Links to files that are not pages become text.
    """
    home = {page: file for file, page in ELSEWHERE.items()}.get(here, f"docs/{here}")

    def to(file: str) -> str | None:
        page = page_of(file)
        return posixpath.relpath(page, posixpath.dirname(here) or ".") if page and page != here else None

    def span(found: re.Match[str]) -> str:
        target = to(found[1])
        return f"[{found[0]}]({target})" if target else found[0]

    def link(found: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(posixpath.dirname(home), found[2]))
        if target := to(file):
            return f"{found[1]}({target}{found[3] or ''})"
        if file.startswith("docs/") or not (ROOT / file).exists():
            return found[0]
        return found[1].removeprefix("!")[1:-1]

    parts = FENCE.split(markdown)
    for i in range(0, len(parts), 2):
        parts[i] = LINK.sub(link, SPAN.sub(span, parts[i]))
    return "".join(parts)
