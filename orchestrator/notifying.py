"""`--notify` and the texts of the notifications of `run` (see `tracking.notify`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from orchestrator import results
from orchestrator.definition import addresses
from orchestrator.definition.errors import UsageError
from orchestrator.definition.model import NotifySpec, Spec
from orchestrator.definition.states import SweepState
from orchestrator.runner import Outcome
from orchestrator.scheduling.waiting import clock
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.notify import Notifier


def with_options(given: NotifySpec, words: Sequence[str]) -> NotifySpec:
    """The file's addresses combined with those of the command line: `URL` for all events, or `EVENT=URL`.

    Raises UsageError for a malformed address.
    """
    found = dict(given.addresses)
    for word in words:
        event, _, rest = word.partition("=")
        known = event in addresses.EVENTS
        address = rest if known else word
        if not addresses.is_address(address):
            where = f"--notify {event}=..." if known else "--notify"
            events = ", ".join(addresses.EVENTS)
            raise UsageError(f"{where}: write https://..., ${{env:NAME}}, or EVENT=https://... with one of {events}")
        found |= {event: address} if known else dict.fromkeys(addresses.EVENTS, address)
    return replace(given, addresses=found)


def notifier(definition: Spec, folder: SweepFolder, say: Callable[[str], None]) -> Notifier:
    """Sends notifications for this sweep; reports those that cannot be sent because a variable is not set."""
    targets = {}
    for event, address in definition.notify.addresses.items():
        try:
            target = addresses.resolved(address)
        except KeyError as missing:
            say(f"notify.{event}: the environment variable {missing.args[0]} is not set; nothing will be sent")
            continue
        if addresses.is_web(target):
            targets[event] = target
        else:
            say(f"notify.{event}: its environment variable holds no https://...; nothing will be sent")
    return Notifier(folder.sweep_id, targets, stuck_after_s=definition.notify.stuck_after, say=say)


def ended(found: Notifier, folder: SweepFolder, outcome: Outcome) -> None:
    """Notify how a driver ended; nothing if it was stopped on request."""
    if outcome.refusal:
        found.end("failed", outcome.refusal, state=SweepState.FAILED)
    if outcome.state not in (SweepState.DONE, SweepState.BUDGET):
        return
    status, best = results.status(folder, held=False), results.best(folder)
    total = {state: n for state, n in asdict(status.total).items() if state not in ("running", "waiting")}
    trials = ", ".join([f"{status.total.done} done", *status.total.astray])
    arms = ", ".join(f"{arm} {results.value_words(one.value)}" for arm, one in best.arms.items())
    how = "done" if outcome.state is SweepState.DONE else "ended by its budget"
    text = f"{how} after {clock(status.seconds)}: {trials}; {best.metric}: {arms or 'no result'}"
    found.end("done", text, state=str(outcome.state), trials=total, seconds=status.seconds)


def first_line(error: Exception) -> str:
    """The type and first line of an error's message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"
