r"""`geosweep report --style paper`: the report as a section of a LaTeX document that includes the files next to it.

`paper.tex` needs the packages booktabs and graphicx. A document in another folder sets the path:

    \newcommand{\geosweeppath}{report}
    \input{report/paper}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.compare.report.page import Figure
from orchestrator.compare.report.tables import Row, as_latex, latex

ARMS = ("s / trial", "FLOPs / trial", "spent in all", "chosen")
PAIRS = ("p sign-flip", "p permutation", "p Wilcoxon", "p rank-sum", "detectable")
"""Columns that do not fit on a page; they are in arms.tex and pairs.tex."""


def section(context: Mapping[str, Any], drawn: Iterable[Figure], caption: str, stamps: Sequence[str]) -> str:
    """The section: question, verdict, sentences, tables of arms and comparisons, notes, figures."""
    return "\n".join(_lines(context, drawn, caption, stamps)) + "\n"


def _lines(context: Mapping[str, Any], drawn: Iterable[Figure], caption: str, stamps: Sequence[str]) -> Iterator[str]:
    yield f"% {context['sweep_id']}: needs \\usepackage{{booktabs,graphicx}}"
    yield "\\providecommand{\\geosweeppath}{.}"
    yield f"\\section{{{latex(context['question'])}}}\n"
    yield f"\\textbf{{{latex(context['headline'])}}}\n"
    yield f"{latex(context['facts'])}.\n"
    if context["sentences"]:
        yield "\\begin{itemize}"
        yield from (f"  \\item {latex(sentence)}" for sentence in context["sentences"])
        yield "\\end{itemize}\n"
    yield _table(context["arms"], ARMS, caption, stamps)
    yield f"{latex(context['cut'])}\n"
    pairs = [{**row, "A is": str(row["A is"]).partition(" (")[0]} for row in context["pairs"]]  # the list says why
    yield _table(pairs, PAIRS, f"Comparisons: {caption}", stamps)
    yield from (f"{latex(note)}\n" for note in context["notes"])
    for figure in drawn:
        yield "\\begin{figure}[htbp]\n  \\centering"
        size = "width=\\linewidth,height=0.75\\textheight,keepaspectratio"
        yield f"  \\includegraphics[{size}]{{\\geosweeppath/figures/{figure.name}.pdf}}"
        yield f"  \\caption{{{latex(figure.caption)}}}\n  \\label{{fig:{context['sweep_id']}:{figure.name}}}"
        yield "\\end{figure}\n"


def _table(rows: Sequence[Row], left_out: Sequence[str], caption: str, stamps: Sequence[str]) -> str:
    """A table at most as wide as the text."""
    kept = [{name: text for name, text in row.items() if name not in left_out} for row in rows]
    if not kept:
        return ""
    whole = as_latex(kept, caption, stamps)
    begin, end = "\\begin{tabular}", "\\end{tabular}"
    fits = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
    return whole.replace(begin, fits + begin).replace(end, f"{end}}}")
