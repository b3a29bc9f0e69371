"""Files of the repository that are pages of the site too, and links between them.

A document reads the same in the repository and on the site: names of files in backquotes (`docs/search.md`) become
links to their pages. `<!-- include: FILE # HEADING -->` shows a section of another document in its place.
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
"""File of the repository -> page of the site. Those below docs/ are pages by themselves."""
INCLUDE = re.compile(r"<!-- include: (\S+) # (.+?) -->")
FENCE = re.compile(r"(^```.*?^```[ \t]*$)", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!\[)`((?:docs|sweeps|k8s|optim_core)/[\w/]+\.md|CONTRIBUTING\.md|CHANGELOG\.md)`(?!\])")
LINK = re.compile(r"(!?\[[^\]\n]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")


def page_of(file: str) -> str | None:
    """The page that a file of the repository is, if it is one."""
    if file in ELSEWHERE:
        return ELSEWHERE[file]
    inner = file.removeprefix("docs/")
    return inner if inner != file and (ROOT / file).exists() else None


def included(markdown: str) -> str:
    """Markdown with the sections of other documents that it asks for."""
    return INCLUDE.sub(lambda found: section(found[1], found[2]), markdown)


def section(file: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level. Raises ValueError where there is none."""
    text = (ROOT / file).read_text()
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} (?!#)|\Z)", text + "\n", re.DOTALL | re.MULTILINE
    )
    if found is None:
        raise ValueError(f"{file} has no heading {heading!r}")
    return found[2].strip()


def indented(markdown: str) -> str:
    """Markdown whose numbered items go on four columns in, as Python's Markdown wants; GitHub is content with three."""
    lines, numbered = [], False
    for line in markdown.split("\n"):
        if line and not line.startswith(" "):
            numbered = bool(re.match(r"\d\. ", line))
        lines.append(f" {line}" if numbered and line.startswith("   ") else line)
    return "\n".join(lines)


def turned(markdown: str, here: str) -> str:
    """Markdown of the page `here` with names of documents as links, and links as the site needs them; code is left.

    Links are written as the repository has them, relative to the file. Those to files that are no page become text.
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
