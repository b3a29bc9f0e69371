"""The verdict on the MLflow parent run, and whether it is up to date.

This is the cheap path without figures, used at the end of a run and when someone opens MLflow's page.
"""

from __future__ import annotations

from orchestrator.compare import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition.passwords import without_passwords
from orchestrator.protocol import seal
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import headline, notes, sentence
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.tracking.mlflow_report import MlflowReport


def tell(folder: SweepFolder, uri: str | None = None) -> str:
    """Write the verdict of a finished sweep to its parent run; returns what went wrong, or an empty string.

    Nothing is sent if the parent already has the same text. `uri`: the server's; by default the sweep's own.
    """
    outcome = SweepOutcome.read(folder)
    if outcome is None or not outcome.is_over:
        return ""
    evidence = Evidence(folder)
    try:
        runs, words = runs_of(evidence, uri), verdict(evidence)
        if not runs.says(words):
            runs.send(None, {}, words, "; ".join(seal.stamps(folder)))
    except Exception as error:  # MLflow is only a copy; the sweep is complete without it
        return f"{type(error).__name__}: {without_passwords((str(error).splitlines() or ['no message'])[0])[:200]}"
    return ""


def charts(evidence: Evidence) -> str:
    """Where MLflow shows the sweep: an address, or the command that opens it; empty if it cannot be found."""
    try:
        return runs_of(evidence).page() or evidence.folder.command("ui", evidence.sweep_id)
    except Exception:  # no store or no answer: a report is complete without it
        return ""


def runs_of(evidence: Evidence, uri: str | None = None) -> MlflowReport:
    """The sweep's runs. Raises UntrackedError if there is no store."""
    return MlflowReport(
        uri=uri or evidence.resolved.tracking,
        root=evidence.folder.root,
        sweep_id=evidence.sweep_id,
        name=evidence.definition["name"],
    )


def verdict(evidence: Evidence) -> str:
    """The text on MLflow's page of the parent run: question, verdict, comparisons."""
    try:
        document = answer.answer(evidence)
    except Refused as reason:
        lines = [f"- exploratory: {s}" for s in seal.stamps(evidence.folder)]
        return "\n".join([f"{evidence.description}\n\n**{headline(None, str(reason))}**\n", *lines])
    lines = [f"- {sentence(p, document.metric)}" for p in answer.shown(document)]
    lines += [f"- {note}" for note in notes(document)]
    stamps = [f"- exploratory: {s}" for s in document.exploratory]
    sealed = seal.sealed_hash(evidence.folder)
    tail = f"\n\nSeal `{sealed[:12]}`." if sealed else ""
    return "\n".join([f"{evidence.description}\n\n**{headline(document)}**\n", *lines, *stamps]) + tail
