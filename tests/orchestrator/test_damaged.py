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
    "tracking.json": b"[1]", "outcome.json": b'{"state": "NOPE"}', "flops.json": b"7",
    "study.journal": b'{"a": 1}\n', "sweep.yaml": b"\xff",
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


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"), [("looks.jsonl", DEEP), ("sweep.yaml", DEEP), ("sweep.yaml", b"\xff"), ("sweep.yaml", None)]
)
def test_a_file_that_cannot_be_parsed_is_named(
    file: str, content: bytes | None, finished: Path, call: Callable[..., Called], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    path = next((tmp_path / "runs").glob("*/seal.json")).with_name(file)
    path.unlink() if content is None else path.write_bytes(content)
    found = call("report", "@last", "--no-tracking")
    assert found.code != 0
    assert f"{file} is damaged: " in found.err
    assert "Traceback" not in found.err


def test_metrics_name_a_log_that_lost_lines(finished: Path, call: Callable[..., Called], tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    assert "damaged" not in call("metrics", "@last").err
    lost, cut, *_ = sorted((tmp_path / "runs").glob("*/trials/*/metrics.jsonl"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-2])
    found = call("metrics", "@last")
    assert [line.partition(" is damaged: ")[2] for line in found.err.splitlines() if "damaged" in line] == [
        "it is missing",
        "1 of its lines left out",
    ]
    assert "1 of its lines" in call("metrics", "@last", cut.parent.name).err
