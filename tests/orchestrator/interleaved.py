"""An executor with many workers in this process: their trials advance in turn, in an order drawn at random."""

from __future__ import annotations

import random
from typing import Any

from orchestrator.trial.session import TrialSession


class Interleaved:
    """`workers` trials at a time; which of them advances next is drawn from `seed`. `die_after` reports it raises."""

    def __init__(self, workers: int, seed: int = 0, die_after: int | None = None) -> None:
        self._workers, self._random, self._left = workers, random.Random(seed), die_after

    def run(self, conductor: Any) -> None:
        open_ones: list[TrialSession] = []
        try:
            while not conductor.exhausted or open_ones:
                while len(open_ones) < self._workers and (job := conductor.next_job()) is not None:
                    open_ones.append(TrialSession(job))
                if not open_ones:
                    continue
                session = self._random.choice(open_ones)
                report = session.advance()
                if self._left is not None:
                    self._left -= 1
                    if self._left < 0:
                        raise Dies
                if not conductor.on_report(report):
                    session.close()
                    open_ones.remove(session)
        finally:
            for session in open_ones:
                session.close()

    def close(self) -> None:
        """Nothing was started."""


class Dies(Exception):
    """Stands for kill -9: leaves everything as it is at that moment."""
