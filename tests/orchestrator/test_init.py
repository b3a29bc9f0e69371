"""`geosweep init` in odd places: nothing is written over, and what it says to do next can be done."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.verbs import Called


def test_what_is_there_stays(call: Callable[..., Called], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").symlink_to("nowhere.yaml")
    (tmp_path / "README.md").write_text("mine")
    found = call("init", str(tmp_path))
    assert (found.code, found.out) == (2, "")
    assert "sweep.yaml, README.md are there already" in found.err
    assert (tmp_path / "README.md").read_text() == "mine"


def test_it_names_what_it_wrote_and_a_folder_that_a_shell_enters(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-a [b]").mkdir()
    (tmp_path / "-a [b]" / ".gitignore").write_text("mine")
    found = call("init", "./-a [b]")
    assert found.code == 0
    assert ".gitignore" not in found.out
    assert (tmp_path / "-a [b]" / ".gitignore").read_text() == "mine"
    [command] = [line.split("cd ", 1)[1] for line in found.out.splitlines() if line.startswith("  cd ")]
    assert shlex.split(command) == ["./-a [b]"]


@pytest.mark.parametrize("place", ["/proc/nothing", "a" * 300])
def test_places_that_cannot_be(place: str, call: Callable[..., Called]) -> None:
    found = call("init", place)
    assert (found.code, found.out, len(found.err.splitlines())) == (2, "", 1)
    assert found.err.endswith("name another place\n")
