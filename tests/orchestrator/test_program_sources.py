"""Where metrics are found: whole rows only, each once, whatever a writer does to its file; and the command line."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.definition.program_keys import filled
from orchestrator.trial.log_files import CUT
from orchestrator.trial.program import command, sources
from orchestrator.trial.program.output import Lines, Printed, tail

FLOAT = r"(?P<loss>\S+)"


@pytest.mark.parametrize(("text", "rows"), [
    ("loss 0.5", [{"loss": 0.5}]),
    ("loss 1e-3, loss nan", [{"loss": 1e-3}, {"loss": float("nan")}]),
    ("loss 12.5%", [{"loss": 12.5}]),
    ("loss -", []),
    ("nothing", []),
])  # fmt: skip
def test_patterns(text: str, rows: list[dict[str, float]]) -> None:
    assert repr(list(sources.Pattern(f"loss {FLOAT}").line(text))) == repr(rows)


def test_metrics_on_standard_error_are_pointed_out(tmp_path: Path) -> None:
    """Where Python's logging writes unless it is told otherwise."""
    given = sources.all_of([{"pattern": r"step (?P<step>\d+) loss (?P<loss>\S+)"}, {"csv": "x.csv"}], tmp_path, {})
    assert "only standard output is searched" in sources.elsewhere(given, "INFO:root:step 1 loss 0.5\nbye\n")
    assert sources.elsewhere(given, "INFO:root:step one\n") == ""


def test_a_group_may_spell_a_slash() -> None:
    assert list(sources.Pattern(r"val (?P<loss__val>\S+)").line("val 2")) == [{"loss/val": 2.0}]


def test_what_a_pattern_finds_and_is_no_number_is_named() -> None:
    source = sources.Pattern(r"step (?P<step>\d+): (?P<loss>\S+)")
    assert list(source.line("step 1: 0.5")) == [{"step": 1.0, "loss": 0.5}]
    assert source.trouble() == ""
    assert list(source.line("step 2: 0,5")) == [{"step": 2.0}]
    assert source.trouble() == "loss matched '0,5', which is not a number"


def test_printed_json() -> None:
    found = sources.source("jsonl", "stdout", Path())
    assert list(found.line('{"step": 3, "eval": {"loss": 0.5, "name": "x"}, "ok": true}')) == [
        {"step": 3.0, "eval/loss": 0.5}
    ]
    assert list(found.line('{"step": 3, "eval": {"lo')) == []
    assert list(found.line("[1, 2]")) == []
    assert repr(list(found.line('{"loss": "NaN", "top": "-Infinity", "run": "7", "name": "nancy"}'))) == repr(
        [{"loss": math.nan, "top": -math.inf}]
    )


def test_json_lines_whole_ones_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    found = sources.source("jsonl", "log.jsonl", tmp_path)
    assert list(found.poll()) == []
    assert found.trouble() == "it wrote no log.jsonl"
    path.write_text('{"loss": 1}\n{"lo')
    assert list(found.poll()) == [{"loss": 1.0}]
    with path.open("a") as out:
        out.write('ss": 2}\n{"loss": 3}')
    assert list(found.poll()) == [{"loss": 2.0}]
    assert list(found.poll(last=True)) == [{"loss": 3.0}]  # whole, though nobody ended it
    assert list(found.poll(last=True)) == []


def test_half_a_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    found = sources.source("jsonl", "log.jsonl", tmp_path)
    (tmp_path / "log.jsonl").write_text('{"loss": ')
    assert list(found.poll(last=True)) == []
    assert found.trouble() == """the last line of log.jsonl was cut off: '{"loss": '"""


def test_what_was_there_before_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"loss": 7}\n{"loss": 8}\n')
    added, anew = (sources.source("jsonl", "log.jsonl", tmp_path) for _ in range(2))
    with path.open("a") as out:
        out.write('{"loss": 9}\n')
    assert list(added.poll()) == [{"loss": 9.0}]
    path.write_text('{"loss": 1}\n')
    assert list(anew.poll()) == [{"loss": 1.0}]


def test_csv_that_is_written_anew_with_more_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    found = sources.source("csv", "*.csv", tmp_path)
    path.write_text("step,loss\n1,0.5\n")
    assert list(found.poll()) == [{"step": 1.0, "loss": 0.5}]
    path.write_text("step,loss,val\n1,0.5,\n2,0.25,0.75\n")
    assert list(found.poll()) == [{"step": 2.0, "loss": 0.25, "val": 0.75}]


def test_event_files(tmp_path: Path) -> None:
    from tensorboardX import SummaryWriter

    found = sources.source("tensorboard", "events", tmp_path)
    with SummaryWriter(str(tmp_path / "events")) as writer:
        for step in (1, 2):
            writer.add_scalar("loss", 1 / step, step)
    rows = list(found.poll())
    assert rows == [{"step": 1.0, "loss": 1.0}, {"step": 2.0, "loss": 0.5}]
    (file,) = (tmp_path / "events").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])  # a record that is not whole
    assert list(found.poll()) == []


def test_colors_are_left_out() -> None:
    assert list(Lines().feed(b"loss \x1b[32m0.5\x1b[0m\n")) == ["loss 0.5"]


@given(st.binary(max_size=400).filter(lambda data: b"\x1b" not in data), st.lists(st.integers(1, 40), max_size=40))
def test_lines_do_not_depend_on_how_they_come(data: bytes, sizes: list[int]) -> None:
    lines, found, at = Lines(), list[str](), 0
    for size in sizes:
        found += lines.feed(data[at : at + size])
        at += size
    found += [*lines.feed(data[at:]), *filter(None, [lines.rest()])]
    parts = data.replace(b"\r", b"\n").split(b"\n")
    assert found == [part.decode("utf-8", "replace") for part in parts if part]


def test_a_log_is_bounded_and_keeps_its_end(tmp_path: Path) -> None:
    """As that of any trial is; what a trial prints after an interruption is told from what it printed before."""
    for run in range(2):
        log = Printed(tmp_path / "stdout.log", limit=1000)
        for i in range(500):
            log.write(f"line {run} {i}\n".encode())
            assert (tmp_path / "stdout.log").stat().st_size <= 1000
        log.close()
        assert tail(tmp_path, "stdout").endswith(f"line {run} 498\nline {run} 499\n")
    Printed(tmp_path / "stderr.log").close()
    assert [path.name for path in tmp_path.iterdir()] == ["stdout.log"], "none stays empty"
    text = (tmp_path / "stdout.log").read_bytes()
    assert len(CUT.findall(text)) == 1
    assert text.startswith(b"line 0 0\n")


PARAMETERS: dict[str, Any] = {"lr": 0.1, "nesterov": True, "bias": False, "name": "a b", "betas": [0.9, 0.99]}
ARGS = ["--lr=0.1", "--nesterov=True", "--bias=False", "--name=a b", "--betas=[0.9, 0.99]"]


def line(tmp_path: Path, *words: str, **task: Any) -> list[str]:
    given = command.Given(program=Path("/p/train.py"), folder=tmp_path, parameters=PARAMETERS, seed=3, budget=40.0)
    keys = {"program": "train.py", "prove": False, **({"command": list(words)} if words else {}), **task}
    return command.line(filled(keys), given)


def test_the_words_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "there")
    assert line(tmp_path) == [sys.executable, "/p/train.py", *ARGS]
    assert line(tmp_path, "${env}", "python", "${program}", "${args}") == [
        "/usr/bin/env",
        "python",
        "/p/train.py",
        *ARGS,
    ]
    assert line(tmp_path, "${args_no_boolean_flags}") == [ARGS[0], "--nesterov", *ARGS[3:]]
    assert line(tmp_path, "${args_no_hyphens}") == [word.removeprefix("--") for word in ARGS]
    assert json.loads(line(tmp_path, "${args_json}")[0]) == PARAMETERS
    assert json.loads(Path(line(tmp_path, "${args_json_file}")[0]).read_text()) == PARAMETERS
    given = {"optim.lr": 0.1, "optim.name": "sgd", "lr": 1, "lr.max": 2, "a.b.c": [1], "a.b": {"d": 2}}
    nested = {"optim": {"lr": 0.1, "name": "sgd"}, "lr": 1, "lr.max": 2, "a.b.c": [1], "a": {"b": {"d": 2}}}
    assert command.nested(given) == nested
    assert line(tmp_path, "${envvar:HERE}", "--x=${seed}/${budget}") == ["there", "--x=3/40"]


def test_what_is_handed_over(tmp_path: Path) -> None:
    own = {"seed_arg": "--seed", "budget_arg": "-n", "output_arg": "hydra.run.dir="}
    assert line(tmp_path, **own)[-3:] == ["--seed=3", "-n=40", f"hydra.run.dir={tmp_path}"]
    among = {"seed_arg": "seed", "budget_arg": "trainer.epochs"}
    assert line(tmp_path, "${args_no_hyphens}", **among)[-2:] == ["seed=3", "trainer.epochs=40"]


def test_python_runs_under_the_runner_and_nothing_else_does(tmp_path: Path) -> None:
    runner = str(Path(command.__file__).parents[3] / "geosweep" / "_run.py")
    assert line(tmp_path, prove=True)[:3] == [sys.executable, runner, "/p/train.py"]
    assert line(tmp_path, "${interpreter}", "-m", "pkg.train", prove=True) == [
        sys.executable,
        runner,
        "-m",
        "pkg.train",
    ]
    assert line(tmp_path, "/opt/bin/python3.9", "${program}", prove=True)[1] == runner
    assert runner not in line(tmp_path, "torchrun", "--nproc-per-node=2", "${program}", prove=True)
    assert runner not in line(tmp_path, "${interpreter}", "-c", "pass", prove=True)
