"""What is kept of an error can be printed, sent and stored, whatever it says."""

from __future__ import annotations

import pytest

from orchestrator.trial.failure import LONGEST, described, printable


def test_control_characters_and_lone_surrogates_are_escaped() -> None:
    text = printable("Ошибка \ud800 \x00 \x1b[31mred\r\tkept\n")
    assert text.encode("utf-8")
    assert text == "Ошибка \\ud800 \\x00 \\x1b[31mred\\x0d\tkept\n"


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit(), SystemExit("enough"), GeneratorExit()])
def test_an_exit_is_named_in_the_last_line(error: BaseException) -> None:
    last = described(error).strip().splitlines()[-1]
    assert last.startswith(f"{type(error).__name__}: the trial ")
    assert "raise an error" in last


def test_the_end_of_a_long_error_is_kept() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert described(RuntimeError("x" * 10**6 + "the end")).strip().endswith("the end")
    assert len(described(RuntimeError("x" * 10**6))) <= LONGEST
    assert "Mute" in described(Mute())
