"""Sweeps that were made larger after the seal, and whether their results were known then.

A verdict at level alpha errs in at most alpha of all sweeps, when it is looked for once. Who looks, adds trials because
of what he saw, and looks again, has two chances to be wrong: k looks err in up to k alpha (Bonferroni). So looks.jsonl
notes when the confirm results were first shown, and an extension, in amendments.jsonl, what was seen before it and what
that look has spent. One that nobody had seen anything before costs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from orchestrator.definition import plan as planning
from orchestrator.definition.extension import Extension, extended
from orchestrator.definition.model import Spec, definition
from orchestrator.definition.states import SweepState
from orchestrator.protocol.amendments import amend, amendments, lines, now
from orchestrator.storage.folder import SweepFolder, read_json, write_atomic
from orchestrator.storage.object_store import StoreError
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.trial.trial_id import TrialId

LOOKS = "looks.jsonl"


def look(folder: SweepFolder, verb: str) -> None:
    """Note that `verb` shows results, once between two extensions; nothing while no confirm trial has ended."""
    key = (verb, len(_recorded(folder)))
    if key in {(line["verb"], line["extensions"]) for line in lines(folder.path / LOOKS)} or not _confirmed(folder):
        return
    before = folder.path.stat()
    with suppress(OSError, StoreError):  # whoever may not write here will not extend it either
        with (folder.path / LOOKS).open("a", encoding="utf-8") as out:
            line = {"at": now(), "verb": verb, "extensions": key[1], "confirm_trials": _confirmed(folder)}
            out.write(json.dumps(line) + "\n")
        os.utime(folder.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a look is no work on the sweep
        if folder.far is not None:
            folder.far.push([LOOKS])


def seen(folder: SweepFolder) -> list[str]:
    """The verbs that showed confirm results since the last extension."""
    stage = len(_recorded(folder))
    return [line["verb"] for line in lines(folder.path / LOOKS) if line["extensions"] == stage]


def applied(spec: Spec, folder: SweepFolder) -> Spec:
    """The sweep of a file with what was added to it in this folder."""
    for line in _recorded(folder):
        spec = extended(spec, Extension(**line["extension"]))
    return spec


def check(spec: Spec, more: Extension) -> None:
    """Raises ValueError for a sweep that cannot be made larger like this."""
    extended(spec, more)


def record(spec: Spec, folder: SweepFolder, more: Extension) -> dict[str, Any]:
    """Make the sweep larger, `spec` as it is now; returns what is kept of it. The caller holds the folder.

    Raises ValueError when it cannot be made larger like this.
    """
    larger = extended(spec, more)
    verbs, size = seen(folder), len(spec.seeds.confirm)
    spent = looks(folder)["alpha_spent"] + (spec.analysis.alpha if verbs else 0.0)
    kept = {
        "extension": {name: n for name, n in asdict(more).items() if n},
        "look": {"seen": verbs, "studies": spec.seeds.studies, "confirm_seeds": size, "alpha": spec.analysis.alpha},
        "alpha_spent": round(spent, 10),
        **_sizes(larger),
    }
    amend(folder, kept)
    _resolve(larger, folder)
    SweepOutcome(state=SweepState.STOPPED).write(folder)
    write_atomic(folder.waiting, "")
    return kept


def looks(folder: SweepFolder) -> dict[str, Any]:
    """`looks`: how often results were looked at with the last look to come; `alpha_spent` by those before it."""
    counted = [line for line in _recorded(folder) if line["look"]["seen"]]
    return {"looks": len(counted) + 1, "alpha_spent": counted[-1]["alpha_spent"] if counted else 0.0}


def level(folder: SweepFolder, alpha: float) -> str:
    """At which level the verdicts hold after several looks; nothing after one."""
    taken = looks(folder)
    if taken["looks"] == 1:
        return ""
    most = min(1.0, taken["alpha_spent"] + alpha)
    return (
        f"look {taken['looks']} at this sweep, each at level {alpha:g}: that any of them errs has a probability of up "
        f"to {most:.2g}, which is the level at which the verdicts hold"
    )


def stamps(folder: SweepFolder) -> Iterator[str]:
    """A sentence for each extension that depended on results, be they seen before an earlier one."""
    taken = 0
    for line in _recorded(folder):
        one = line["look"]
        if not one["seen"]:
            if taken:
                yield (
                    f"{Extension(**line['extension'])} added after results had been seen before an earlier extension, "
                    f"with no look since, on {line['at'][:10]}: still {taken + 1} looks"
                )
            continue
        taken += 1
        unit = f"{one['studies']} studies" if one["studies"] > 1 else f"{one['confirm_seeds']} confirm seeds"
        yield (
            f"{Extension(**line['extension'])} added after results on the first {unit} were seen "
            f"({', '.join(one['seen'])}), on {line['at'][:10]}: {taken + 1} looks at level {one['alpha']:g} err with a "
            f"probability of up to {line['alpha_spent'] + one['alpha']:.2g}"
        )


def in_content(content: Mapping[str, Any], folder: SweepFolder) -> dict[str, Any]:
    """What was sealed, as large as the sweep is now."""
    found = dict(content)
    for line in _recorded(folder):
        found["seeds"] = line["seeds"]
        found["budget"] = {**found["budget"], "trials_per_arm": line["trials_per_arm"]}
    return found


def _recorded(folder: SweepFolder) -> list[dict[str, Any]]:
    return [line for line in amendments(folder) if "extension" in line]


def _sizes(spec: Spec) -> dict[str, Any]:
    known = definition(spec)
    return {"seeds": known["seeds"], "trials_per_arm": known["budget"]["trials_per_arm"]}


def _resolve(spec: Spec, folder: SweepFolder) -> None:
    """resolved.json says what the sweep is now."""
    resolved: dict[str, Any] = read_json(folder.path / "resolved.json") or {}
    first = resolved["definition"]["budget"]["trials_per_arm"]
    resolved |= {
        "definition": definition(spec),
        "plan": {**planning.plan(spec), "sweep_id": folder.sweep_id},
        "first_trials_per_arm": resolved.get("first_trials_per_arm", first),
    }
    write_atomic(folder.path / "resolved.json", json.dumps(resolved, indent=1, sort_keys=True))


def _confirmed(folder: SweepFolder) -> int:
    """How many confirm trials have ended."""
    content = (read_json(folder.path / "seal.json") or {}).get("content", {})
    seeds, found = set(in_content(content, folder).get("seeds", {}).get("confirm", ())), 0
    for path in (folder.path / "trials").glob("*/result.json"):
        with suppress(ValueError):  # no folder of a trial's
            found += TrialId.parse(path.parent.name).seed in seeds
    return found
