"""`geosweep` from Python: the same sweeps, the same sentences and the same answers as the command."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import geosweep
from orchestrator.definition import yaml12
from orchestrator.terminal import pieces
from tests.geosweep.programs import sweep
from tests.orchestrator.command import environment
from tests.tasks import Fit

pytestmark = pytest.mark.slow  # they look at one sweep, and build its report
TASK = "tests.tasks:Fit"
QUIET: dict[str, Any] = {"executor": "debug", "tracking": False, "progress": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("door") / "runs"


@pytest.fixture(scope="module")
def reports() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def done(root: Path, reports: list[Any]) -> geosweep.Sweep:
    return geosweep.run(sweep(TASK), root=root, on_report=reports.append, **QUIET)


def test_importing_it_is_cheap(tmp_path: Path) -> None:
    program = "import geosweep, json, sys; dir(geosweep); print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", program]
    loaded = json.loads(
        subprocess.run(command, env=environment(), check=True, capture_output=True, cwd=tmp_path).stdout
    )
    ours = {name for name in loaded if name.split(".")[0] in ("geosweep", "orchestrator", "trainables", "optim_core")}
    assert ours == {"geosweep"}
    assert not {"torch", "pandas", "numpy", "ray", "mlflow", "optuna", "yaml", "rich"} & set(loaded)


def test_every_public_name_is_there() -> None:
    assert set(geosweep.NAMES) <= set(dir(geosweep))
    for name in set(geosweep.NAMES) - {"trial"}:
        assert getattr(geosweep, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = geosweep.runn


def test_the_result_as_data_frames(done: geosweep.Sweep) -> None:
    assert done.state == "done"
    assert repr(done) == f"<Sweep {done.id}: done, 16 of 16 trials>"
    trials = done.trials
    assert len(trials) == 16
    assert trials["param.lr"].dtype == float
    assert str(trials["seed"].dtype) == "Int64"
    best = done.best()
    assert list(best.columns) == ["value", "n", "stage", "trial_id", "param.lr"]
    assert best["value"].is_monotonic_increasing
    for arm, row in best.iterrows():
        confirm = trials[(trials["arm"] == arm) & (trials["stage"] == "confirm")]
        assert row["value"] == pytest.approx(confirm["loss/val"].mean())
        assert set(confirm["param.lr"]) == {row["param.lr"]}
    metrics = done.metrics
    last = metrics[metrics["name"] == "loss/val"].groupby("trial_id")["value"].last()
    assert dict(last) == dict(zip(trials["trial_id"], trials["loss/val"], strict=True))


def test_the_comparison(done: geosweep.Sweep, monkeypatch: pytest.MonkeyPatch, capfd: Any, root: Path) -> None:
    from tests.verbs import called

    monkeypatch.setenv("GEOSWEEP_ROOT", str(root))
    said = called(monkeypatch, capfd, "compare", done.id)
    found = done.compare()
    assert json.loads(json.dumps(found.document)) == called(monkeypatch, capfd, "compare", done.id, "--json").document
    assert all(sentence in said.out for sentence in found.sentences)
    row = found.pairs.iloc[0]
    trials = done.trials[done.trials["stage"] == "confirm"].set_index(["arm", "seed"])["loss/val"]
    assert row["difference"] == pytest.approx((trials[row["a"]] - trials[row["b"]]).mean())
    assert row["low"] < row["difference"] < row["high"]
    assert found.headline
    assert not found.exploratory
    against = done.compare("sgd", margin=0.5)
    assert against.pairs["b"].tolist() == ["sgd"]
    assert len(against.exploratory) == 2
    assert str(against).splitlines()[-1].startswith("exploratory: margin 0.5 was requested")
    with pytest.raises(geosweep.errors.NotFound, match=r"no metric 'nope'; available: loss/val"):
        done.compare(metric="nope")


def test_the_table(done: geosweep.Sweep) -> None:
    frame = done.table("lr", baseline="0.1")
    assert set(frame["lr"]) == {0.01, 0.1}
    assert frame.attrs["document"]["schema"] == "geosweep/table/1"
    with pytest.raises(geosweep.errors.Refused, match="no trial has the parameter 'momentum'; available: lr"):
        done.table("momentum")


def test_notebooks_show_it(done: geosweep.Sweep, tmp_path: Path) -> None:
    report = done.report(tmp_path / "report")
    assert Path(os.fspath(report)).read_text().startswith("<!")
    for shown, words in ((done, ["sgd", "adamw", done.id]), (done.compare(), ["sgd", "p Holm"]), (report, ["<iframe"])):
        page = shown._repr_html_()
        assert all(word in page for word in words)
        for tag in ("div", "table", "td", "tr"):
            assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert html.escape("<script>") not in done._repr_html_()


def test_reports_are_heard(done: geosweep.Sweep, reports: list[Any]) -> None:
    ends = [one for one in reports if one.state == "COMPLETE"]
    assert {one.trial_id: one.value for one in ends} == dict(
        zip(done.trials["trial_id"], done.trials["loss/val"], strict=True)
    )
    assert {(one.arm, one.stage) for one in ends} == {(a, s) for a in ("sgd", "adamw") for s in ("tune", "confirm")}
    assert all(one.parameters["lr"] in (0.01, 0.1) and one.grad_evals == 16 for one in ends)


def test_a_sweep_that_is_done_comes_back(done: geosweep.Sweep, root: Path) -> None:
    heard: list[Any] = []
    again = geosweep.run(sweep(TASK), root=root, on_report=heard.append, **QUIET)
    assert (again.id, heard) == (done.id, [])
    for name in (done.id, done.id[:7], "@last"):
        assert geosweep.load(name, root=root).id == done.id
    with pytest.raises(geosweep.errors.NotFound, match=f"'nope' names no sweep; available: {done.id}"):
        geosweep.load("nope", root=root)


def test_dict_text_and_file_are_one_sweep(done: geosweep.Sweep, tmp_path: Path, root: Path) -> None:
    text = yaml.safe_dump(sweep(TASK), sort_keys=False)
    (tmp_path / "sweep.yaml").write_text(text)
    numbers = sweep(Fit, parameters={"lr": {"values": np.array([0.01, 0.1])}}, evaluations=np.int64(2))
    for given in (text, tmp_path / "sweep.yaml", str(tmp_path / "sweep.yaml"), json.dumps(sweep(TASK)), numbers):
        assert geosweep.run(given, root=root, **QUIET).id == done.id
    assert yaml12.parse((done.path / "sweep.yaml").read_text()).value == sweep(TASK)


def test_overrides_are_what_an_edited_file_would_be(tmp_path: Path) -> None:
    changes = {"budget.per_trial": 8, "seeds.confirm": 1, "arms.sgd.parameters.momentum": 0.5, "description": "short"}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep(TASK)))
    short = sweep(TASK, budget={"per_trial": 8}, seeds={"tune": 1, "confirm": 1}, description="short")
    short["arms"]["sgd"] = {"parameters": {"momentum": 0.5}}
    found = geosweep.run(file, overrides=changes, root=tmp_path, **QUIET)
    assert geosweep.run(short, root=tmp_path, **QUIET).id == found.id
    assert set(found.trials["param.momentum"].dropna()) == {0.5}
    assert yaml12.parse((found.path / "sweep.yaml").read_text()).value["description"] == "short"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budget.per_trail": 8}, "override budget.per_trail: unknown; did you mean per_trial?"),
        ({"name.first": "x"}, "override name.first: name is 'door' in the sweep and has no keys"),
        ({"seeds": {"tune": -1}}, "override seeds: seeds.tune: "),
        ({"task.width": object()}, "override task.width: a object cannot be written in a sweep file; "),
    ],
)
def test_an_override_that_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep(TASK)))
    for given in (file, sweep(TASK)):
        with pytest.raises(geosweep.errors.SpecError) as caught:
            geosweep.run(given, overrides=changes, root=tmp_path / "runs", **QUIET)
        assert str(caught.value).startswith(sentence)
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_in_a_file_keeps_its_line(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep(TASK, evaluatoins=3), sort_keys=False))
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if text.startswith("evaluatoins"))
    for overrides in ({}, {"description": "changed"}):
        with pytest.raises(
            geosweep.errors.SpecError, match=re.escape(f"{file}:{line}:1: evaluatoins: unknown; did you mean")
        ):
            geosweep.run(file, overrides=overrides, root=tmp_path, **QUIET)
    with pytest.raises(geosweep.errors.SpecError, match=r"^sweep: evaluatoins: unknown; did you mean"):
        geosweep.run(sweep(TASK, evaluatoins=3), root=tmp_path, **QUIET)
    with pytest.raises(geosweep.errors.SpecError, match=r"^<text>:2:1: b: given twice|^<text>:3:1: b: given twice"):
        geosweep.run("a: 1\nb: 1\nb: 2\n", root=tmp_path, **QUIET)


def test_the_sentences_are_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from tests.verbs import called

    runs = tmp_path / "runs"
    monkeypatch.setenv("GEOSWEEP_ROOT", str(runs))
    bad, failing, good = (tmp_path / f"{name}.yaml" for name in ("bad", "failing", "good"))
    good.write_text(yaml.safe_dump(sweep(TASK)))
    bad.write_text(yaml.safe_dump(sweep("tests.tasks:Fitt")))
    broken = sweep(TASK, name="broken", seeds={"tune": 1, "confirm": 1})
    broken["task"] |= {"fail_at": 3, "fail_seed": 0}
    failing.write_text(yaml.safe_dump(broken))
    cases: list[tuple[Any, tuple[str, ...], type[Exception], int]] = [
        (lambda: geosweep.run(bad, **QUIET), ("run", str(bad)), geosweep.errors.SpecError, 3),
        (lambda: geosweep.run(tmp_path / "no.yaml"), ("run", f"{tmp_path}/no.yaml"), geosweep.errors.SpecError, 3),
        (lambda: geosweep.load("x"), ("status", "x"), geosweep.errors.NotFound, 4),
        (
            lambda: geosweep.run(good, address="auto", root="here"),
            ("run", str(good), "--address", "auto", "--root", "here"),
            geosweep.errors.UsageError,
            2,
        ),
        (
            lambda: geosweep.run(failing, **QUIET),
            ("run", str(failing), "--executor", "debug", "--no-tracking"),
            geosweep.errors.TrialsFailed,
            8,
        ),
    ]
    for call, words, kind, code in cases:
        with pytest.raises(kind) as caught:
            call()
        said = called(monkeypatch, capfd, *words)
        assert said.code == code
        assert said.err.endswith("\n".join(pieces(str(caught.value))) + "\n")  # a command has a line of its own


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(geosweep.errors.UsageError, match="a sweep is a path, a dict or YAML text, and not a int"):
        geosweep.run(3, root=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(geosweep.errors.UsageError, match="executor 'slurm': use ray, or debug"):
        geosweep.run(sweep(TASK), executor="slurm", root=tmp_path)
    for odd in (None, 3):
        with pytest.raises(geosweep.errors.UsageError, match="a sweep is named by an id or a path, and not by a"):
            geosweep.load(odd, root=tmp_path)  # type: ignore[arg-type]
        for decorator in (geosweep.register, geosweep.task):
            with pytest.raises(TypeError, match="is neither a class nor a name"):
                decorator(odd)  # type: ignore[call-overload]
    assert not list(tmp_path.iterdir())


def test_what_loads_a_sweep(done: geosweep.Sweep, root: Path, tmp_path: Path) -> None:
    """Its id, a prefix, its folder, its file; an empty name, as of a variable that is not set, is none of these."""
    file = done.path / "sweep.yaml"
    for name in (done.id, done.id[:-2], done.path, str(done.path), file, str(file)):
        assert geosweep.load(name, root=root).id == done.id
    for name in ("", tmp_path / "nowhere"):
        with pytest.raises(geosweep.errors.NotFound, match="names no sweep"):
            geosweep.load(name, root=root)


def test_an_exception_of_the_callers_drains_the_sweep(tmp_path: Path) -> None:
    heard: list[str] = []

    def enough(report: Any) -> None:
        heard.append(report.trial_id)
        if len(heard) == 3:
            raise LookupError("seen enough")

    with pytest.raises(LookupError, match="seen enough"):
        geosweep.run(sweep(TASK), root=tmp_path, on_report=enough, **QUIET)
    stopped = geosweep.load(root=tmp_path)
    assert (stopped.state, len(stopped.trials)) == ("stopped", 3)
    assert "3 of" in repr(stopped)
    assert "waiting" in stopped._repr_html_()
    again = geosweep.run(sweep(TASK), root=tmp_path, **QUIET)
    assert (again.state, len(again.trials)) == ("done", 16)


def test_a_limit_of_the_budget_is_told_and_not_raised(tmp_path: Path, capfd: Any) -> None:
    limited = sweep(TASK, budget={"per_trial": 16, "grad_evals": 16 * 14})
    found = geosweep.run(limited, root=tmp_path, executor="debug", tracking=False)
    assert found.state == "budget"
    assert "the search ended at budget.grad_evals" in capfd.readouterr().err
    assert len(found.best()) == 2


def test_best_before_there_is_anything(tmp_path: Path) -> None:
    def never(report: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        geosweep.run(sweep(TASK), root=tmp_path, on_report=never, **QUIET)
    found = geosweep.load(root=tmp_path)
    assert set(found.best()["stage"]) == {"tune"}
    for trial in found.path.glob("trials/*/result.json"):
        trial.unlink()
    assert len(found.best()) == len(found.trials) == 0
    assert isinstance(found.best(), pd.DataFrame)


def test_doctests_of_the_front_door() -> None:
    import doctest
    import importlib

    modules = [importlib.import_module(f"geosweep.{name}") for name in ("_door", "_register", "errors", "optimizers")]
    found = [doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE) for module in modules]
    assert [one.failed for one in found] == [0, 0, 0, 0]
    assert all(one.attempted for one in found)
