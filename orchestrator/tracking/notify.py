"""Notifications to a chat or a phone when a sweep is done, or when trials diverge, fail or stall.

They are sent by a separate thread, each within SEND_S; a sweep waits for them only at its end, for CLOSE_S. Errors are
reported in one line without the address. Slack, Discord and ntfy get their own formats, any other host a JSON document
with the message in `text` (which Mattermost, Rocket.Chat and Teams show).
"""

from __future__ import annotations

import base64
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from orchestrator.definition.currency import WORDS
from orchestrator.definition.states import State
from orchestrator.storage.periodic import in_background
from orchestrator.trial.job import Job, Report, Result

SEND_S, CLOSE_S = 10.0, 20.0
ATTEMPTS, PAUSE_S = 3, 2.0
GAP_S = 60.0
"""Between two messages of one kind: events in between are counted and reported in the next one."""
MOST = 5
"""Trials named in a message."""
LONGEST = {"discord": 2000, "ntfy": 4000}
"""Maximum length of a message."""


class Notifier:
    """Follows trials (see `callbacks.Callback`). `targets`: event -> address; `say` reports errors."""

    def __init__(
        self, sweep_id: str, targets: Mapping[str, str], *, stuck_after_s: float, say: Callable[[str], object]
    ) -> None:
        self._sweep_id, self._targets, self._stuck_after, self._say = sweep_id, dict(targets), stuck_after_s, say
        self._queue: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: dict[str, list[tuple[str, str]]] = defaultdict(list)  # event -> (trial, its message)
        self._told_at: dict[str, float] = {}
        self._running: dict[str, None] = {}
        self._heard_at, self._stuck, self._closing = time.monotonic(), False, threading.Event()
        self._progress: dict[str, Any] = {}  # trial -> what its last report said
        self._thread: threading.Thread | None = None
        if self._targets:
            self._thread = threading.Thread(target=self._work, daemon=True, name="notifier")
            self._thread.start()

    def on_start(self, job: Job) -> None:
        """A trial begins."""
        self._hear()
        self._running[job.trial_id] = None

    def on_report(self, job: Job, report: Report) -> None:
        """It lives; a report that says nothing new, as of a script that is silent, is no progress."""
        by_clock = job.program.get("unit") == "seconds"
        says = report.evaluation, dict(report.metrics), 0.0 if by_clock else report.grad_evals
        if self._progress.get(job.trial_id) != says:
            self._progress[job.trial_id] = says
            self._hear()

    def on_end(self, job: Job, result: Result | Report) -> None:
        """It ended or is paused."""
        self._hear()
        self._running.pop(job.trial_id, None)
        self._progress.pop(job.trial_id, None)
        if isinstance(result, Result) and result.state is State.FAILED:
            self._note("failed", job.trial_id, (result.error.strip().splitlines() or ["no traceback"])[-1])
        elif isinstance(result, Result) and result.state is State.DIVERGED:
            self._note(
                "diverged", job.trial_id, f"after {result.grad_evals:g} {WORDS[job.program.get('unit', 'grad_evals')]}"
            )

    def on_recover(self, job: Job, result: Result) -> None:
        """Already reported by the earlier driver."""

    def end(self, event: str, text: str, **facts: Any) -> None:
        """The sweep is over: `done`, or `failed` as a whole."""
        self._put(event, text, facts)

    def close(self) -> None:
        """Send what is pending, for at most CLOSE_S."""
        if self._thread is None:
            return
        self._closing.set()
        self._queue.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._say("a notification was not sent in time")

    def _hear(self) -> None:
        self._heard_at, self._stuck = time.monotonic(), False

    def _note(self, event: str, trial: str, says: str) -> None:
        with self._lock:
            self._pending[event].append((trial, says))
        self._queue.put(("", {}))  # wake the thread

    def _put(self, event: str, text: str, facts: Mapping[str, Any]) -> None:
        if event in self._targets:
            document = {"schema": "geosweep/notify/1", "event": event, "sweep_id": self._sweep_id, **facts}
            self._queue.put((event, {**document, "text": f"{self._sweep_id}: {text}"}))

    def _work(self) -> None:
        in_background()
        while True:
            try:
                found = self._queue.get(timeout=min(5.0, self._stuck_after / 4))
            except queue.Empty:
                found = ("", {})
            self._look()
            if found is None and self._queue.empty():
                return
            if found is None:
                self._queue.put(None)
            elif found[0]:
                self._send(*found)

    def _look(self) -> None:
        """Turn events into messages, and check whether the sweep has stalled."""
        now = time.monotonic()
        for event in ("failed", "diverged"):
            due = self._closing.is_set() or now - self._told_at.get(event, float("-inf")) >= GAP_S
            with self._lock:
                told = self._pending.pop(event, []) if due else []
            if told:
                self._told_at[event] = now
                self._put(event, _trials(event, told), {"trials": [trial for trial, _ in told]})
        if (
            self._running
            and not self._stuck
            and not self._closing.is_set()
            and now - self._heard_at >= self._stuck_after
        ):
            self._stuck = True
            running = list(self._running)
            names = ", ".join(running[:MOST])
            minutes = (now - self._heard_at) / 60
            self._put("stuck", f"no trial has reported for {minutes:.3g} min; running: {names}", {"trials": running})

    def _send(self, event: str, document: Mapping[str, Any]) -> None:
        address = self._targets[event]
        for attempt in range(ATTEMPTS):
            try:
                post(address, document)
                return
            except Exception as error:
                why, final = _reason(error), _is_final(error) or attempt + 1 == ATTEMPTS
            if final or self._hurried():
                break
            if self._closing.is_set():
                time.sleep(PAUSE_S)
            elif self._closing.wait(PAUSE_S) and self._hurried():
                break
        self._say(f"notify.{event} was not sent: {_host(address)} {why}")

    def _hurried(self) -> bool:
        """Whether the sweep is over and more is to be sent, for which there would be no time if this were retried."""
        return self._closing.is_set() and self._queue.qsize() > 1  # besides the end


def _host(address: str) -> str:
    """The host of an address, which alone may be shown."""
    try:
        return urlsplit(address).hostname or "its address"
    except ValueError:
        return "its address"


def post(address: str, document: Mapping[str, Any]) -> None:
    """Send one message. Raises OSError (URLError, HTTPError), ValueError for an invalid address."""
    place, body = message(address, document)
    parts = urlsplit(place)
    headers = {"Content-Type": "application/json", "User-Agent": "geosweep"}
    if parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(who.encode()).decode()}"
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    if parts.scheme not in ("http", "https"):
        raise ValueError("not a web address")
    request = urllib.request.Request(urlunsplit(parts), json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=SEND_S) as answer:
        answer.read(1)


def message(address: str, document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(URL, payload) in the format of the address's host."""
    parts, text = urlsplit(address), str(document["text"])
    host = (parts.hostname or "").lower()
    if host == "hooks.slack.com" or host == "hooks.slack-gov.com":
        return address, {"text": text}
    if host.removeprefix("ptb.").removeprefix("canary.") in ("discord.com", "discordapp.com"):
        return address, {"content": text[: LONGEST["discord"]]}
    if host == "ntfy.sh" or host.startswith("ntfy."):
        above, _, topic = parts.path.rstrip("/").rpartition("/")
        title, _, rest = text.partition(": ")
        said = {"topic": topic, "title": f"geosweep {title}", "message": rest[: LONGEST["ntfy"]]}
        return urlunsplit(parts._replace(path=f"{above}/")), said
    return address, dict(document)


def _trials(event: str, told: list[tuple[str, str]]) -> str:
    """`sgd-0003-s0 failed: RuntimeError: ...`, or a summary of several."""
    if len(told) == 1:
        trial, says = told[0]
        return f"trial {trial} {event}{': ' if event == 'failed' else ' '}{says}"
    more = f", and {len(told) - MOST} more" if len(told) > MOST else ""
    return f"{len(told)} trials {event}: {', '.join(trial for trial, _ in told[:MOST])}{more}; the last: {told[-1][1]}"


def _is_final(error: Exception) -> bool:
    """Whether retrying would give the same answer."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code != 429
    return isinstance(error, ValueError)


def _reason(error: Exception) -> str:
    """The cause, without the address."""
    if isinstance(error, urllib.error.HTTPError):
        return f"answers {error.code}"
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "does not answer in time"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError) and error.reason.strerror:
        return f"cannot be reached ({error.reason.strerror})"
    return f"cannot be reached ({type(error).__name__})"
