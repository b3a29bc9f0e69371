"""All trials in this very process, one after another: for tests, debuggers and breakpoints."""

from __future__ import annotations

from orchestrator.executors.base import Conductor
from orchestrator.trial.sessions import session_of


class DebugExecutor:
    """Runs trials in the calling thread."""

    def run(self, conductor: Conductor) -> None:
        """Run every trial to its end before the next begins."""
        conductor.on_workers(1)
        while not conductor.exhausted:
            job = conductor.next_job()
            if job is None:
                continue
            session = session_of(job)
            try:
                while conductor.on_report(session.advance()):
                    continue
            finally:
                session.close()

    def close(self) -> None:
        """Nothing was started."""
