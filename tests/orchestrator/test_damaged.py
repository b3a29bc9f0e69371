"""Files of a sweep that do not hold what was written: every verb names the file and the way out, in one line."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept
from tests.verbs import Called

FILES = ("resolved.json", "seal.json", "trials/*/trial.json", "trials/*/result.json")
DAMAGE = {"cut": b'{"state": "COMP', "other": b"[1, 2]", "binary": b"\x80\x81\x82"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    text = sweep_text(method="random", trials=2, confirm=6)
    swept(text, root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage"), [*itertools.product(FILES, DAMAGE), (FILES[0], "empty")])
def test_verbs_name_the_damaged_file(
    file: str, damage: str, finished: Path, call: Callable[..., Called], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    path = sorted((tmp_path / "runs").glob(f"*/{file}"))[0]
    path.write_bytes(DAMAGE.get(damage, b""))
    for verb in ("status", "best", "compare", "verify"):
        found = call(verb, "@last")
        said = found.out + found.err
        assert "Traceback" not in said, verb
        assert found.code in (1, 6, 7), (verb, said)
        assert path.name in said or path.parent.name in said, (verb, said)


OF_THE_SWEEP = {
    "resolved.json": b"{}", "seal.json": b"{}", "witness.jsonl": b'{"trial_id": "sgd-0000-s0"}\n',
    "looks.jsonl": b"[1]\n", "place.json": b"[1]", "seconds": b'"long"', "waiting.json": b'{"sgd": 5}',
    "outcome.json": b'{"state": "NOPE"}', "flops.json": b"7", "study.journal": b'{"a": 1}\n', "sweep.yaml": b"\xff",
}  # fmt: skip
"""File -> content that is read without an error, and is not what was written."""


@pytest.mark.slow
@pytest.mark.parametrize("file", OF_THE_SWEEP)
def test_another_content_is_named_by_whoever_needs_it(
    file: str, finished: Path, call: Callable[..., Called], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    path = next((tmp_path / "runs").glob("*/seal.json")).with_name(file)
    own = tmp_path / "own.yaml"
    shutil.copy(path.parent / "sweep.yaml", own)
    path.write_bytes(OF_THE_SWEEP[file])
    said = {}
    for verb in ("list", "status", "compare", "verify", "run"):
        words = [str(own), "--executor", "debug", "--no-tracking"] if verb == "run" else ["@last"] * (verb != "list")
        found = call(verb, *words)
        assert "Traceback" not in found.out + found.err, verb
        said[verb] = found.out + found.err if found.code else ""
    assert file == "sweep.yaml" or any(f"{file} is damaged: " in words for words in said.values()), said
