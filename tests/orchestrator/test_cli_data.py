"""`geosweep data`: what is printed, the JSON, the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.data import Kind
from tests.trainables.data import sources
from tests.verbs import Called, called
from trainables.data.convert import KINDS


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*words: object) -> Called:
        return called(monkeypatch, capfd, "data", *map(str, words))

    return run


def test_every_kind_has_a_converter() -> None:
    assert [kind.value for kind in Kind] == list(KINDS)


def test_convert_and_check(call: Any, tmp_path: Path) -> None:
    source, out = (
        sources.tar(tmp_path / "cifar-100-python.tar.gz", sources.cifar100_files(), zipped=True),
        tmp_path / "o",
    )
    code, printed, said = call("convert", "cifar100", source, out)
    assert code == 0
    assert "train 20, test 20 rows" in printed
    assert "Next: geosweep data check" in said
    code, printed, _ = call("check", out)
    assert (code, "all valid" in printed) == (0, True)
    code, printed, _ = call("check", out, "--json")
    document = json.loads(printed)
    assert (document["schema"], document["ok"], document["problems"]) == ("geosweep/data-check/1", True, [])
    assert document["rows"] == {"train": 20, "test": 20}
    shard = out / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    code, printed, _ = call("check", out, "--json")
    document = json.loads(printed)
    assert code == 6
    assert document["problems"][0]["file"] == str(shard)
    assert document["problems"][0]["field"] == "sha256"
    code, printed, said = call("check", out)
    assert (code, printed) == (6, "")
    assert f"{shard}: sha256: is" in said


def test_json_of_a_conversion(call: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 30)
    code, printed, said = call("convert", "text", tmp_path / "a.txt", tmp_path / "o", "--block", 8, "--json")
    document = json.loads(printed)
    assert (code, said) == (0, "")
    assert document["schema"] == "geosweep/data-convert/1"
    assert document["rows"] == {"train": 33, "val": 3}
    assert document["notes"][0] == "train: the last 6 tokens do not fill a block of 8 and were left out"
    assert document["bytes"] == sum(p.stat().st_size for p in (tmp_path / "o").glob("*.parquet"))


def test_mistakes_have_their_exit_codes(call: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert call("convert", "cifar10", tmp_path / "gone", tmp_path / "o")[0] == 4
    assert call("check", tmp_path / "gone")[0] == 4
    code, _, said = call("convert", "cifar10", tmp_path / "a.txt", tmp_path / "o", "--dtype", "uint16")
    assert (code, "cifar10 has no option --dtype; it has: none" in said) == (2, True)
    code, _, said = call("convert", "tokens-bin", tmp_path / "a.txt", tmp_path / "o")
    assert (code, "tokens-bin needs --vocabulary" in said) == (2, True)
    code, _, said = call("convert", "cifar10", tmp_path / "a.txt", tmp_path / "o")
    assert code == 3
    assert "a.txt is truncated" in said.replace(": ", " ")
    assert f"nothing was written to {tmp_path / 'o'}" in said.replace("\n", " ")
    assert not (tmp_path / "o").exists()
