"""`extend`: a larger sweep under the same name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import (
    ROOT,
    SWEEP,
    Exit,
    Json,
    Root,
    Storage,
    app,
    emit,
    fail,
    named,
    next_steps,
    show_stamps,
    talk,
    typed,
)
from orchestrator.cli.run import (
    Backend,
    ChangedCode,
    Executor,
    Notify,
    RayAddress,
    Tracking,
    carry_out,
    conclude,
    show_end,
)

if TYPE_CHECKING:
    from orchestrator.definition.extension import Extension
    from orchestrator.definition.overrides import Asked
    from orchestrator.storage.folder import SweepFolder


@app.command()
def extend(
    context: typer.Context,
    sweep: Annotated[str, typer.Argument(help=SWEEP, show_default=False, callback=named)],
    studies: Annotated[str, typer.Option(help="More studies per arm, +4.", show_default=False)] = "",
    trials: Annotated[str, typer.Option(help="More configurations in each study, +16.", show_default=False)] = "",
    seeds: Annotated[str, typer.Option(help="More confirm seeds in each study, +4.", show_default=False)] = "",
    start: Annotated[bool, typer.Option("--run/--no-run", help="Train them now.")] = True,
    root: Root = ROOT,
    executor: Executor = Backend.RAY,
    tracking: Tracking = True,
    storage: Storage = "",
    address: RayAddress = "",
    accept_changed_code: ChangedCode = False,
    notify: Notify = None,
    as_json: Json = False,
) -> None:
    """Add studies, configurations or confirm seeds to a sweep: nothing is retrained, the id stays.

    What was seen of its results before is sealed, and stamps later verdicts, which are found at the alpha that this
    look has left.

    Example: geosweep extend @last --studies +4
    """
    from orchestrator import launch, results
    from orchestrator.definition import overrides
    from orchestrator.definition.extension import Extension
    from orchestrator.protocol import seal
    from orchestrator.storage import folder

    more = Extension(studies=_more(studies, "studies"), trials=_more(trials, "trials"), seeds=_more(seeds, "seeds"))
    if more == Extension():
        fail("say what to add, such as --studies +4, --trials +16 or --seeds +4", Exit.USAGE)
    found = folder.find(root, sweep)
    asked = overrides.asked(found.path / "sweep.yaml")
    kept = _record(found, asked, more, storage, checked=start and not accept_changed_code)
    talk.print(f"{found.sweep_id}: {more} added", highlight=False)
    if left := _left(found):
        talk.print(left, highlight=False)
    document: dict[str, Any] = {"schema": "geosweep/extend/1", "sweep_id": found.sweep_id, **kept}
    if not start:
        if as_json:
            emit({**document, "exploratory": seal.stamps(found)})
        else:
            show_stamps(seal.stamps(found))
            next_steps(_again(context, found))
        return
    options = launch.Options(
        executor=executor,
        tracking=tracking,
        storage=storage,
        address=address,
        tracking_uri=found.resolved().tracking or "",
        accept_changed_code=accept_changed_code,
        notify=tuple(notify or ()),
    )
    ended = carry_out(asked, asked.load(), root, options, _again(context, found))
    if as_json:
        emit({**document, "best": results.best(found).document(), "exploratory": seal.stamps(found)})
    else:
        show_end(ended, options)
    conclude(ended)


def _again(context: typer.Context, found: SweepFolder) -> str:
    """The command that trains what was added."""
    return typed(context, "run", ("studies", "trials", "seeds", "start"), [str(found.path / "sweep.yaml")])


def _more(word: str, option: str) -> int:
    """`+4` or `4`."""
    if not word:
        return 0
    if not re.fullmatch(r"\+?[1-9]\d{0,4}", word):
        fail(f"--{option} {word}: say how many more, such as +4", Exit.USAGE)
    return int(word)


def _left(found: SweepFolder) -> str:
    """What earlier looks have left for later verdicts."""
    from orchestrator.protocol import extensions, seal

    declared = seal.analysis(found)
    words = extensions.said(found, declared.alpha, declared.looks)
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _record(found: SweepFolder, asked: Asked, more: Extension, storage: str, *, checked: bool) -> dict[str, Any]:
    """Enlarge the sweep; returns the record kept. `checked`: first raise CodeChanged if it could not be trained."""
    from orchestrator.compare import answer
    from orchestrator.compare.evidence import Evidence
    from orchestrator.protocol import extensions, seal
    from orchestrator.scheduling import abort
    from orchestrator.scheduling.studies import reopen
    from orchestrator.storage.outcome import SweepOutcome

    with found.hold(storage):
        definition = extensions.applied(replace(asked.load(), source=asked.file), found)
        if checked:
            seal.check_code(definition, found)
        if again := abort.standing(definition, found):
            fail(again, Exit.TRIALS_FAILED)
        outcome = SweepOutcome.read(found)
        if outcome is not None and outcome.limit:
            fail(
                f"the search of {found.sweep_id} ended at budget.{outcome.limit}, which leaves nothing to add; give "
                f"the sweep another name, a larger budget and warm_start: [{found.sweep_id}]",
                Exit.BUDGET,
            )
        try:
            extensions.check(definition, more)
            if more.trials:
                reopen(definition, found, storage or None)
            settled = answer.settled(Evidence(found)) if extensions.seen(found) else []
            return extensions.record(definition, found, more, settled)
        except ValueError as reason:
            fail(f"{found.sweep_id} cannot be extended: {reason}", Exit.USAGE)
