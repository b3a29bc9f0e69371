"""All trials in this process, one pack after another: for tests, debuggers and breakpoints."""

from __future__ import annotations

from orchestrator.executors.base import Conductor, further, has_room
from orchestrator.trial.crew import Crew
from orchestrator.trial.job import Job


class DebugExecutor:
    """Runs trials in the calling thread: one after another, or in packs of those that can be stepped together."""

    def run(self, conductor: Conductor) -> None:
        """Run every trial, or pack of trials, to its end before the next one starts."""
        conductor.on_workers(1)
        crew = Crew()
        held: dict[str, Job] = {}
        try:
            while held or not conductor.exhausted:
                if not held and (job := conductor.next_job()) is not None:
                    held[job.trial_id] = job
                if has_room(held):
                    first = next(iter(held.values()))
                    held |= {job.trial_id: job for job in further(conductor, first, first.pack - len(held))}
                crew.turn_to(list(held.values()))
                for report in crew.advance():
                    if not conductor.on_report(report):
                        del held[report.trial_id]
        finally:
            crew.close()

    def close(self) -> None:
        """Nothing to shut down."""
