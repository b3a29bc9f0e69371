"""`lint`: is the protocol fair?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import ROOT, Exit, Json, Root, app, beside, data, emit, fail
from orchestrator.definition.errors import SpecError
from orchestrator.definition.rule_codes import RULES
from orchestrator.definition.states import SweepState

if TYPE_CHECKING:
    from orchestrator.protocol.lint import Breach


@app.command()
def lint(
    words: Annotated[
        list[str],
        typer.Argument(metavar="FILE|KEY=VALUE", help="Sweep files (YAML), and keys to change in them."),
    ],
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Check the fairness of a protocol; also uses the sweep's results if it was run. Exit code 6 if a rule is broken.

    The codes are explained in sweeps/LINT.md.

    Example: geosweep lint sweeps/quickstart.yaml
    """
    from orchestrator.definition import overrides
    from orchestrator.protocol import lint as rules

    found: dict[str, list[rules.Finding]] = {}
    given = [word for word in words if overrides.is_override(word) and not Path(word).exists()]
    for file in [Path(word) for word in words if word not in given]:
        file = beside(file) or file
        asked = overrides.asked(file, given)
        with asked.located():
            findings = rules.lint(asked.text, str(file), _seen(asked.text, str(file), root))
        found[str(file)] = [replace(f, line=asked.line(f.line)) for f in findings]
    if not found:
        fail("name a sweep file", Exit.USAGE)
    if as_json:
        rows = [
            {
                "file": name,
                "findings": [
                    {
                        "code": f.code,
                        "title": f.title,
                        "key": f.key,
                        "line": f.line,
                        "message": f.message,
                        "waived": f.waived,
                    }
                    for f in findings
                ],
            }
            for name, findings in found.items()
        ]
        emit({"schema": "geosweep/lint/1", "files": rows})
    else:
        for name, findings in found.items():
            for f in findings:
                if f.waived:
                    data.print(
                        f"{name}:{f.line}: {f.code} {f.title}: waived: {f.waived}", highlight=False, markup=False
                    )
                    continue
                data.print(f"{name}:{f.line}: {f.code} {f.title}: {f.key}: {f.message}", highlight=False, markup=False)
            if not findings:
                data.print(f"{name}: fair by all {len(RULES)} rules", highlight=False, markup=False)
    if any(not f.waived for findings in found.values() for f in findings):
        raise typer.Exit(int(Exit.CHECK_FAILED))


def _seen(text: str, file: str, root: Path) -> list[Breach]:
    """What the results show, if the sweep of this file was run to its end under the root."""
    from orchestrator.compare import lint_results
    from orchestrator.compare.evidence import Evidence
    from orchestrator.definition import model, sweep_file
    from orchestrator.storage.folder import SweepFolder
    from orchestrator.storage.outcome import SweepOutcome

    try:
        folder = SweepFolder(root, model.sweep_id(sweep_file.loads(text, file)))
    except SpecError:
        return []
    folder.level()
    outcome = SweepOutcome.read(folder)
    done = outcome is not None and outcome.state is SweepState.DONE
    return list(lint_results.breaches(Evidence(folder))) if done else []
