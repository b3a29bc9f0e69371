"""`compare`, `report`, `verify`, `profile`: what sweeps say, and whether it can be trusted."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestrator.cli.app import (
    ROOT,
    Exit,
    Json,
    Root,
    Sweep,
    app,
    data,
    emit,
    fail,
    named,
    say,
    show,
    show_stamps,
    talk,
)
from orchestrator.definition.errors import SpecError

if TYPE_CHECKING:
    from orchestrator.compare.evidence import Evidence
    from orchestrator.statistics.verdict import Verdict


def _each(sweeps: list[str] | None) -> list[str | None]:
    return [named(one) for one in sweeps or ()]


Sweeps = Annotated[
    list[str] | None,
    typer.Argument(help="Sweep ids, unique prefixes, or @last; or their folders, or their files.", callback=_each),
]


class Style(enum.StrEnum):
    """What a report is for."""

    PAGE = "page"
    PAPER = "paper"


NOISE = ("A", "B", "share of search", "share of training seeds", "what settles it cheapest")
"""Columns of the second table that fit into a terminal; the report has them all."""


def _evidence(root: Path, names: list[str], verb: str) -> list[Evidence]:
    from orchestrator.compare.evidence import Evidence
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder

    found = [folder.find(root, name) for name in names]
    for one in found:
        extensions.look(one, verb)
    return [Evidence(one) for one in found]


@app.command()
def compare(
    sweeps: Sweeps = None,
    baseline: Annotated[
        str | None, typer.Option(help="Compare every arm with this one; none: all pairs. Default: as declared.")
    ] = None,
    metric: Annotated[str, typer.Option(help="A metric other than the one that the sweep reports.")] = "",
    margin: Annotated[
        float | None, typer.Option(min=0.0, help="Differences up to this margin, in the metric's units, count as none.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Also write the table as CSV, and FILE-numbers.csv with one number per column."),
    ] = None,
    latex: Annotated[Path | None, typer.Option(help="Also write the table as LaTeX (booktabs).")] = None,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Say whether arms differ, over paired studies or confirm seeds, and how sure that is. Exit code 6 when they are
    not comparable.

    Several studies per arm answer for methods, a single one only for the configurations it found. Several sweeps of one
    task are compared arm by arm.

    Example: geosweep compare @last --baseline sgd
    """
    from orchestrator.compare import across, answer
    from orchestrator.compare.report import numbers, tables
    from orchestrator.statistics.pairing import Refused
    from orchestrator.storage import whole

    found = _evidence(root, sweeps or ["@last"], "compare")
    try:
        if len(found) == 1:
            document = answer.answer(found[0], metric=metric, baseline=baseline, margin=margin)
        else:
            document = across.answer(found, metric=metric, baseline=baseline, margin=margin)
    except Refused as reason:
        fail(f"no comparison: {reason}", Exit.CHECK_FAILED)
    stamps = document.exploratory
    caption = tables.caption(document)
    written: dict[Path, str] = {}
    if csv:
        exact = numbers.stamped(numbers.pairs(document), stamps)
        written[csv] = tables.as_csv(tables.pairs(document), stamps)
        written[numbers.beside(csv)] = tables.as_csv(exact)
    if latex:
        written[latex] = tables.as_latex(tables.pairs(document), caption, stamps)
    whole.write(written)
    if as_json:
        emit(document.document())
        return
    show(_pairs_table(document, caption))
    if noise := tables.noise(document):
        show(_table("where the noise comes from", noise, NOISE))
    for pair in answer.shown(document):
        data.print(answer.sentence(pair, document.metric), highlight=False, markup=False)
    for line in answer.notes(document):
        data.print(line, highlight=False, markup=False)
    if few := answer.too_few(document):
        data.print(few, highlight=False, markup=False, style="yellow")
    show_stamps(stamps)


def _pairs_table(document: Verdict, caption: str) -> Table:
    from orchestrator.compare.report import tables

    rows = tables.pairs(document)
    kept = tuple(column for column in (rows[0] if rows else ()) if column != "detectable")
    return _table(f"{document.sweep_id}: {caption}", rows, kept)


def _table(title: str, rows: Sequence[Mapping[str, str]], kept: Sequence[str]) -> Table:
    table = Table(title=title)
    sentences = {
        "A is",
        "what settles it cheapest",
    }  # these wrap, so a narrow terminal does not cut off names or numbers
    for column in kept:
        words = column in {"A", "B", *sentences}
        table.add_column(column, justify="left" if words else "right", no_wrap=column not in sentences)
    for row in rows:
        table.add_row(*(row[k] for k in kept))
    return table


@app.command()
def report(
    sweep: Sweep = "@last",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: report/ of the sweep.")
    ] = None,
    style: Annotated[
        Style, typer.Option(help="paper: also paper.tex, a section for LaTeX with its figures.")
    ] = Style.PAGE,
    vector: Annotated[bool, typer.Option(help="Also write each figure as SVG and PDF; paper always does.")] = False,
    tracking: Annotated[bool, typer.Option(help="Log the report to the sweep's MLflow run.")] = True,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Write one HTML file with the verdict, tables and figures, and log it to MLflow.

    Example: geosweep report @last
    """
    from orchestrator.compare.report import publish
    from orchestrator.protocol import seal

    evidence = _evidence(root, [sweep], "report")[0]
    if tracking:
        from orchestrator.cli.reconcile import renewed

        with suppress(Exception):  # reported below, when the report itself is not sent
            renewed(evidence.folder)
    paper = style is Style.PAPER
    form = {"paper": paper, "vector": vector or paper}
    path, trouble = publish.write(evidence, output, tracking=tracking and not evidence.imported, **form)
    if trouble:
        say(f"the report was not logged to MLflow ({trouble}); the report on disk is complete", "yellow")
    if as_json:
        files = sorted(str(p) for p in path.parent.rglob("*") if p.is_file())
        document = {"schema": "geosweep/report/1", "sweep_id": evidence.sweep_id, "report": str(path), "files": files}
        emit({**document, "exploratory": seal.stamps(evidence.folder)})
    else:
        data.print(str(path), highlight=False, soft_wrap=True)
        if paper:
            data.print(str(path.with_name("paper.tex")), highlight=False, soft_wrap=True)
        show_stamps(seal.stamps(evidence.folder))


@app.command()
def verify(sweep: Sweep = "@last", root: Root = ROOT, as_json: Json = False) -> None:
    """Prove that a sweep is what was sealed before its first trial. Exit code 7 if it, or its source, was changed.

    Example: geosweep verify @last
    """
    from orchestrator.definition import sweep_file
    from orchestrator.protocol import seal
    from orchestrator.storage import folder

    found, code = folder.find(root, sweep), None
    try:
        if found.resolved().imported:
            talk.print("imported: the source that trained these runs is unknown", highlight=False)
        else:
            code = seal.code_of(sweep_file.load(found.path / "sweep.yaml"))
    except SpecError as error:
        talk.print(f"the source was not compared: {error}", style="yellow", highlight=False, markup=False)
    verified = seal.verify(found, code)
    if as_json:
        emit(verified.document())
    else:
        words = f"sealed {verified.sealed_at}, {verified.hash[:12]}" if verified.hash else "not sealed"
        data.print(f"{verified.sweep_id}: {verified.trials} trials, {words}", highlight=False)
        for problem in verified.problems:
            data.print(f"changed: {problem}", highlight=False, markup=False, style="red")
        for name in verified.changed_files:
            data.print(f"changed since the seal: {name}", highlight=False, style="red")
        show_stamps(verified.exploratory)
        if verified.hash and verified.intact and not (verified.exploratory or verified.changed_files):
            data.print("intact: every trial, seed, budget and result is what was sealed or recorded")
    if not verified.intact or verified.changed_files:
        raise typer.Exit(int(Exit.SEAL_BROKEN))


@app.command()
def profile(
    sweeps: Annotated[list[str], typer.Argument(help="Sweeps of several tasks, or a single one.")],
    reference: Annotated[
        str,
        typer.Option(help="Arm whose final value sets each task's target; default: the plain one."),
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for figures, CSV and LaTeX.")] = None,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Time to target: for one sweep in gradient evaluations and seconds; for several tasks also performance profiles,
    with a critical-difference diagram for six or more tasks.

    Example: geosweep profile digits-a1 quadratic-b2 --reference sgd -o out
    """
    from orchestrator.compare import profiles, time_to_target
    from orchestrator.compare.figures import overview
    from orchestrator.statistics.pairing import Refused

    found = _evidence(root, sweeps, "profile")
    one = found[0] if len({evidence.sweep_id for evidence in found}) == 1 else None
    try:
        document = time_to_target.document(one, reference) if one else profiles.document(found, reference)
    except Refused as reason:
        fail(f"no profile: {reason}", Exit.CHECK_FAILED)
    if one:
        rows, written = time_to_target.rows(document), time_to_target.write(document, output) if output else []
        title = time_to_target.caption(document)
    else:
        rows, written = overview.rows(document), overview.write(document, output) if output else []
        title = f"gradient evaluations to the target that {document['reference']} sets on each task"
    if as_json:
        emit(document)
        return
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "arm" else "right")
    for row in rows:
        table.add_row(*row.values())
    show(table)
    show_stamps(document["exploratory"])
    if not one and not document["ranks"]["drawn"]:
        data.print(f"no critical-difference diagram: {document['ranks']['why']}", highlight=False)
    for path in written:
        data.print(str(path), highlight=False)
