"""`geosweep report`: one HTML file that reads without a network and prints well, with its figures and tables beside it.

The page holds everything: figures are embedded, nothing is loaded. report/ gets report.html, figures/*.png, and the
tables as CSV and LaTeX.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.compare import search_curves, tuning
from orchestrator.compare.answer import answer, shown
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures.register import SECTIONS, all_figures, png
from orchestrator.compare.report import tables
from orchestrator.compare.report.page import STYLE, page, section
from orchestrator.protocol import controls, seal
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import headline, notes, sentence
from orchestrator.storage.folder import read_json

FIRST_SENTENCES, MOST_DIFF_LINES = 4, 2000
__all__ = ["STYLE", "build", "headline"]


def build(evidence: Evidence, to: Path) -> Path:
    """Write the report into the folder `to`; returns the path of report.html."""
    (to / "figures").mkdir(parents=True, exist_ok=True)
    for old in (to / "figures").glob("*.png"):
        old.unlink()
    try:
        document, refused = answer(evidence), ""
    except Refused as reason:
        document, refused = None, str(reason)
    stamps = document["exploratory"] if document else seal.stamps(evidence.folder)
    blocks: dict[str, list[str]] = {key: [] for key in SECTIONS}
    for drawn in all_figures(evidence):
        content = png(drawn.figure)
        (to / "figures" / f"{drawn.name}.png").write_bytes(content)
        blocks[drawn.section].append(_embedded(drawn.name, content, drawn.caption))
    written = {"arms": tables.arms(evidence), "tuning": tables.tuning(evidence)}
    if document:
        written["pairs"] = tables.pairs(document)
    for name, rows in written.items():
        (to / f"{name}.csv").write_text(tables.as_csv(rows, stamps), encoding="utf-8")
        caption = f"{evidence.definition['name']}: {evidence.reported} on paired confirm seeds"
        (to / f"{name}.tex").write_text(tables.as_latex(rows, caption, stamps), encoding="utf-8")
    body = [
        _top(evidence, document, refused, stamps, blocks["answer"], written["arms"]),
        section(
            "Comparisons", [tables.as_html(written.get("pairs", [])), *_comparison_notes(evidence, document, refused)]
        ),
        section(SECTIONS["curves"], blocks["curves"]),
        section(SECTIONS["sensitivity"], blocks["sensitivity"]),
        section(SECTIONS["tuning"], [tables.as_html(written["tuning"]), *_tuning_notes(evidence), *blocks["tuning"]]),
        section("Would pruning have been safe?", _audit(evidence)),
        section(SECTIONS["geometry"], blocks["geometry"]),
        section("Provenance", _provenance(evidence)),
    ]
    path = to / "report.html"
    path.write_text(page(f"{evidence.sweep_id}: report", "\n".join(body)), encoding="utf-8")
    return path


def _top(
    evidence: Evidence,
    document: Mapping[str, Any] | None,
    refused: str,
    stamps: Sequence[str],
    figures: Sequence[str],
    arms: Sequence[Mapping[str, str]],
) -> str:
    kind = "refused" if document is None else "settled" if any(
        p["verdict"] != "inconclusive" for p in document["pairs"]
    ) else "open"  # fmt: skip
    task = ", ".join(f"{k} {v}" for k, v in evidence.definition["task"]["parameters"].items() if v is not None)
    budget, seeds = evidence.definition["budget"]["per_trial"], evidence.definition["seeds"]["confirm"]
    facts = f"{evidence.task} ({task}) · {budget:g} gradient evaluations a trial · {len(seeds)} paired confirm seeds"
    sealed = seal.sealed_hash(evidence.folder)
    badges = [f'<span class="badge warn">exploratory: {html.escape(s)}</span>' for s in stamps]
    if sealed and not stamps:
        badges.append(f'<span class="badge good">sealed before the first trial: {sealed[:12]}</span>')
    badges += [
        f'<span class="badge warn">{html.escape(code)} waived: {html.escape(why)}</span>'
        for code, why in evidence.analysis.get("waive", {}).items()
    ]
    rows = (read_json(evidence.folder.path / "controls.json") or {"rows": []})["rows"]
    if rows:
        bad = controls.failed(evidence.folder)
        badges.append(
            '<span class="badge bad">a control failed</span>' if bad
            else f'<span class="badge good">{len(rows)} controls held</span>'
        )  # fmt: skip
    said = [] if document is None else [sentence(p, document["metric"]) for p in _first(document, arms)]
    listed = "".join(f"<li>{html.escape(s)}</li>" for s in said)
    question = evidence.description or f"Which arm of {evidence.definition['name']} is best?"
    return (
        f"<header><p class=id>{html.escape(evidence.sweep_id)}</p><h1>{html.escape(question)}</h1>"
        f'<p class="verdict {kind}">{html.escape(headline(document, refused))}</p><ul>{listed}</ul>'
        f"<p class=facts>{html.escape(facts)}</p><p>{' '.join(badges)}</p></header>"
        f"{''.join(figures)}{tables.as_html(arms)}"
    )


def _first(document: Mapping[str, Any], arms: Sequence[Mapping[str, str]]) -> list[Mapping[str, Any]]:
    """The comparisons of the leading arm, those that were settled first."""
    top = arms[0]["arm"] if arms else ""
    chosen = sorted(shown(document), key=lambda p: (p["verdict"] == "inconclusive", top not in (p["a"], p["b"])))
    return [*chosen[:FIRST_SENTENCES]]


def _comparison_notes(evidence: Evidence, document: Mapping[str, Any] | None, refused: str) -> list[str]:
    if document is None:
        return [f"<p class=warn>{html.escape(refused)}</p>"]
    margin = f"a margin of ±{document['margin']:g}" if document["margin"] else "no equivalence margin"
    n, alpha = document["units"], document["alpha"]
    unit, units = ("study", "studies") if document["unit"] == "study" else ("seed", "seeds")
    said = [f"<p>{html.escape(line)}</p>" for line in notes(document)]
    return [
        *said,
        f"<p>Differences in the same {unit}; {100 * (1 - alpha):g} % t intervals of the mean. p is the exact sign-flip "
        f"test, corrected by Holm over the {len(document['pairs'])} comparisons, level {alpha:g}, {margin}. "
        f"Detectable: the difference that {n} {units} would find with 80 % power, given the spread that was seen.</p>",
    ]


def _tuning_notes(evidence: Evidence) -> list[str]:
    _, why = search_curves.curves(evidence)
    notes = [
        "<p>Optimism gap: the tuned metric on the confirm seeds minus its value in the search. Tunability: "
        "expected best value "
        "averaged over tuning budgets with early, uniform or all late weight. Usable width: decades spanned "
        "by configurations "
        "within 5 % of the best.</p>"
    ]
    edge = [f"{arm}: {', '.join(found)}" for arm in evidence.arms if (found := tuning.edges(evidence, arm))]
    if edge:
        notes.append(
            f"<p class=warn>Chosen at the edge of its range ({html.escape('; '.join(edge))}): the optimum may "
            f"lie outside. "
            "Widen the range and run again before you rely on this arm.</p>"
        )
    if why:
        notes.append(f"<p class=warn>Expected-best curve {html.escape(why)}.</p>")
    return notes


def _audit(evidence: Evidence) -> list[str]:
    found, kills = tuning.rungs(evidence), tuning.kills(evidence)
    blocks = [tables.as_html(tables.kills(kills))] if kills else []
    if found:
        lead = "" if kills else "Nothing was pruned. "
        blocks.append(
            f"<p>{lead}Over the trials that ran to the end: how well did the ranking at a share of the budget "
            f"agree with "
            "the final one, and would successive halving (one third goes on) have kept the final winner?</p>"
        )
        blocks.append(tables.as_html(tables.rungs(found)))
    return blocks


def _provenance(evidence: Evidence) -> list[str]:
    trials = evidence.trials
    known: dict[str, Any] = dict(evidence.resolved.get("provenance", {}))
    rows = {
        "sweep": evidence.sweep_id,
        "seal": seal.sealed_hash(evidence.folder) or "not sealed",
        **known,
        **{name.replace("_", " "): ", ".join(sorted(found)) for name, found in _facts(evidence).items()},
        "data (digest over all seeds)": seal.digest(sorted(set(trials["data_digest"])))[:16],
        "initial weights (digest over all seeds)": seal.digest(sorted(set(trials["init_digest"])))[:16],
        "gradient evaluations": f"{trials['grad_evals'].sum():,.0f}",
        "trial time": f"{trials['seconds'].sum():,.0f} s over {len(trials)} trials",
        "wall clock": f"{evidence.folder.seconds():,.0f} s",
    }
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
    text = (evidence.folder.path / "sweep.yaml").read_text(encoding="utf-8")
    diff = evidence.folder.path / "uncommitted.diff"
    more = ""
    if diff.exists():
        lines = diff.read_text(encoding="utf-8").splitlines()
        cut = "" if len(lines) <= MOST_DIFF_LINES else f", the first {MOST_DIFF_LINES} here, all in uncommitted.diff"
        more = (
            f"<details><summary>uncommitted changes ({len(lines)} lines{cut})</summary>"
            f"<pre>{html.escape(chr(10).join(lines[:MOST_DIFF_LINES]))}</pre></details>"
        )
    return [
        f"<table class=facts>{cells}</table>",
        more,
        f"<details open><summary>sweep.yaml</summary><pre>{html.escape(text)}</pre></details>",
    ]


def _facts(evidence: Evidence) -> dict[str, set[str]]:
    """What the task said of its data, a corpus hash for instance; trials of one sweep should agree."""
    found: dict[str, set[str]] = {}
    for trial in evidence.raw:
        for name, value in (trial.get("facts") or {}).items():
            found.setdefault(name, set()).add(str(value))
    return found


def _embedded(name: str, content: bytes, caption: str) -> str:
    data = base64.b64encode(content).decode()
    alt = html.escape(caption, quote=True)
    return (
        f'<figure id="{name}"><img alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
