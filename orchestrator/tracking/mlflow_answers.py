"""What is said, once and at once, when an MLflow server does not take what a running sweep sends."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from orchestrator.definition.passwords import bare, without_passwords
from orchestrator.storage.folder import SweepFolder

_STATUS = re.compile(r"error code (\d{3}) != 200|too many (\d{3}) error responses")
_PAGE = "not in a valid JSON format"
_SILENT = re.compile(r"Max retries exceeded|[Cc]onnection|timed? ?out")
LONGEST = 200
WRONG = "check that it is the address of an MLflow server, with no login page in front of it"


def teller(say: Callable[[str], object] | None, uri: str, root: Path, sweep_id: str) -> Callable[[Exception], None]:
    """Says what an error means for a sweep that runs and what to do; nothing without `say`."""
    again = SweepFolder(root, sweep_id).command("reconcile", sweep_id)

    def tell(error: Exception) -> None:
        if say is not None:
            say(
                f"{words(uri, error)}. The sweep goes on and nothing is lost; what MLflow still lacks at its end is "
                f"sent by: {again}"
            )

    return tell


def words(uri: str, error: Exception) -> str:
    """What the store answered, and what to do about it; without passwords."""
    said, store = str(error), f"MLflow ({without_passwords(bare(uri))})"
    if found := _STATUS.search(said):
        code = int(found[1] or found[2])
        return f"{store} answered {code}{_phrase(code)}: {_way(code)}"
    if not uri.startswith(("http://", "https://")):
        return f"{store} failed with {type(error).__name__}: {_first_line(said)}"
    if _PAGE in said:
        return f"{store} answered with a page instead of JSON: {WRONG}"
    if _SILENT.search(said):
        return f"{store} does not answer: check the address, and that the server is running"
    return f"{store} answered {_first_line(said)}"


def _first_line(said: str) -> str:
    return without_passwords((said.splitlines() or ["no message"])[0])[:LONGEST]


def _phrase(code: int) -> str:
    try:
        return f" ({HTTPStatus(code).phrase})"
    except ValueError:
        return ""


def _way(code: int) -> str:
    if code == HTTPStatus.UNAUTHORIZED:
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what the server "
            "knows"
        )
    if code == HTTPStatus.FORBIDDEN:
        return "this user may not write there; ask for permission, or log in as another one"
    if code == HTTPStatus.TOO_MANY_REQUESTS or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the server has a fault of its own; see its log"
    return WRONG
