"""`reconcile`: make study, trial folders, tables and MLflow agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import ROOT, Exit, Json, Root, Storage, Sweep, app, data, emit, fail, say

if TYPE_CHECKING:
    from orchestrator.storage.folder import SweepFolder


def renewed(found: SweepFolder) -> list[str]:
    """Bring a finished sweep in MLflow to what this version logs: intervals of its arms, and its views.

    Returns what was from an earlier version. Raises ConnectionError when the store does not answer.
    """
    from orchestrator.compare import told
    from orchestrator.compare.evidence import Evidence
    from orchestrator.storage.outcome import SweepOutcome
    from orchestrator.tracking.mlflow_report import UntrackedError

    outcome, evidence = SweepOutcome.read(found), Evidence(found)
    if outcome is None or not outcome.is_over or evidence.imported:
        return []
    try:
        old = told.runs_of(evidence).outdated()
    except UntrackedError:  # was never tracked
        return []
    if old:
        from orchestrator import runner
        from orchestrator.definition import sweep_file
        from orchestrator.protocol import extensions
        from orchestrator.storage import ending
        from orchestrator.tracking.mlflow_sweep import tracker_of

        asked = extensions.applied(sweep_file.load(found.path / "sweep.yaml"), found)
        tracker = tracker_of(asked, found, uri=evidence.resolved.tracking)
        how = ending.read(found)
        parameters = runner.chosen(asked, found)
        tracker.finish(outcome.state, runner.summaries(asked, found), parameters, how.ending if how else "")
        if tracker.trouble:
            raise ConnectionError(tracker.trouble)
    return [f"mlflow: the summaries of {', '.join(old)} were from an earlier version; rewritten"] if old else []


@app.command()
def reconcile(
    sweep: Sweep = "@last",
    root: Root = ROOT,
    tracking: Annotated[
        bool | None, typer.Option("--tracking/--no-tracking", help="Compare with MLflow too; default: as it was run.")
    ] = None,
    storage: Storage = "",
    as_json: Json = False,
) -> None:
    """Make study, trial folders, Parquet tables and MLflow agree; report differences and fixes. MLflow is left alone
    where the sweep was run with --no-tracking; --tracking logs it there.

    Example: geosweep reconcile @last
    """
    from orchestrator import reconcile
    from orchestrator.compare import told
    from orchestrator.definition import sweep_file
    from orchestrator.protocol import extensions
    from orchestrator.storage import folder
    from orchestrator.tracking.mlflow_sweep import tracker_of

    found = folder.find(root, sweep)
    if found.resolved().imported:
        fail(f"{found.sweep_id} was imported: it has no study or runs of its own to compare with", Exit.USAGE)
    with found.hold(storage):
        asked = extensions.applied(sweep_file.load(found.path / "sweep.yaml"), found)
        tracker = None
        left_alone = tracking is None and not found.tracked
        tracking = found.tracked if tracking is None else tracking
        if tracking:
            tracker = tracker_of(asked, found, uri=found.resolved().tracking)
        try:
            differences = reconcile.reconcile(found, tracker, storage or None)
            differences += renewed(found) if tracking else []
            if tracking and (problem := told.tell(found)):
                raise ConnectionError(problem)
            if tracking:
                found.note_tracked(True)
        except ConnectionError as error:
            fail(f"the tracker does not answer ({error}); rerun this when it does", Exit.UNREACHABLE)
    if left_alone:
        again = found.command("reconcile", found.sweep_id, "--tracking")
        say(
            f"{found.sweep_id} was run with --no-tracking, so it was not compared with MLflow. To log it there: {again}"
        )
    if as_json:
        emit({"schema": "geosweep/reconcile/1", "sweep_id": found.sweep_id, "differences": differences})
        return
    for line in differences:
        data.print(line, highlight=False, markup=False)
    if not differences:
        all_ = "study, trial folders, tables and MLflow" if tracking else "study, trial folders and tables"
        data.print(f"{found.sweep_id}: {all_} agree", highlight=False)
