"""What a sweep needs on other machines besides geosweep: extra pinned packages, and a custom image."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from orchestrator.definition.errors import SpecError, read
from orchestrator.definition.location import Where
from orchestrator.definition.model import EnvironmentSpec
from orchestrator.definition.schema import SweepModel

IMAGE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?"
)
ABSENT = "VERSION"
BROUGHT = ("geosweep", "torch", "ray", "optuna", "mlflow")
"""Packages whose versions the cluster's installation fixes; any other would make driver and workers differ."""


def resolved(model: SweepModel, where: Where, file: str) -> EnvironmentSpec:
    """The environment with the lines of its requirements file. Raises SpecError for what is not pinned."""
    given = model.environment
    if given.image is not None:
        _check_image(given.image, where)
    if given.requirements is None:
        return EnvironmentSpec(image=given.image or "")
    if isinstance(given.requirements, list):
        lines = tuple(
            _pinned(line, "", ("environment", "requirements", i), where) for i, line in enumerate(given.requirements)
        )
        _check_twice(lines, where)
        return EnvironmentSpec(requirements=lines, image=given.image or "")
    name = given.requirements
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise where.error(
            ("environment", "requirements"),
            f"{name} is not next to the sweep file, with which it is uploaded; move it there",
        )
    path = Path(file).parent / name
    try:
        text = read(path)
    except SpecError as error:
        raise where.error(("environment", "requirements"), f"{error}; it is looked up next to the sweep file") from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        bare = re.sub(r"(^|\s)#.*", "", line).strip()
        if bare:
            found.append(_pinned(bare, f"{name}:{number}: ", ("environment", "requirements"), where))
    _check_twice(found, where)
    return EnvironmentSpec(requirements=tuple(found), image=given.image or "", file=path)


def _pinned(line: str, place: str, at: tuple[str | int, ...], where: Where) -> str:
    """The line as pip takes it. Raises SpecError."""
    try:
        return pinned(line)
    except ValueError as error:
        raise where.error(at, f"{place}{error}") from None


def pinned(line: str) -> str:
    """The line for pip. It must pin one version or one content; raises ValueError otherwise."""
    bare = re.sub(r"\s+--hash=\S+|\s*\\$", "", line.strip()).strip()
    if bare.startswith("-"):
        raise ValueError(f"{line!r} is an option of pip; list packages only, each as NAME==VERSION")
    try:
        asked = Requirement(bare)
    except InvalidRequirement as error:
        raise ValueError(f"{line!r} names no package ({str(error).splitlines()[0]}); write NAME==VERSION") from None
    if asked.name.lower() in BROUGHT:
        raise ValueError(f"{asked.name} is fixed by the cluster's own installation of geosweep; remove the line")
    if asked.url is not None:
        if re.search(r"://[^/@]*:[^/@]*@", asked.url):
            raise ValueError(f"{asked.name}: the URL contains a password; remove it")
        if not (re.search(r"@[0-9a-f]{40}\b", asked.url) or "sha256=" in asked.url):
            raise ValueError(
                f"{asked.name}: a URL is pinned by a full 40-digit commit (git+https://...@COMMIT) or a "
                "hash (https://...whl#sha256=...)"
            )
        return str(asked)
    exact = [s for s in asked.specifier if s.operator in ("==", "===") and "*" not in s.version]
    if len(exact) != 1 or len(list(asked.specifier)) != 1:
        raise ValueError(
            f"{line!r} is not pinned, so the version could differ between machines and days; "
            f"write {asked.name}=={_installed(asked.name)}"
        )
    return str(asked)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ABSENT


def _check_twice(lines: tuple[str, ...] | list[str], where: Where) -> None:
    names = [
        (re.sub(r"[-_.]+", "-", Requirement(line).name).lower(), str(Requirement(line).marker or "")) for line in lines
    ]
    twice = next((name for name, marker in names if names.count((name, marker)) > 1), None)
    if twice:
        raise where.error(("environment", "requirements"), f"{twice} is listed twice; remove one of the lines")


def _check_image(image: str, where: Where) -> None:
    found = IMAGE.fullmatch(image)
    if found is None:
        raise where.error(("environment", "image"), f"{image!r} is not an image name; write REGISTRY/NAME:TAG")
    if not found["digest"] and found["tag"] in (None, "latest"):
        raise where.error(
            ("environment", "image"),
            f"{image} is a mutable tag; pin a version tag or a digest (NAME@sha256:...)",
        )


def unmet(requirements: Iterable[str]) -> list[str]:
    """Which of these packages are missing from this machine's environment, as text."""
    found = []
    for line in requirements:
        asked = Requirement(line)
        if asked.marker is not None and not asked.marker.evaluate():
            continue
        there = _installed(asked.name)
        if there == ABSENT:
            found.append(f"{asked} is not installed")
        elif not asked.specifier.contains(there, prereleases=True):
            found.append(f"{asked} is required, but {asked.name} {there} is installed")
    return found
