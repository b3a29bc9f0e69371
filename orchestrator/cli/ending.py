"""How `run` records its end, code and reason, for whatever waits for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.app import Exit, Failed, judged, say

if TYPE_CHECKING:
    from orchestrator.storage.ending import Ending

NOTE = "GEOSWEEP_JOB_NOTE"
"""Variable of a supervised driver (see `cli.job`): the file in which it notes where its sweep is, and how it ended."""
FAULTS = (Exit.UNEXPECTED, Exit.UNREACHABLE)


def kind(code: int) -> str:
    """The ending for an exit code of `run`."""
    from orchestrator.storage import ending

    meant = {Exit.DONE: ending.DONE, Exit.BUDGET: ending.BUDGET, Exit.INTERRUPTED: ending.STOPPED}
    return (
        meant.get(code) or (ending.FAULT if code in FAULTS or code < 0 else ending.FAILED)  # type: ignore[call-overload, no-any-return]
    )


class Kept:
    """The location of a command's sweep, once it is known."""

    def __init__(self) -> None:
        self.root, self.sweep_id = Path(), ""
        self._tracked: tuple[str, str | None] | None = None

    def at(self, root: Path, sweep_id: str) -> None:
        """The sweep's folder, which need not be there yet."""
        self.root, self.sweep_id = root, sweep_id
        _note(root=str(root.absolute()), sweep_id=sweep_id)

    def tracked(self, name: str, uri: str | None) -> None:
        """MLflow's experiment, and its server; None: the store in the root."""
        self._tracked = name, uri

    def end(self, how: Ending) -> None:
        """Write `how` into the sweep's folder, and have MLflow say the same, if the command took the sweep in hand.

        A command refused earlier says nothing about the sweep: the ending of the last driver stays on record.
        """
        from orchestrator.storage.folder import SweepFolder

        folder = SweepFolder(self.root, self.sweep_id)
        if not self.sweep_id or how.reason == HELD or not how.write(folder):
            return
        from orchestrator.storage.outcome import SweepOutcome

        told = SweepOutcome.read(folder)
        if self._tracked is None or (told is not None and told.ending == how.ending):
            return
        from orchestrator.tracking import mlflow_ends

        name, uri = self._tracked
        try:
            mlflow_ends.tell(uri=uri, root=self.root, sweep_id=self.sweep_id, name=name, how=how.ending)
        except ConnectionError as error:
            say(f"the ending was not logged to MLflow ({error})", "yellow")


@contextmanager
def kept() -> Iterator[Kept]:
    """Record how the block ends, whatever happens."""
    from orchestrator.storage import ending

    found = Kept()
    how = ending.Ending(ending=ending.DONE, exit_code=0)
    try:
        yield found
    except BaseException as error:
        how = ended(error)
        raise
    finally:
        how = replace(how, when=ending.now())
        _note(ended=how.document())
        found.end(how)


HELD = "another driver works on this sweep"


def ended(error: BaseException) -> Ending:
    """The ending for an error."""
    from orchestrator.storage import ending
    from orchestrator.storage.errors import Held, NoWorkers

    if isinstance(error, Held):
        return ending.Ending(ending=ending.FAULT, exit_code=int(Exit.UNREACHABLE), reason=HELD)
    if isinstance(error, typer.Exit):
        reason = error.message if isinstance(error, Failed) else ""
        return ending.Ending(ending=kind(error.exit_code), exit_code=error.exit_code, reason=reason)
    found = judged(error)
    if found is None:
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return ending.Ending(ending=ending.FAULT, exit_code=int(Exit.UNEXPECTED), reason=said)
    code, said = found
    how = ending.NO_WORKERS if isinstance(error, NoWorkers) else kind(int(code))
    return ending.Ending(ending=how, exit_code=int(code), reason=said)


def _note(**words: Any) -> None:
    """Add to the note for the supervisor."""
    if place := os.environ.get(NOTE):
        path = Path(place)
        known = json.loads(path.read_text()) if path.exists() and path.stat().st_size else {}
        path.write_text(json.dumps({**known, **words}))
