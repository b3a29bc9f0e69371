"""What terminals show: tables of any width lose nothing, commands stay whole, no sign is refused."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from orchestrator import display, terminal
from orchestrator.statistics.intervals import UNBOUNDED
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.sweep_files import sweep_text

ARMS = ("rotated_adamw", "sgd", "llqr [relu, tanh]")
CELLS = ("0.9271 [0.9188, 0.9354]", "0.0875 [-0.1307, 0.9443]", "0.6674 [0.5295, 0.8052]")


def arms_table(*, alike: bool) -> Table:
    """As `run` ends; `alike`: arms cost the same."""
    table = Table(
        title="quickstart-1a2b3c4d: confirm stage, [fresh] seeds", caption="intervals: 95% t over the studies"
    )
    table.add_column("arm", no_wrap=True)
    for metric in ("accuracy/test", "accuracy/val"):
        table.add_column(metric, justify="right", no_wrap=True)
    for name in ("studies", "grad evals/trial", "spent in all"):
        table.add_column(name, justify="right")
    table.add_column("what settles it cheapest")
    for i, (arm, cell) in enumerate(zip(ARMS, CELLS, strict=True)):
        spent = "9,600" if alike else f"{9600 + i:,}"
        table.add_row(arm, cell, CELLS[2 - i], "8", "200", spent, f"about {i + 1} more studies might")
    return table


def printed(table: Table, width: int, *, to_terminal: bool = True) -> list[str]:
    out = io.StringIO()
    terminal.show(Console(file=out, width=width, force_terminal=to_terminal, color_system=None), table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("width", [24, 30, 40, 60, 80, 100, 130, 200, 400])
def test_a_table_fits_and_loses_nothing(width: int, alike: bool) -> None:
    lines = printed(arms_table(alike=alike), width)
    assert max(map(cell_len, lines)) <= width
    text = " ".join(lines)
    for name in (*ARMS, *CELLS, "[fresh]", "accuracy/test", "200", "9,600", "cheapest", "might", "95% t"):
        for word in name.split():
            assert word in text, (word, lines)
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("width", [80, 100, 130, 200])
def test_from_eighty_columns_on_it_is_a_table(width: int) -> None:
    """Numbers stay beside their intervals, names and numbers in one piece."""
    lines = printed(arms_table(alike=True), width)
    assert any(line.startswith("┏") for line in lines)
    for arm, cell in zip(ARMS, CELLS, strict=True):
        assert any(arm in line and cell.partition(" ")[0] in line for line in lines)


def test_a_message_shows_no_password_of_an_address() -> None:
    out = io.StringIO()
    terminal.say(Console(file=out), "Error: http://me:hunter2@host:1: of http://me:hun@ter2@host:1/api?a=b@c")
    terminal.say(Console(file=out), "write postgresql://USER:PASSWORD@HOST/DATABASE")
    said, way_out = out.getvalue().splitlines()
    assert way_out == "write postgresql://USER:PASSWORD@HOST/DATABASE"
    assert said == "Error: http://***@host:1: of http://***@host:1/api?a=b@c"


def test_what_goes_to_a_file_is_as_wide_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("one", *(f"column {i}" for i in range(40)))
    table.add_row("x", *("0.123456789 [0.1, 0.2]" for _ in range(40)))
    lines = printed(table, 80, to_terminal=False)
    assert lines[-2].count("0.123456789 [0.1, 0.2]") == 40
    assert not any("\x1b" in line for line in lines)


def test_columns_asked_for_are_kept_in_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(cell_len, printed(arms_table(alike=False), 160, to_terminal=False)[:-1])) <= 60
    monkeypatch.setenv("COLUMNS", "wide")
    assert max(map(cell_len, printed(arms_table(alike=False), 160, to_terminal=False))) > 100


def test_a_command_has_a_line_of_its_own() -> None:
    command = f"geosweep logs {'long-' * 30}1a2b3c4d --root /somewhere"
    out = io.StringIO()
    terminal.say(Console(file=out, width=80, force_terminal=True, color_system=None), f"7 failed; see: {command}")
    assert f"  {command}" in out.getvalue().splitlines()
    assert terminal.pieces("say geosweep run and no more") == ["say geosweep run and no more"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_terminal_can_print_our_signs(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    terminal.readable(stream)
    text = "A − B ± 0.1 … ≥ 2 × 3 → ∞ 漢"
    print(text, file=stream, flush=True)
    found = raw.getvalue().decode(encoding).strip()
    assert found == text if encoding == "utf-8" else found.startswith("A - B") and found.endswith("?")


def test_boxes_are_plain_where_the_encoding_is() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    terminal.show(Console(file=stream, width=80, force_terminal=True, color_system=None), arms_table(alike=True))
    stream.flush()
    assert "+---" in raw.getvalue().decode()


@pytest.mark.parametrize("root, said", [("runs", ""), ("/a b/runs", " --root '/a b/runs'"), ("other", " --root other")])
def test_commands_name_the_root_unless_it_is_the_usual_one(root: str, said: str) -> None:
    assert (
        SweepFolder(Path(root), "fit-1a2b3c4d").command("best", "fit-1a2b3c4d") == f"geosweep best fit-1a2b3c4d{said}"
    )


@pytest.mark.slow
def test_the_module_is_the_command_in_ascii_too() -> None:
    variables = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "geosweep", "-h"], capture_output=True, env=variables, timeout=120, check=True
    )
    text = done.stdout.decode("ascii")
    assert "Usage: geosweep [OPTIONS] COMMAND" in text
    assert "\x1b" not in text


@pytest.mark.slow
def test_the_end_of_a_run_names_only_what_works(call: Any, tmp_path: Path) -> None:
    """Three confirm seeds are too few to compare; what is named can be called as it stands."""
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(trials=2))
    done = call("run", str(file), "--executor", "debug", "--no-tracking")
    assert done.code == 0, done.err
    commands = [line.removeprefix("Next:").strip() for line in done.err.splitlines() if "geosweep " in line]
    assert [shlex.split(command)[1] for command in commands] == ["best", "report"]
    for command in commands:
        _, verb, *words = shlex.split(command)
        assert words[-2:] == ["--root", str(tmp_path / "runs")]
        assert call(verb, *words, *(["--no-tracking", "--no-vector"] if verb == "report" else [])).code == 0
    best = call("best").out
    assert "lr=0." in best
    assert not [word for word in best.replace(",", " ").split() if len(word.partition("lr=0.")[2]) > 4]


@pytest.mark.slow
def test_a_drained_sweep_is_continued_by_what_is_said(call: Any, tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(trials=2))
    stopped = call("run", str(file), "budget.wall_clock=0.01s", "--executor", "debug", "--no-tracking")
    assert stopped.code == 5
    [command] = [line.strip() for line in stopped.err.splitlines() if line.strip().startswith("geosweep ")]
    root = str(tmp_path / "runs")
    expected = ["run", str(file), "budget.wall_clock=0.01s", "--root", root, "--executor", "debug", "--no-tracking"]
    assert shlex.split(command)[1:] == expected
    status = call("status")
    [again] = [line.strip() for line in status.out.splitlines() if line.strip().startswith("geosweep run")]
    assert shlex.split(again)[2] == str(next((tmp_path / "runs").glob("fit-*/sweep.yaml")))


@pytest.mark.parametrize("values, said", [
    ([0.9271, 0.9188], "0.9229 [0.8702, 0.9757]"),
    ([1.1e-7, 1.3e-7], "1.2e-07 [-7.06e-09, 2.47e-07]"),
    ([12345.0, 12347.0], "12346.0 [12333.3, 12358.7]"),
])  # fmt: skip
def test_means_have_digits_that_say_something(values: list[float], said: str) -> None:
    assert display._mean(values, UNBOUNDED, short=False) == said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_columns_line_up_whatever_the_encoding_has(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    terminal.readable(stream)
    table = Table("arm", "accuracy")
    table.add_row("日本語", "0.5 ± 0.1")
    table.add_row("sgd", "0.3 … 0.4")
    terminal.show(Console(file=stream, width=60), table)
    stream.flush()
    lines = raw.getvalue().decode(encoding).splitlines()
    assert len({cell_len(line) for line in lines if line.strip()}) == 1, lines
