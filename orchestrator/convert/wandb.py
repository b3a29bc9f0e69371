"""A W&B sweep (its sweep configuration, YAML or JSON), converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from orchestrator.convert import program
from orchestrator.convert.draft import Draft, number
from orchestrator.convert.wandb_parameters import flattened
from orchestrator.definition.yaml12 import Document

METHODS = {"bayes": "tpe", "grid": "grid", "random": "random"}
LEFT_OUT = {
    "project": "the sweep's name names its experiment in MLflow",
    "entity": "sweeps have no owner here",
    "controller": "`geosweep run` itself drives the sweep",
    "imports": "files are not combined here; copy the other one's contents",
    "job": "a W&B Launch job; `geosweep submit` sends the file to a cluster",
    "image_uri": "a W&B Launch image; the images of a cluster are in k8s/",
    "queue": "a W&B Launch queue; `geosweep submit --queue` names one of Kueue",
    "scheduler": "W&B Launch's; the executor places trials by resources",
    "settings": "W&B's own settings",
    "version": "W&B's own version of its format",
    "kind": "W&B's own",
}
"""Top-level keys without a counterpart, and why."""
HYPERBAND = {"type", "min_iter", "max_iter", "s", "eta", "strict"}


def convert(document: Document, text: str, *, by: str = "") -> Draft:
    """The draft. `by` names the parameter whose values become arms. Raises program.NoListError."""
    draft = Draft("a W&B sweep", document)
    given: Mapping[str, Any] = _as_wandb_read_it(document.value, text)
    known = {*LEFT_OUT, "name", "description", "program", "command", "method", "metric", "parameters"}
    known |= {"run_cap", "early_terminate"}
    for key in given:
        if key in LEFT_OUT:
            draft.left_out((key,), LEFT_OUT[key])
        elif key not in known:
            draft.left_out((key,), "is not in W&B's sweep configuration")
    script = _task_of(given)
    stem = script.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    program.header(draft, str(given.get("name") or stem or "sweep"), str(given.get("description") or ""))
    parameters = given.get("parameters")
    found = flattened(parameters, ("parameters",), draft) if isinstance(parameters, Mapping) else {}
    hand = program.handed(draft, found, ("parameters",))
    _task(draft, given, script, hand)
    _metric(draft, given.get("metric"))
    program.arms(draft, found, by, stem or "trained")
    _method(draft, given)
    _stopping(draft, given.get("early_terminate"))
    stopping: Any = given.get("early_terminate")
    most = number(stopping.get("max_iter")) if isinstance(stopping, Mapping) else None
    cap = number(given.get("run_cap"))
    program.budget(
        draft,
        hand,
        cap if isinstance(cap, int) and cap > 0 else None,
        grid=given.get("method") == "grid",
        most=most if isinstance(most, int) else 0,
        words="run_cap",
    )
    return draft


def _as_wandb_read_it(value: Any, text: str) -> Any:
    """W&B reads YAML 1.1, where a bare yes, no, on or off is a truth value."""
    try:
        old = yaml.safe_load(text)
    except yaml.YAMLError:
        return value
    return _truths(value, old)


def _truths(new: Any, old: Any) -> Any:
    if isinstance(new, dict) and isinstance(old, dict) and len(new) == len(old):
        return {key: _truths(one, other) for (key, one), other in zip(new.items(), old.values(), strict=True)}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [_truths(one, other) for one, other in zip(new, old, strict=True)]
    return old if isinstance(old, bool) else new


def _words(command: Any) -> list[str]:
    return [str(one) for one in command] if isinstance(command, list) else str(command).split() if command else []


def _task_of(given: Mapping[str, Any]) -> str:
    """The script that W&B would call."""
    return str(given.get("program") or program.file_in(_words(given.get("command"))))


def _task(draft: Draft, given: Mapping[str, Any], script: str, hand: program.Handed) -> None:
    why = (
        []
        if script
        else [draft.note("to fill in", ("program",), "the file names no program; name the training program")]
    )
    command = ["${program}" if word == script else word for word in _words(given.get("command"))]
    program.task(draft, script or "train.py", command, hand, *why)


def _metric(draft: Draft, given: Any) -> None:
    found: dict[str, Any] = {}
    why = []
    one: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    if one.get("name"):
        found["name"] = one["name"]
    else:
        found["name"] = "loss"
        why.append(draft.note("to fill in", ("metric",), "the file names no metric; name the reported one"))
    goal = str(one.get("goal") or "minimize").lower()
    found["goal"] = {"min": "minimize", "max": "maximize"}.get(goal, goal)
    if "goal" not in one and one:
        why.append(draft.note("changed", ("metric",), "W&B minimizes by default; here it is spelled out"))
    if "target" in one:
        draft.left_out(("metric", "target"), "a sweep does not stop at a target value, which would favor lucky seeds")
    for key in one.keys() - {"name", "goal", "target"}:
        draft.left_out(("metric", key), "is not in W&B's metric configuration")
    draft.top.put("metric", found, *why)


def _method(draft: Draft, given: Mapping[str, Any]) -> None:
    old = str(given.get("method") or "random")
    new, why = METHODS.get(old, "random"), list[str]()
    if old == "bayes":
        why.append(
            draft.note("changed", ("method",), "bayes was a Gaussian process; tpe replaces it, gp is available, too")
        )
    elif old not in METHODS:
        why.append(draft.note("changed", ("method",), f"{old!r} is not one of W&B's; random replaces it"))
    draft.top.put("method", {"name": new}, *why)


def _stopping(draft: Draft, given: Any) -> None:
    """W&B stops a run whose best value is not among the best 1/eta at a bracket: asha's rule.

    Brackets are at min_iter eta^i, or at max_iter / eta^i for i up to s.
    """
    if not isinstance(given, Mapping):
        return
    at = ("early_terminate",)
    if given.get("type", "hyperband") != "hyperband":
        draft.left_out(at, f"type {given['type']!r} is not one of W&B's")
        return
    for key in given.keys() - HYPERBAND:
        draft.left_out((*at, key), "is not in W&B's hyperband configuration")
    eta = number(given.get("eta", 3))
    whole = max(2, round(eta)) if isinstance(eta, int | float) else 3
    found: dict[str, Any] = {"type": "asha", "eta": whole}
    why = [draft.note("changed", at, "hyperband stopped runs one by one against earlier ones, as asha does")]
    if whole != eta:
        why.append(draft.note("changed", (*at, "eta"), f"was {eta}; it must be a whole number, 2 or more"))
    least, most, s = (number(given.get(key)) for key in ("min_iter", "max_iter", "s"))
    if isinstance(s, int) and isinstance(most, int | float) and s > 0:
        share = whole**-s
        said = f"the first of {s} brackets was at max_iter / eta^s = {most * share:.3g} of {most:g} iterations"
    elif isinstance(least, int | float) and isinstance(most, int | float) and 0 < least < most:
        share, said = least / most, f"min_iter {least:g} of max_iter {most:g}"
    else:
        share = 0.2
        key = "min_iter" if least is not None else "max_iter"
        draft.note("to fill in", (*at, key), "the first bracket as a share of the budget")
        said = f"fill in: the first bracket ({key} was {given.get(key)}) as a share of the budget"
    found["min_budget"] = f"{100 * min(max(share, 0.01), 0.99):.3g}%"
    why.append(said)
    if "strict" in given:
        draft.left_out((*at, "strict"), "asha looks at one bracket at a time")
    draft.top.put("early_terminate", found, *why)
