"""`reconcile`: make study, trial folders, tables and MLflow agree."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import ROOT, Exit, Json, Root, Storage, Sweep, app, data, emit, fail


@app.command()
def reconcile(
    sweep: Sweep = "@last",
    root: Root = ROOT,
    tracking: Annotated[bool, typer.Option(help="Compare with MLflow too.")] = True,
    storage: Storage = "",
    as_json: Json = False,
) -> None:
    """Make study, trial folders, Parquet tables and MLflow agree; says what differed and what was done.

    Example: geosweep reconcile @last
    """
    from orchestrator import reconcile
    from orchestrator.definition import sweep_file
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder
    from orchestrator.storage.folder import read_json
    from orchestrator.tracking.mlflow import MlflowTracker

    found = folder.find(root, sweep)
    if (read_json(found.path / "resolved.json") or {}).get("imported"):
        fail(f"{found.sweep_id} was imported: there is no study and no run of ours to agree with", Exit.USAGE)
    with found.hold(storage):
        asked = extensions.applied(sweep_file.load(found.path / "sweep.yaml"), found)
        tracker = None
        if tracking:
            tracker = MlflowTracker(
                uri=asked.tracking.mlflow or (read_json(found.path / "resolved.json") or {}).get("tracking"),
                root=root,
                sweep_id=found.sweep_id,
                name=asked.name,
                description=asked.description,
                facts={},
                studies=asked.seeds.studies,
            )
        try:
            differences = reconcile.reconcile(found, tracker, storage or None)
        except ConnectionError as error:
            fail(f"the tracker does not answer ({error}); run this again when it does", Exit.UNREACHABLE)
    if as_json:
        emit({"schema": "geosweep/reconcile/1", "sweep_id": found.sweep_id, "differences": differences})
        return
    for line in differences:
        data.print(line, highlight=False, markup=False)
    if not differences:
        data.print(f"{found.sweep_id}: study, trial folders, tables and MLflow agree", highlight=False)
