"""`--fair`: an unfair protocol is not run. Retrying would be just as unfair, so nothing is started."""

from __future__ import annotations

from orchestrator.protocol.errors import Unfair
from orchestrator.protocol.lint import lint


def check(text: str, file: str) -> None:
    """Raises Unfair with every breach of a rule that the sweep file `text` does not waive, SpecError as `lint` does."""
    found = [one for one in lint(text, file) if not one.waived]
    if found:
        said = "\n".join(f"{one.code} {one.title}: {one.key}: {one.message}" for one in found)
        raise Unfair(
            f"{file}: unfair, but --fair requires a fair protocol. Fix it, or say why it is intended, "
            f"analysis: {{waive: {{{found[0].code}: REASON}}}}:\n{said}"
        )
