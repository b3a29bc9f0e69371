"""A thread that carries out tasks in their order and waits while their addressee is away.

A task that fails because the addressee is away stays at the head; it is tried again after 1, 2, 4 .. 60 s, and whoever
hands over tasks never waits. One that fails although the addressee answers is given up after ATTEMPTS and counted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from orchestrator.storage.periodic import in_background
from orchestrator.storage.retry import backoff

ATTEMPTS = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LET_GO_S = 0.05
"""Between a task and its start: whoever hands it over, in this interpreter, has a free worker to see to first."""
Task = Callable[[], None]


class Sender:
    """`open` connects before the first task; `ping` raises while the addressee is away.

    Nothing is done for `wait_s` after it was made, or until it is told to `begin`.
    """

    def __init__(self, open: Task, ping: Task, name: str, *, wait_s: float = 0.0) -> None:
        self._open, self._ping = open, ping
        self._wait_s, self._begun = wait_s, threading.Event()
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._backlog: deque[Task] = deque()
        self._opened, self._closing, self._away = False, False, ""
        self._given_up = ""
        self._attempts, self._again_at = 0, 0.0
        self._pauses = backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """What is not sent, and why, or nothing."""
        return self._given_up or self._away

    @property
    def away(self) -> bool:
        """Whether the addressee did not answer last time."""
        return bool(self._away)

    def put(self, task: Task) -> None:
        """Carry out `task` when its turn comes; returns at once."""
        self._queue.put(task)

    def begin(self) -> None:
        """Wait no longer with the first task."""
        self._begun.set()

    def close(self) -> None:
        """Carry out what is left, with one more attempt when the addressee is away, and end the thread."""
        self.begin()
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        in_background()
        self._begun.wait(self._wait_s)
        while True:
            self._collect()
            while self._backlog and (self._closing or time.monotonic() >= self._again_at):
                if self._try(self._backlog[0]):
                    self._backlog.popleft()
                    self._attempts, self._away = 0, ""
                    self._pauses = backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
                elif self._away:
                    break
            if self._closing and self._queue.empty():
                return

    def _collect(self) -> None:
        """Wait for a task, or until it is time to try again; take in everything that waits."""
        wait = max(0.0, self._again_at - time.monotonic()) if self._backlog else None
        with contextlib.suppress(queue.Empty):
            task = self._queue.get(timeout=wait)
            if task is not None:
                time.sleep(LET_GO_S)
            while True:
                if task is None:
                    self._closing = True
                else:
                    self._backlog.append(task)
                task = self._queue.get_nowait()

    def _try(self, task: Task) -> bool:
        """Whether the task is done with: carried out, or given up."""
        try:
            if not self._opened:
                self._open()
                self._opened = True
            task()
            return True
        except Exception as error:
            said = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"
            self._opened = False  # what was asked may have been done and only the answer lost; `open` looks again
        try:
            self._ping()
        except Exception:
            self._away = said
            self._again_at = time.monotonic() + next(self._pauses)
            return False
        self._attempts += 1
        if self._attempts >= ATTEMPTS:
            self._given_up = said
        return self._attempts >= ATTEMPTS
