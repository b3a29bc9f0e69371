"""The GPU check is known to run: its path without a device, and the whole of it in its tiny form."""

from __future__ import annotations

import re

import pytest
import torch

from tests.bench import gpu_check

pytestmark = pytest.mark.slow


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 0
    assert "no CUDA device" in capsys.readouterr().out


def test_the_tiny_form_prints_both_tables(capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--cpu-smoke", "--only", "sgd,gda"]) == 0
    out = capfd.readouterr().out
    assert len(re.findall(r"^sgd +[\d.]+ +[\d.]+ +[\d.]+ +nan +[\d.]+$", out, re.MULTILINE)) == 2
    assert re.search(r"^ +2 +[\d.]+ +[\d.]+ +[\d.]+x$", out, re.MULTILINE)


def test_an_optimizer_that_fails_is_told_from_one_that_does_not_apply(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, *_: object) -> object:
        if name == "sgd":
            raise RuntimeError("a kernel is missing")
        raise TypeError("needs two players")

    monkeypatch.setattr(gpu_check, "build_optimizer", broken)
    monkeypatch.setattr(gpu_check, "sharing_table", lambda *_: None)
    assert gpu_check.main(["--cpu-smoke", "--only", "sgd"]) == 1
    out = capfd.readouterr().out
    assert "not for this task: needs two players" in out
    assert "RuntimeError: a kernel is missing" in out
