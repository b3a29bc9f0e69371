"""The GPU check is known to run: all of it, tiny, on the CPU; nothing twice; and on past what fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench.gpu_check import __main__ as gpu_check
from tests.bench.gpu_check import correct, cost
from tests.bench.gpu_check.setting import TINY, Setting

pytestmark = pytest.mark.slow
ONLY = ("--device", "cpu", "--only", "sgd,llqr,gda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu_check.main(["--out", str(tmp_path)]) == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


QUICK = ("agreement", "resume", "memory", "syncs", "waiting", "processes", "rivals")


@pytest.mark.filterwarnings("ignore:.*(lr_scheduler|is deprecated).*")
@pytest.mark.parametrize("sections", [QUICK, pytest.param(tuple(gpu_check.SECTIONS), marks=pytest.mark.long)],
                         ids=["quick", "all"])  # fmt: skip
def test_every_section_runs_once_and_is_kept(
    sections: tuple[str, ...], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*ONLY, "--sections", ",".join(sections), "--out", str(tmp_path)]
    assert gpu_check.main(words) == 0, capfd.readouterr()
    found = {path.stem.rpartition("_")[2]: json.loads(path.read_text()) for path in tmp_path.glob("gpu_cpu-*_*.json")}
    assert found.keys() == set(sections)
    for record in found.values():
        assert record["rows"]
        assert {"device", "date", "torch", "driver", "code"} <= record["environment"].keys()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    shown = capfd.readouterr().out
    assert shown.startswith("device cpu")
    rows = {row["what"]: row for row in found["agreement"]["rows"]}
    assert rows.keys() == {"sgd", "llqr", "gda"}
    assert all(row["float32"] == row["bfloat16"] == 0 for row in rows.values())  # of the CPU against itself
    whole = next(tmp_path.glob("gpu_cpu-*.txt")).read_text()
    assert all(f"== {section} (" in whole for section in sections)
    assert gpu_check.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == times
    assert capfd.readouterr().out.count("there already") == len(found)


def test_what_fails_is_recorded_and_run_again(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(correct.Run):
        def weights(self) -> Any:
            if self.model[0][0].weight.shape[0]:
                raise RuntimeError("a kernel is missing")

    words = ["--device", "cpu", "--only", "sgd", "--out", str(tmp_path), "--sections", "agreement,resume,processes"]
    with monkeypatch.context() as patch:
        patch.setattr(correct, "Run", Broken)
        assert gpu_check.main(words) == 1
    out = capfd.readouterr().out
    assert "FAILED agreement: sgd: RuntimeError: a kernel is missing" in out
    assert "FAILED resume: sgd: RuntimeError" in out
    assert "== processes" in out
    assert gpu_check.main(words) == 0
    again = capfd.readouterr().out
    assert again.count("there already") == 1
    assert "FAILED" not in again


def test_a_device_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are a hundredth too long."""

    class Off(correct.Run):
        def steps(self, first: int, last: int) -> None:
            super().steps(first, last)
            if self._low is False:
                for p in self.model.parameters():
                    p.data.mul_(1.01 if self.here else 1.0)

        here = False

    made: list[Off] = []

    def run(*values: Any) -> Off:
        made.append(Off(*values))
        made[-1].here = len(made) % 2 == 1
        return made[-1]

    monkeypatch.setattr(correct, "Run", run)
    row = next(iter(correct.agreement(Setting(device="cpu", sizes=TINY, place=tmp_path, only=("sgd",)))))
    assert "off the CPU in float32" in row["failed"]


def test_what_there_is_no_time_for_is_left_out(tmp_path: Path) -> None:
    setting = Setting(device="cpu", sizes=TINY, place=tmp_path, only=("sgd", "sam"), until=0.0)
    assert [row.get("left out") for row in cost.memory(setting)] == ["no time", "no time"]


def test_an_optimizer_keeps_no_more_than_it_has_to(tmp_path: Path) -> None:
    setting = Setting(device="cpu", sizes=TINY, place=tmp_path, only=tuple(cost.STATE))
    rows = {row["what"]: row for row in cost.memory(setting)}
    assert rows.keys() == cost.STATE.keys()
    for row in rows.values():
        assert "failed" not in row
        assert row["held"] == pytest.approx(row["formula"], abs=0.02)
