"""The notebook docs/notebook.ipynb as a page."""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parents[1] / "notebook.ipynb"
HEAD = "[This notebook](notebook.ipynb) runs in the tests.\n"


def page() -> str:
    """Its text and code, without outputs."""
    parts = []
    for cell in json.loads(FILE.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    first, *others = parts
    return "\n\n".join([first, HEAD, *others]) + "\n"
