"""`runtimeEnvYAML`: what Ray installs and sets for the driver, sent by `ray job submit` from a Pod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from orchestrator.definition.environment import pinned
from orchestrator.definition.errors import nearest
from orchestrator.kubernetes.profile_model import OUR_VARIABLES

RUNTIME = (
    "env_vars",
    "pip",
    "uv",
    "conda",
    "working_dir",
    "py_modules",
    "py_executable",
    "excludes",
    "config",
    "container",
    "image_uri",
    "java_jars",
    "worker_process_setup_hook",
)
"""Keys that Ray 2.60 has."""
LISTS = ("pip", "uv")
AWAY = {
    "conda": "the images have no conda; list the packages in pip, or build them into an image",
    "container": "a Pod cannot start another container; set the image in the profile, or in environment.image",
    "image_uri": "a Pod cannot start another container; set the image in the profile, or in environment.image",
    "java_jars": "a sweep contains no Java; leave it out",
    "py_executable": "the images have one Python; leave it out",
}


def runtime_findings(text: Any) -> Iterator[tuple[str, str]]:
    """(code, message) for what Ray, the operator or the Pods would reject."""
    if text is None:
        return
    try:
        found = yaml.safe_load(str(text))
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "it cannot be read"
        yield (
            "KO118",
            f"runtimeEnvYAML is not valid YAML ({problem}); the operator rejects it. Write keys such as env_vars and "
            "pip",
        )
        return
    if found is not None and not isinstance(found, dict):
        yield "KO118", "runtimeEnvYAML is not a mapping; write keys such as env_vars and pip"
        return
    for key, value in (found or {}).items():
        at = f"runtimeEnvYAML: {key}"
        if key not in RUNTIME:
            yield "KO118", f"runtimeEnvYAML: Ray does not know {key}{nearest(str(key), RUNTIME)}"
        elif key in AWAY:
            yield "KO118", f"{at}: {AWAY[key]}"
        elif key == "env_vars":
            yield from _variables(value)
        elif key in LISTS:
            yield from _packages(at, value)
        elif key in ("working_dir", "py_modules"):
            yield from _places(at, value)


def _variables(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield "KO118", "runtimeEnvYAML: env_vars is not a mapping; write {NAME: 'text'}"
        return
    for name, text in value.items():
        if not isinstance(text, str):
            yield "KO118", f"runtimeEnvYAML: env_vars.{name} must be text: '{text}'"
        if name in OUR_VARIABLES:
            yield "KO118", f"runtimeEnvYAML: env_vars.{name} is set by geosweep or the operator; leave it out"


def _packages(at: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each must have one version, otherwise different Pods or days might install different ones."""
    listed = value.get("packages") if isinstance(value, Mapping) else value
    if not isinstance(listed, list) or not all(isinstance(line, str) for line in listed):
        yield "KO118", f"{at} is not a list of packages; write [NAME==VERSION]"
        return
    for line in listed:
        try:
            pinned(line)
        except ValueError as error:
            yield "KO118", f"{at}: {error}"


def _places(at: str, value: Any) -> Iterator[tuple[str, str]]:
    """The submitter's Pod sends them, and it has no files of the user's machine."""
    for place in value if isinstance(value, list) else [value]:
        if "://" not in str(place):
            yield "KO118", f"{at}: {place!r} is a folder in the submitter's Pod; use an archive at s3:// or https://"
