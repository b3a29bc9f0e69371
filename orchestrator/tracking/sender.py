"""A thread that runs tasks in order and waits while their recipient is unavailable.

A task that fails because the recipient is unavailable stays at the head and is retried after 1, 2, 4 .. 60 s; callers
never wait. One that fails although the recipient answers is given up after ATTEMPTS and counted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from orchestrator.definition.passwords import without_passwords
from orchestrator.storage.periodic import in_background
from orchestrator.storage.retry import backoff

ATTEMPTS = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LET_GO_S = 0.05
"""Delay before a task starts: the caller, in the same interpreter, first has to serve a free worker."""
Task = Callable[[], None]


class Sender:
    """`open` connects before the first task; `ping` raises while the recipient is unavailable.

    Tasks run `wait_s` after creation, or as soon as `begin` is called. `tell` is called from the thread, once, with the
    first error for which a task waits or is given up; not while the sender closes, when `trouble` has it at once.
    """

    def __init__(
        self, open: Task, ping: Task, name: str, *, wait_s: float = 0.0, tell: Callable[[Exception], None] | None = None
    ) -> None:
        self._open, self._ping, self._tell = open, ping, tell
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
        """What was not sent, and why; empty if everything was."""
        return self._given_up or self._away

    @property
    def away(self) -> bool:
        """Whether the recipient did not answer last time."""
        return bool(self._away)

    def put(self, task: Task) -> None:
        """Queue `task`; returns at once."""
        self._queue.put(task)

    def begin(self) -> None:
        """Run the first task without further delay."""
        self._begun.set()

    def close(self) -> None:
        """Run the remaining tasks, with one more attempt if the recipient is unavailable, and end the thread."""
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
        """Wait for a task or for the next retry; take everything that is queued."""
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
        """Whether the task is finished: done, or given up."""
        try:
            if not self._opened:
                self._open()
                self._opened = True
            task()
            return True
        except Exception as error:
            failure = error
            said = f"{type(error).__name__}: {without_passwords((str(error).splitlines() or ['no message'])[0])[:200]}"
            self._opened = False  # the request may have succeeded with only the response lost; `open` checks again
        try:
            self._ping()
        except Exception:
            self._away = said
            self._again_at = time.monotonic() + next(self._pauses)
            self._tell_once(failure)
            return False
        self._attempts += 1
        if self._attempts >= ATTEMPTS:
            self._given_up = said
            self._tell_once(failure)
        return self._attempts >= ATTEMPTS

    def _tell_once(self, failure: Exception) -> None:
        tell, self._tell = self._tell, None
        if tell is not None and not self._closing:
            with contextlib.suppress(Exception):  # what was to be sent matters more
                tell(failure)
