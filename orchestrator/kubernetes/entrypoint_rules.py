"""The words of the entrypoint: `geosweep run FILE` with valid options, once each, as a job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.definition.errors import nearest

VALUED = (
    "--root",
    "--executor",
    "--storage",
    "--address",
    "--max-concurrent",
    "--tracking-uri",
    "--code",
    "--notify",
)
FLAGS = (
    "--tracking",
    "--no-tracking",
    "--cache",
    "--no-cache",
    "--accept-changed-code",
    "--skip-steps",
    "--fair",
    "--retry-failed",
    "--as-job",
    "--json",
)
"""Options of `geosweep run`."""
MANY = ("--notify",)


def options_of(words: list[str]) -> dict[str, list[str]]:
    """Option -> its values, in either syntax; flags have empty ones."""
    found: dict[str, list[str]] = {}
    rest = iter(words[2:])
    for word in rest:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            found.setdefault(name, []).append(value if equals else next(rest, "") if name in VALUED else "")
    return found


def arguments_of(words: list[str]) -> list[str]:
    """The arguments besides options and their values: the file, and keys of it to change."""
    found, rest = [], iter(words[2:])
    for word in rest:
        if not word.startswith("--"):
            found.append(word)
        elif word in VALUED:
            next(rest, "")
    return found


def entrypoint_findings(words: list[str]) -> Iterator[tuple[str, str]]:
    """(code, message) for what `geosweep run` refuses, or would run somewhere other than on the cluster."""
    if not words:
        return
    if words[:2] != ["geosweep", "run"]:
        yield "KO118", "entrypoint: the driver of a sweep is `geosweep run FILE ...`; write that"
        return
    given = options_of(words)
    for name, values in given.items():
        if name not in VALUED and name not in FLAGS:
            yield "KO118", f"entrypoint: geosweep run has no option {name}{nearest(name, (*VALUED, *FLAGS))}"
        elif name in VALUED and any(not v or v.startswith("--") for v in values):
            yield "KO118", f"entrypoint: {name} has no value; add one after it"
        elif name not in VALUED and any(values):
            yield "KO118", f"entrypoint: {name} takes no value; leave it out"
        elif len(values) > 1 and name not in MANY:
            yield "KO118", f"entrypoint: {name} appears {len(values)} times, and the last one would apply; keep one"
    address = given.get("--address", [""])[-1]
    if address != "auto":
        what = (
            f"--address {address} is another cluster"
            if address
            else "without --address all trials run in the head's Pod"
        )
        yield "KO118", f"entrypoint: {what}; write --address auto"
    if "--as-job" not in given:
        yield (
            "KO118",
            "entrypoint: without --as-job, a spent budget or a stop would mark the RayJob as FAILED, and faults would "
            "not be retried; add --as-job",
        )
    if given.get("--executor", ["ray"])[-1] != "ray":
        yield "KO118", "entrypoint: --executor debug trains in the head's Pod, one trial at a time; leave it out"
    if not re.fullmatch(r"0*[1-9]\d*", (most := given.get("--max-concurrent", ["1"])[-1]) or "1"):
        yield "KO118", f"entrypoint: --max-concurrent {most} is not a number of trials; write 1 or more"
    yield from _tracking(given.get("--tracking-uri", [""])[-1])
    if "--notify" in given:
        yield (
            "KO207",
            "entrypoint: --notify reveals an address that only its owner should know; set it in the sweep file, "
            "notify: ${env:NAME}, with the variable from a Secret",
        )
    if (studies := given.get("--storage", [""])[-1]) and not re.match(r"postgres(ql)?(\+\w+)?://", studies):
        yield "KO209", f"entrypoint: --storage {studies} is not a PostgreSQL database; leave it to GEOSWEEP_STORAGE"
    if len(words) < 3 or words[2].startswith("-"):
        yield "KO118", "entrypoint has no sweep file; write geosweep run FILE"
    for word in arguments_of(words)[1:]:
        yield (
            "KO118",
            f"entrypoint: {word} after the file changes the sweep but not its name and labels; change it in the file",
        )


def _tracking(uri: str) -> Iterator[tuple[str, str]]:
    if uri and not re.match(r"https?://[^/]", uri):
        yield (
            "KO118",
            f"entrypoint: --tracking-uri {uri} is not a server that Pods can reach; write http(s)://HOST:PORT",
        )
    elif re.match(r"https?://(localhost|127\.|\[::1\]|0\.0\.0\.0)", uri):
        yield "KO118", f"entrypoint: --tracking-uri {uri} is the Pod itself; use the server's Service"
