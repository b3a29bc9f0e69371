"""mkdocs hooks (`hooks:` in mkdocs.yml) for generated pages, pages stored outside docs/, and formulas.

Reference pages are regenerated from the code at every build, so they cannot become outdated.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.generate import catalog, command, formulas, links, methods, notebook, python, rooms, sweep_file  # noqa: E402

GENERATED = {
    "reference/sweep_file.md": sweep_file.page,
    "reference/command.md": command.page,
    "reference/optim_core.md": python.page,
    "reference/tasks.md": catalog.tasks,
    "reference/diagnostics.md": catalog.diagnostics,
    "notebook.md": notebook.page,
    "pictures/rooms.svg": rooms.picture,
}
"""Page of the site -> its generator."""


def on_config(config: Any) -> Any:
    """Add pages in docs/ that are missing from the navigation to `How to`, under their headings."""
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    how_to = next(part["How to"] for part in config.nav if isinstance(part, dict) and "How to" in part)
    for path in sorted((ROOT / "docs").glob("*.md")):
        if path.name not in named:
            how_to.append({path.read_text().partition("\n")[0].lstrip("# "): path.name})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and those stored elsewhere in the repository."""
    made = {name: make() for name, make in GENERATED.items()}
    made |= {page: (ROOT / source).read_text() for source, page in links.ELSEWHERE.items() if page not in made}
    for name, content in made.items():
        if (old := files.get_file_from_path(name)) is not None:
            files.remove(old)
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Insert declarations and included sections, and turn file names into links."""
    markdown = methods.filled(catalog.filled(links.indented(links.included(markdown))))
    return links.turned(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Convert the formulas."""
    return formulas.drawn(html)
