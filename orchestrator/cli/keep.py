"""`list`, `delete`: the sweeps under a root."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import ROOT, SWEEP, Exit, Json, Root, Storage, app, data, emit, fail, named, say, show, talk

if TYPE_CHECKING:
    from orchestrator.storage.folder import SweepFolder


@app.command("list")
def list_sweeps(root: Root = ROOT, as_json: Json = False) -> None:
    """List all sweeps under the root: state, age, trials, the best arm so far. The most recent one comes last.

    Example: geosweep list
    """
    from orchestrator.storage import folder, object_store

    rows = [_row(found) for found in folder.sweeps(root)]
    place = object_store.far(root) or str(root)
    if as_json:
        emit({"schema": "geosweep/list/1", "root": place, "sweeps": rows})
        return
    if not rows:
        say(f"no sweep under {place}/; start one with: geosweep run FILE")
        return
    table = Table(title=f"{place}/")
    for name in ("sweep", "state", "updated", "trials", "best", "question"):
        table.add_column(name, justify="right" if name == "trials" else "left")
    for row in rows:
        trials = row["trials"]
        count = f"{trials['ended']}/{trials['planned']}" + (f", {trials['failed']} failed" if trials["failed"] else "")
        table.add_row(row["sweep_id"], row["state"], f"{_age(row['age_s'])} ago", count, _best(row), row["description"])
    show(table)


def _row(found: SweepFolder) -> dict[str, Any]:
    """The `list` entry of a sweep; one with unreadable files says so."""
    from orchestrator import results
    from orchestrator.protocol import extensions

    age = max(0.0, time.time() - found.path.stat().st_mtime)
    row: dict[str, Any] = {"sweep_id": found.sweep_id, "state": "damaged", "age_s": round(age)}
    row |= {"trials": {"ended": 0, "planned": 0, "running": 0, "failed": 0}, "best": None, "description": ""}
    try:
        found.level()
        extensions.look(found, "list")
        status, best = results.status(found), results.best(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {**row, "description": f"its files cannot be read: {error}"}
    total = status.total
    values = {arm: one.value for arm, one in best.arms.items() if one.value is not None}
    winner = best.goal.best(values.values()) if values else None
    row |= {
        "state": status.state,
        "trials": {"ended": total.ended, "planned": total.planned, "running": total.running, "failed": total.failed},
        "grad_evals": status.grad_evals,
        "seconds": status.seconds,
        "best": None
        if winner is None
        else {"arm": next(a for a, v in values.items() if v == winner), "value": winner, "metric": best.metric},
        "description": _question(found),
    }
    return row


def _question(found: SweepFolder) -> str:
    from orchestrator.definition.yaml12 import YamlError, parse

    try:
        asked = parse((found.path / "sweep.yaml").read_text(encoding="utf-8")).value
        return str(asked.get("description", ""))
    except (OSError, YamlError, AttributeError, UnicodeDecodeError):
        return ""


def _best(row: Mapping[str, Any]) -> str:
    best = row["best"]
    return "" if best is None else f"{best['arm']}: {best['metric']} {best['value']:.4g}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


@app.command()
def delete(
    sweep: Annotated[str, typer.Argument(help=SWEEP, show_default=False, callback=named)],
    root: Root = ROOT,
    tracking: Annotated[bool, typer.Option(help="Delete its MLflow runs too.")] = True,
    storage: Storage = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a sweep: its folder, its MLflow runs, and the cache entries of its trials. A running sweep is refused.

    Example: geosweep delete quickstart-1a2b3c4d
    """
    from orchestrator.storage import folder
    from orchestrator.storage.errors import Held
    from orchestrator.trial import cache

    found = folder.find(root, sweep)
    if found.is_held():
        raise Held(f"sweep {found.sweep_id} is running; stop it first with: {found.command('stop', found.sweep_id)}")
    runs = _runs(found) if tracking else []
    entries = cache.entries(found.cache, found.sweep_id)
    size, trials = _size(found.path), sum(1 for _ in (found.path / "trials").glob("*/trial.json"))
    what = f"{trials} trials ({_bytes(size)}), {len(runs)} MLflow runs, {len(entries)} cache entries"
    if not yes:
        talk.print(f"{found.sweep_id} in {found.place}/: {what}", highlight=False, markup=False)
        _ask(found.sweep_id)
    with found.hold(storage):
        if storage:
            from orchestrator.scheduling.studies import forget

            forget(storage, found.sweep_id)
        freed = size + (0 if isinstance(runs, list) else runs.delete())
        for entry in entries:
            entry.unlink(missing_ok=True)
        found.remove()
    if as_json:
        emit(
            {
                "schema": "geosweep/delete/1",
                "sweep_id": found.sweep_id,
                "trials": trials,
                "mlflow_runs": len(runs),
                "cache_entries": len(entries),
                "bytes": freed,
            }
        )
        return
    data.print(f"deleted {found.sweep_id}: {what}; {_bytes(freed)} freed", highlight=False, markup=False)


def _runs(found: SweepFolder) -> Any:
    """The sweep's MLflow runs."""
    from orchestrator.tracking.mlflow_delete import MlflowRuns

    try:
        uri = found.resolved().tracking
    except ValueError:  # damaged, but it can be deleted
        uri = None
    name = found.sweep_id.rpartition("-")[0]
    try:
        return MlflowRuns(uri=uri, root=found.root, sweep_id=found.sweep_id, name=name)
    except ConnectionError as error:
        fail(f"{error}; --no-tracking deletes the sweep and leaves its runs there", Exit.UNREACHABLE)


def _ask(sweep_id: str) -> None:
    try:
        wanted = typer.confirm("Delete all of it?", err=True)
    except typer.Abort:
        fail("no terminal to confirm on; give --yes", Exit.USAGE)
    if not wanted:
        fail(f"{sweep_id} was not deleted", Exit.INTERRUPTED)


def _size(place: Path) -> int:
    return sum(p.stat().st_size for p in place.rglob("*") if p.is_file())


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
