"""`submit --wait`: a sweep on remote machines, followed to its end.

If the sweep's root can be read from here (an object store, a volume also mounted here), the table is that of `watch`;
otherwise it is the job's state and the driver's output. The exit code is that of `run`.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli import watch
from orchestrator.cli.app import Exit, Failed, data, emit, say, show_stamps, talk
from orchestrator.definition.states import AttemptState

if TYPE_CHECKING:
    from orchestrator.remote import Attempt, Cluster
    from orchestrator.storage.ending import Ending
    from orchestrator.storage.folder import SweepFolder

LOOK_S, PATIENCE_S = 2.0, 600.0
"""Seconds between looks; how long a cluster may not answer."""
GOES_ON = "submit continues from the newest checkpoints"
CODES = {
    AttemptState.DONE: Exit.DONE,
    AttemptState.BUDGET: Exit.BUDGET,
    AttemptState.STOPPED: Exit.INTERRUPTED,
    AttemptState.LOST: Exit.UNREACHABLE,
}
"""For a sweep whose driver could not say how it ended; any other failed for an unknown reason."""


class Follower:
    """Follows the sweep `sweep_id` on `cluster`, whose files are under `root`, if they can be read here."""

    def __init__(self, cluster: Cluster, sweep_id: str, root: str, *, quiet: bool = False) -> None:
        self._cluster, self._id, self._root, self._quiet = cluster, sweep_id, root, quiet
        self._said, self._printed = "", ""
        self._shown_at = -watch.PLAIN_S

    def to_the_end(self) -> Attempt:
        """Show progress until the job has ended; returns its state. Raises Unreachable after PATIENCE_S of silence."""
        if data.is_terminal and not self._quiet:
            with Live(Text(f"{self._id}: waiting"), console=data, auto_refresh=False) as live:
                for attempt in self._attempts():
                    live.update(self._drawn(attempt), refresh=True)
        else:
            for attempt in self._attempts():
                if not self._quiet:
                    self._say(attempt)
        return attempt

    def _attempts(self) -> Iterator[Attempt]:
        """Its state, from time to time, the end last."""
        from orchestrator.storage.errors import NotFound

        attempt: Attempt | None = None
        while True:
            try:
                attempt = self._patiently(lambda: self._cluster.status(self._id))
            except NotFound:
                if attempt is None:
                    raise
                attempt = replace(
                    attempt, state=AttemptState.STOPPED, reason=f"job {attempt.job} was deleted; {GOES_ON}"
                )
            yield attempt
            if not attempt.state.is_living:
                return
            time.sleep(LOOK_S)

    def _patiently(self, ask: Callable[[], Attempt]) -> Attempt:
        from orchestrator.storage.errors import Unreachable

        until, told = time.monotonic() + PATIENCE_S, False
        while True:
            try:
                return ask()
            except Unreachable as error:
                if time.monotonic() > until:
                    raise
                if not told:
                    said = f"{error}; retrying every {LOOK_S:g} s for {PATIENCE_S / 60:g} min"
                    talk.print(said, highlight=False, markup=False, soft_wrap=True)
                told = True
                time.sleep(LOOK_S)

    def folder(self) -> SweepFolder | None:
        """The sweep's folder, once it is there and can be read."""
        from orchestrator.storage import folder
        from orchestrator.storage.errors import NotFound
        from orchestrator.storage.object_store import StoreError, near

        with suppress(NotFound, StoreError, OSError, ValueError):
            return folder.find(near(self._root), self._id)
        return None

    def _drawn(self, attempt: Attempt) -> Group:
        """For a terminal."""
        head = Text(f"{attempt.sweep_id} {attempt.state}: job {attempt.job}")
        if attempt.reason:
            head.append(f"\n{attempt.reason}", style="yellow")
        found = self.folder()
        if found is not None:
            return Group(watch.table(watch.snapshot(found)), head)
        lines = self._log().splitlines()[-10:]
        return Group(*(Text(line, style="dim") for line in lines), head)

    def _say(self, attempt: Attempt) -> None:
        """Elsewhere: each state once, and occasional lines of the table, or the driver's output."""
        said = (
            f"{attempt.sweep_id} {attempt.state}: job {attempt.job}{f' ({attempt.reason})' if attempt.reason else ''}"
        )
        if said != self._said:
            data.print(said, highlight=False, markup=False)
            self._said = said
        found = self.folder() if attempt.state is AttemptState.RUNNING else None
        if found is not None:
            if time.monotonic() - self._shown_at >= watch.PLAIN_S:
                self._shown_at = time.monotonic()
                data.print(watch.line(watch.snapshot(found)), highlight=False, markup=False)
            return
        text = self._log()
        fresh = text[len(self._printed) :] if text.startswith(self._printed) else text
        if fresh:
            data.print(fresh.rstrip("\n"), highlight=False, markup=False)
            self._printed = text

    def _log(self) -> str:
        """The driver's output; empty while there is no log."""
        from orchestrator.storage.errors import NotFound, Unreachable

        with suppress(NotFound, Unreachable):
            return self._cluster.logs(self._id)
        return ""


def ending_at(cluster: Cluster, sweep_id: str, root: str) -> Ending | None:
    """How the last command on the sweep ended, as its folder says, if that can be read here."""
    from orchestrator.storage import ending

    folder = Follower(cluster, sweep_id, root).folder()
    return ending.read(folder) if folder is not None else None


def wait(
    cluster: Cluster, sweep_id: str, root: str, *, address: str, as_json: bool, before: Ending | None = None
) -> NoReturn:
    """Follow the sweep to its end, show the outcome, and exit with the code of `run`.

    `before`: an ending of an earlier attempt, which says nothing of this one.
    """
    follower = Follower(cluster, sweep_id, root, quiet=as_json)
    try:
        attempt = follower.to_the_end()
    except KeyboardInterrupt:
        stop = shlex.join(["geosweep", "stop", sweep_id, "--address", address])
        said = f"{sweep_id} keeps running; stop it with: {stop}"
        say(said)
        raise Failed(Exit.INTERRUPTED, said) from None
    folder = follower.folder()
    attempt = told(attempt, folder, before)
    code = exit_code(attempt, folder, before)
    if as_json:
        emit({**attempt.document(), "exit_code": code})
    else:
        _conclude(attempt, folder, code)
    raise typer.Exit(code)


def told(attempt: Attempt, folder: SweepFolder | None, before: Ending | None = None) -> Attempt:
    """The attempt with the ending that the sweep's folder keeps, where the cluster has no log of it any more."""
    from orchestrator.remote import state_of
    from orchestrator.storage import ending

    if attempt.ending is not None or folder is None or attempt.state in (AttemptState.LOST, AttemptState.WAITING):
        return attempt
    kept = ending.read(folder)
    if kept is None or kept == before or not (kept.is_meant or attempt.state is AttemptState.FAILED):
        return attempt
    return replace(attempt, state=state_of(kept), reason=kept.reason or attempt.reason, ending=kept)


def exit_code(attempt: Attempt, folder: SweepFolder | None, before: Ending | None = None) -> int:
    """The exit code of `run` for this ending, as recorded by its driver in its log or in the sweep's folder."""
    how = told(attempt, folder, before).ending
    if how is not None:
        return _of(how)
    return int(CODES.get(attempt.state, Exit.UNEXPECTED))


def _of(how: Ending) -> int:
    return how.exit_code if how.exit_code >= 0 else int(Exit.UNREACHABLE)


def _conclude(attempt: Attempt, folder: SweepFolder | None, code: int) -> None:
    """The table of arms, and why it ended if it ended early."""
    from orchestrator import display
    from orchestrator.cli.app import show
    from orchestrator.definition import sweep_file
    from orchestrator.definition.errors import SpecError
    from orchestrator.protocol import extensions, seal

    if folder is not None:
        with suppress(SpecError, OSError):
            file = Path(folder.path / "sweep.yaml")
            show(display.arms_table(sweep_file.loads(file.read_text(encoding="utf-8"), str(file)), folder))
            show_stamps(seal.stamps(folder))
            extensions.look(folder, "submit")
    if code:
        said = f"{attempt.sweep_id} is {attempt.state}{f': {attempt.reason}' if attempt.reason else ''}"
        talk.print(said, highlight=False, markup=False, soft_wrap=True, style="red")
