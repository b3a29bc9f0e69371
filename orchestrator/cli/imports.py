"""`import csv`, `parquet`, `mlflow`, `optuna`: results trained elsewhere, as a sweep to compare."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orchestrator.cli.app import ROOT, Exit, Json, Root, app, comparable, emit, fail, next_steps, talk

if TYPE_CHECKING:
    from orchestrator.storage.foreign_runs import ForeignRuns

imports = typer.Typer(
    help="Import results trained elsewhere, as a sweep to compare, never to run.", no_args_is_help=True
)
app.add_typer(imports, name="import")

Command = TypeVar("Command", bound=Callable[..., None])


def _questions(
    arm: Annotated[
        str, typer.Option(help="Column, or comma-separated columns, whose values name the arms.", show_default=False)
    ] = "",
    seed: Annotated[
        str, typer.Option(help="Column of seeds; none: runs are not paired. Default: guessed.", show_default=False)
    ] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="NAME:maximize or NAME:minimize, the tuned one first; repeatable.", show_default=False),
    ] = None,
    study: Annotated[
        str,
        typer.Option(
            help="Column that distinguishes independent searches of an arm; none: there are none.", show_default=False
        ),
    ] = "",
    parameters: Annotated[
        str | None,
        typer.Option(help="Columns of hyperparameters, comma-separated. Default: guessed.", show_default=False),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="Column with what a run spent (steps, epochs, ...), checked for equality.", show_default=False
        ),
    ] = "",
    report: Annotated[
        str, typer.Option(help="Which of these metrics to compare; default: the first.", show_default=False)
    ] = "",
    step: Annotated[
        str,
        typer.Option(help="Column of steps, if a run has a row for each; none: one row per run.", show_default=False),
    ] = "",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="COLUMN=VALUE: only these rows; repeatable.", show_default=False),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Take a run's best value along its curve, not its last.")
    ] = False,
    worst: Annotated[
        float | None, typer.Option(help="Value of a run without a finite one.", show_default=False)
    ] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out runs without a finite value.")
    ] = False,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="Equal seeds of different arms are unrelated.")] = False,
    tune_seeds: Annotated[
        str,
        typer.Option(
            help="Seeds that choose among an arm's configurations, comma-separated; the others compare.",
            show_default=False,
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the sweep; default: that of the source.", show_default=False)] = "",
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """The options of every import."""


def _asking(*without: str) -> Callable[[Command], Command]:
    """Adds them to a command, which takes them as `**given`; `without` some."""

    def extended(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        more = inspect.signature(_questions, eval_str=True).parameters.values()
        kept = [p for p in own if p.kind is not p.VAR_KEYWORD] + [p for p in more if p.name not in without]
        command.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        return command

    return extended


@imports.command()
@_asking()
def csv(
    file: Annotated[Path, typer.Argument(help="A table with a header line.")],
    **given: Any,
) -> None:
    """Import a CSV file: one row per run, or per step of each run.

    Example: geosweep import csv results.csv --arm optimizer --seed seed --metric accuracy:maximize
    """
    from orchestrator.storage.foreign_runs import of_csv

    _make(lambda: of_csv(file), file.stem, given)


@imports.command()
@_asking()
def parquet(
    file: Annotated[Path, typer.Argument(help="A Parquet file, or a folder of one data set.")],
    **given: Any,
) -> None:
    """Import a Parquet file: one row per run, or per step of each run.

    Example: geosweep import parquet results.parquet --arm optimizer --seed seed --metric accuracy:maximize
    """
    from orchestrator.storage.foreign_runs import of_parquet

    _make(lambda: of_parquet(file), file.stem, given)


@imports.command()
@_asking("step")
def mlflow(
    uri: Annotated[str, typer.Argument(help="Tracking URI: http://HOST, sqlite:///FILE, or a folder mlruns.")],
    experiment: Annotated[list[str], typer.Argument(help="Names of experiments, or ids.")],
    **given: Any,
) -> None:
    """Import an MLflow experiment. Columns are params.NAME, metrics.NAME, tags.NAME; a bare NAME works if it is
    unambiguous.

    Example: geosweep import mlflow http://127.0.0.1:5000 resnets --arm params.optimizer --metric val_acc:maximize
    """
    from orchestrator.tracking.mlflow_runs import runs

    wanted = [text.rpartition(":")[0] or text for text in given["metric"] or []]
    _make(lambda: runs(uri, experiment, wanted), experiment[0], given)


@imports.command()
@_asking("step")
def optuna(
    url: Annotated[str, typer.Argument(help="Database as Optuna takes it, or a journal file.")],
    studies: Annotated[list[str] | None, typer.Argument(help="Names of studies; default: all.")] = None,
    **given: Any,
) -> None:
    """Import Optuna studies, each an independent search. Names such as adam-1, adam-2 give arm and study.

    Example: geosweep import optuna sqlite:///optuna.db adam-1 adam-2 sgd-1 sgd-2
    """
    from orchestrator.search.optuna_runs import runs

    _make(lambda: runs(url, studies or []), (studies or ["studies"])[0], given)


def _make(read: Callable[[], ForeignRuns], source: str, given: Mapping[str, Any]) -> None:
    """Read, interpret and write, and report the interpretation."""
    from orchestrator import parquet
    from orchestrator.imported.make import make
    from orchestrator.imported.roles import Question
    from orchestrator.protocol import seal
    from orchestrator.storage.foreign_runs import UnusableError, listed
    from orchestrator.storage.provenance import provenance

    question = Question(
        arm=_commas(given["arm"]) or (),
        seed=given["seed"],
        study=given["study"],
        metrics=given["metric"] or (),
        report=given["report"],
        parameters=None if given["parameters"] is None else _commas(given["parameters"]),
        budget=given["budget"],
        step=given.get("step", ""),
        where=given["where"] or (),
        select="best" if given["best"] else "last",
        worst=given["worst"],
        drop_missing=given["drop_missing"],
        unpaired=given["unpaired"],
        tune_seeds=_commas(given["tune_seeds"]),
    )
    try:
        made = make(read(), question, given["root"], given["name"] or source, provenance())
    except UnusableError as error:
        fail(str(error), Exit.INVALID_FILE)
    parquet.export(made.folder, made.folder.results)
    identity, trials = made.folder.sweep_id, len({one.row.where for one in made.design.placed})
    arms = list(dict.fromkeys(one.row.arm for one in made.design.placed))
    if given["as_json"]:
        emit(
            {
                "schema": "geosweep/import/1",
                "sweep_id": identity,
                "arms": arms,
                "trials": trials,
                "pairing": made.design.pairing,
                "columns": asdict(made.role),
                "guessed": list(made.role.guessed),
                "notes": made.notes,
            }
        )
        return
    if made.role.guessed:
        talk.print(f"guessed: {'; '.join(made.role.guessed)}", highlight=False, markup=False, soft_wrap=True)
    for note in made.notes:
        talk.print(note, highlight=False, markup=False, soft_wrap=True, style="yellow")
    said = "imported before" if made.was_there else seal.PAIRINGS[made.design.pairing]
    talk.print(
        f"sweep {identity}: {trials} runs of {len(arms)} arms ({listed(arms, 8)}), imported: {said}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    verbs = ("compare", "report") if comparable(made.folder) else ("report",)
    next_steps(*(made.folder.command(verb, identity) for verb in verbs))


def _commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
