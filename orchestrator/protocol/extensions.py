"""Sweeps enlarged after the seal, and whether their results were known by then.

A verdict at level alpha errs in at most alpha of all sweeps, if results are looked at once. Looking, adding trials
because of what was seen, and looking again gives two chances to be wrong. So looks.jsonl notes when the confirm results
were first shown, and amendments.jsonl notes for each extension what was seen before it, what that look has spent of
alpha, and which comparisons it had settled. Later looks reach verdicts at what is left (`statistics.spending`), so that
all together err in at most alpha. An extension made before anyone looked costs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from orchestrator.definition import plan as planning
from orchestrator.definition.extension import Extension, extended
from orchestrator.definition.model import Spec, comparisons, definition
from orchestrator.definition.resolved import NEVER
from orchestrator.definition.states import SweepState
from orchestrator.protocol import sealed
from orchestrator.protocol.amendments import amend, amendments, lines, now
from orchestrator.statistics import spending
from orchestrator.statistics.verdict import Looks, Settled
from orchestrator.storage.documents import write_atomic
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.object_store import StoreError
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.trial.trial_id import TrialId

LOOKS, LOOKED = "looks.jsonl", ("verb", "extensions")


def look(folder: SweepFolder, verb: str) -> None:
    """Note that `verb` shows results, once between extensions; not before a confirm trial has ended."""
    key = (verb, len(_recorded(folder)))
    noted = {(line["verb"], line["extensions"]) for line in lines(folder.path / LOOKS, *LOOKED)}
    if key in noted or not _confirmed(folder):
        return
    before = folder.path.stat()
    with suppress(OSError, StoreError):  # who cannot write here cannot extend it either
        with (folder.path / LOOKS).open("a", encoding="utf-8") as out:
            line = {"at": now(), "verb": verb, "extensions": key[1], "confirm_trials": _confirmed(folder)}
            out.write(json.dumps(line) + "\n")
        os.utime(folder.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a look is not work on the sweep
        if folder.far is not None:
            folder.far.push([LOOKS])


def seen(folder: SweepFolder) -> list[str]:
    """The verbs that showed confirm results since the last extension."""
    stage = len(_recorded(folder))
    return [line["verb"] for line in lines(folder.path / LOOKS, *LOOKED) if line["extensions"] == stage]


def applied(spec: Spec, folder: SweepFolder) -> Spec:
    """The sweep of a file, with its extensions in this folder."""
    for line in _recorded(folder):
        spec = extended(spec, Extension(**line["extension"]))
    return spec


def check(spec: Spec, more: Extension) -> None:
    """Raises ValueError for a sweep that cannot be enlarged like this."""
    extended(spec, more)


def record(spec: Spec, folder: SweepFolder, more: Extension, settled: Sequence[Settled] = ()) -> dict[str, Any]:
    """Enlarge the sweep, currently `spec`; returns the record that is kept. The caller holds the folder.

    `settled`: the comparisons that this look has settled, as `compare` gave them. Raises ValueError if the sweep
    cannot be enlarged like this.
    """
    larger, verbs = extended(spec, more), seen(folder)
    one: dict[str, Any] = {"seen": verbs, "studies": spec.seeds.studies, "confirm_seeds": len(spec.seeds.confirm)}
    one["alpha"], before = spec.analysis.alpha, looks(folder)
    if verbs:
        one |= _paid(spec, folder, before)
        one |= {"settled": [pair.document() for pair in settled]} if settled else {}
    kept = {
        "extension": {name: n for name, n in asdict(more).items() if n},
        "look": one,
        "alpha_spent": before.alpha_spent + one.get("spent", 0.0),
        **_sizes(larger),
    }
    amend(folder, kept)
    _resolve(larger, folder)
    SweepOutcome(state=SweepState.STOPPED).write(folder)
    write_atomic(folder.waiting, "")
    return kept


def looks(folder: SweepFolder) -> Looks:
    """How often results were looked at, with the look to come."""
    counted = [line for line in _recorded(folder) if line["look"]["seen"]]
    return Looks(looks=len(counted) + 1, alpha_spent=counted[-1]["alpha_spent"] if counted else 0.0)


def level(folder: SweepFolder, alpha: float, planned: int = 1) -> float:
    """At which level the verdicts of the look to come are found, in [0, alpha]; `planned` looks were declared."""
    return _level(looks(folder), alpha, planned)


def said(folder: SweepFolder, alpha: float, planned: int = 1) -> str:
    """The same as text; empty if there is only one look."""
    taken = looks(folder)
    number, before = taken.looks, taken.alpha_spent
    if max(number, planned) == 1:
        return ""
    of = f" of {planned} planned" if planned > 1 else ""
    found = f"look {number}{of} at this sweep: its verdicts are found at level {_level(taken, alpha, planned):.2g}"
    if number == 1:
        return f"{found}, so all looks together err in at most {alpha:g}"
    found += f", since {before:.2g} of {alpha:g} was spent before; all looks together err in at most {alpha:g}"
    more = number > planned
    return f"{found} (analysis.looks, declared before the first, leaves more to later ones)" if more else found


def settled(folder: SweepFolder) -> list[Settled]:
    """The comparisons that earlier looks have settled, each with the number of its `look`, the latest last."""
    counted = [line["look"] for line in _recorded(folder) if line["look"]["seen"]]
    return [Settled(**pair, look=i) for i, one in enumerate(counted, start=1) for pair in one.get("settled", ())]


def stamps(folder: SweepFolder) -> Iterator[str]:
    """A sentence for each extension that depended on results, including those seen before an earlier one."""
    taken = 0
    for line in _recorded(folder):
        one = line["look"]
        if not one["seen"]:
            if taken:
                yield (
                    f"{Extension(**line['extension'])} added after results had been seen before an earlier extension, "
                    f"with no look since, on {line['at'][:10]}: nothing more is spent"
                )
            continue
        taken += 1
        unit = f"{one['studies']} studies" if one["studies"] > 1 else f"{one['confirm_seeds']} confirm seeds"
        yield (
            f"{Extension(**line['extension'])} added after results on the first {unit} were seen "
            f"({', '.join(one['seen'])}), on {line['at'][:10]}: {taken} {'look has' if taken == 1 else 'looks have'} "
            f"spent {line['alpha_spent']:.2g} of {one['alpha']:g}"
        )


def in_content(content: Mapping[str, Any], folder: SweepFolder) -> dict[str, Any]:
    """What was sealed, as large as the sweep is now."""
    found = dict(content)
    for line in _recorded(folder):
        found["seeds"] = line["seeds"]
        found["budget"] = {**found["budget"], "trials_per_arm": line["trials_per_arm"]}
    return found


def _level(taken: Looks, alpha: float, planned: int) -> float:
    part = spending.share(max(0.0, alpha - taken.alpha_spent), taken.looks, planned)
    return spending.level(part, taken.looks)


def _paid(spec: Spec, folder: SweepFolder, taken: Looks) -> dict[str, float]:
    """`level` of the look that ends here, and what it has `spent`.

    All of its share, unless it was the first, at a sweep that was complete, with tests that move in steps.
    """
    alpha, planned, number = spec.analysis.alpha, spec.analysis.looks, taken.looks
    part = spending.share(max(0.0, alpha - taken.alpha_spent), number, planned)
    found, several = spending.level(part, number), spec.seeds.studies > 1
    stage, arms = len(_recorded(folder)), len(spec.arms)
    sizes = {line["confirm_trials"] for line in lines(folder.path / LOOKS, *LOOKED) if line["extensions"] == stage}
    complete = sizes == {arms * len(spec.seeds.confirm)}
    if number == 1 and complete and not spec.analysis.margin:
        units = spec.seeds.studies if several else len(spec.seeds.confirm)
        part = spending.spent(found, units, comparisons(spec))
    return {"level": found, "spent": part}


def _recorded(folder: SweepFolder) -> list[dict[str, Any]]:
    return [line for line in amendments(folder) if "extension" in line]


def _sizes(spec: Spec) -> dict[str, Any]:
    known = definition(spec)
    return {"seeds": known["seeds"], "trials_per_arm": known["budget"]["trials_per_arm"]}


def _resolve(spec: Spec, folder: SweepFolder) -> None:
    """Update resolved.json to the sweep as it is now."""
    before = folder.resolved()
    again = before.first_trials_per_arm != NEVER
    now_is = replace(
        before,
        definition=definition(spec),
        plan=replace(planning.plan(spec), sweep_id=folder.sweep_id),
        first_trials_per_arm=before.first_trials_per_arm if again else before.definition["budget"]["trials_per_arm"],
    )
    folder.resolve(now_is)


def _confirmed(folder: SweepFolder) -> int:
    """How many confirm trials have ended."""
    content = (sealed.read(folder) or sealed.Seal()).content
    seeds, found = set(in_content(content, folder).get("seeds", {}).get("confirm", ())), 0
    for path in (folder.path / "trials").glob("*/result.json"):
        with suppress(ValueError):  # no folder of a trial's
            found += TrialId.parse(path.parent.name).seed in seeds
    return found
