"""Results of others become a sweep that is compared and never run; dirty ones are refused, or said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from orchestrator import results
from orchestrator.compare.answer import answer, notes, sentence
from orchestrator.compare.evidence import Evidence
from orchestrator.definition.states import Stage
from orchestrator.imported.make import Made, make
from orchestrator.imported.roles import Question
from orchestrator.search import optuna_runs
from orchestrator.statistics import sentences
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.verdict import Verdict
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.foreign_runs import UnusableError, of_csv, of_parquet
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking import mlflow_runs

ARMS = {"fast": 0.90, "slow": 0.86, "odd": 0.88}


def rows(
    seeds: int = 9, arms: dict[str, float] = ARMS, *, shift: int = 0, columns: str = "optimizer,seed,accuracy,steps"
) -> list[str]:
    """Lines of a CSV file; `shift`: the seeds of one arm begin where those of another end."""
    draw = random.Random(1)
    found = [columns]
    for i, (arm, mean) in enumerate(arms.items()):
        found += [f"{arm},{s + i * shift},{mean + draw.gauss(0, 0.01):.4f},1000" for s in range(seeds)]
    return found


def imported(path: Path, lines: list[str], **asked: Any) -> Made:
    (path / "r.csv").write_text("\n".join(lines) + "\n")
    return make(of_csv(path / "r.csv"), Question(**asked), path / "runs", "r", {})


def document(folder: SweepFolder) -> Verdict:
    return answer(Evidence(folder))


def refused(path: Path, lines: list[str], **asked: Any) -> str:
    with pytest.raises(UnusableError) as caught:
        imported(path, lines, **asked)
    assert not (path / "runs").exists()
    return str(caught.value)


def test_paired_by_declaration(tmp_path: Path) -> None:
    """Verdicts are those of the same differences; whose word the pairing is stands in every one."""
    made = imported(tmp_path, rows(), budget="steps")
    found = document(made.folder)
    table = pd.read_csv(tmp_path / "r.csv").pivot(index="seed", columns="optimizer", values="accuracy")
    for pair in found.pairs:
        assert pair.difference == pytest.approx((table[pair.a] - table[pair.b]).mean())
        assert (pair.imported, pair.unit, pair.n) == ("pairing declared", "seed", 9)
        assert [one.level for one in pair.proof.parts().values()] == ["declared", "declared"]
    assert found.imported == "pairing declared"
    assert any(p.verdict == "better" for p in found.pairs)
    assert not [line for line in sentences.notes(found) if "Proved" in line]  # nothing of others' runs is
    assert "steps" in found.budget
    assert [s for s in found.exploratory if "pairing declared" in s]


@pytest.mark.parametrize("shift, budget, levels", [
    (0, "steps", ("declared", "declared")), (0, "", ("declared", "unknown")), (100, "", ("unknown", "unknown"))
])  # fmt: skip
def test_nothing_of_others_is_proved(tmp_path: Path, shift: int, budget: str, levels: tuple[str, str]) -> None:
    lines = rows(shift=shift) if budget else rows(shift=shift, columns="optimizer,seed,accuracy,x")
    found = document(imported(tmp_path, lines, **({"budget": budget} if budget else {"parameters": []})).folder)
    for pair in found.pairs:
        assert (pair.proof.pairing.level, pair.proof.compute.level) == levels
    assert "roved" not in " ".join([*notes(found), *(sentence(p, "accuracy") for p in found.pairs)])


def test_seeds_that_are_not_shared(tmp_path: Path) -> None:
    made = imported(tmp_path, rows(shift=100))
    assert made.design.pairing == "none"
    found = document(made.folder)
    assert found.paired is False
    assert {tuple(p.counts) for p in found.pairs} == {(9, 9)}
    assert {p.imported for p in found.pairs} == {"not paired"}
    assert {p.proof.pairing.level for p in found.pairs} == {"unknown"}


def test_no_seed_column(tmp_path: Path) -> None:
    lines = [",".join(line.split(",")[i] for i in (0, 2)) for line in rows(seeds=5)]
    made = imported(tmp_path, lines)
    assert made.design.pairing == "none"
    assert len(document(made.folder).pairs) == 3


def test_seeds_that_only_some_arms_have(tmp_path: Path) -> None:
    made = imported(tmp_path, [*rows(), "fast,77,0.9,1000"])
    assert made.design.pairing == "declared"
    assert [n for n in made.notes if "fast 77" in n]
    assert document(made.folder).seeds == list(range(9))


def test_unequal_budgets_are_refused(tmp_path: Path) -> None:
    lines = [line.replace(",1000", ",2000") if line.startswith("slow") else line for line in rows()]
    made = imported(tmp_path, lines, budget="steps")
    with pytest.raises(Refused, match=r"budgets differ .*\(steps\)"):
        document(made.folder)
    made = imported(tmp_path, lines, parameters=[])
    assert [n for n in made.notes if "equal budgets are not checked" in n]


def grid(seeds: int) -> list[str]:
    """Two arms, three rates each, of which the middle one is best."""
    draw = random.Random(2)
    lines = ["optimizer,lr,seed,accuracy"]
    for arm in ("fast", "slow"):
        for rate in (0.1, 0.01, 0.001):
            mean = ARMS[arm] + (0.03 if rate == 0.01 else 0.0)
            lines += [f"{arm},{rate},{s},{mean + draw.gauss(0, 0.005):.4f}" for s in range(seeds)]
    return lines


def test_some_seeds_choose_and_the_others_compare(tmp_path: Path) -> None:
    """No value is both chosen by and compared."""
    made = imported(tmp_path, grid(12))
    stages: dict[Stage, set[int]] = {stage: set() for stage in Stage}
    for one in made.design.placed:
        stages[one.stage].add(one.seed)
    assert stages == {Stage.TUNE: {0, 1, 2, 3}, Stage.CONFIRM: set(range(4, 12))}
    best = results.best(made.folder).arms
    assert {arm: row.parameters for arm, row in best.items()} == {a: {"lr": 0.01} for a in ("fast", "slow")}
    assert document(made.folder).pairs[0].searched == {"fast": 3, "slow": 3}
    other = imported(tmp_path, grid(12), tune_seeds=["11"])
    assert {one.seed for one in other.design.placed if one.stage is Stage.TUNE} == {11}


def test_a_search_without_repeats_is_not_compared(tmp_path: Path) -> None:
    made = imported(tmp_path, grid(1))
    with pytest.raises(Refused, match="trained once"):
        document(made.folder)
    assert set(results.best(made.folder).arms) == {"fast", "slow"}


def test_studies_answer_for_methods(tmp_path: Path) -> None:
    """Of several searches an arm each counts once."""
    draw = random.Random(3)
    lines = ["optimizer,study,seed,accuracy"]
    for arm in ("fast", "slow"):
        lines += [f"{arm},{r},{r * 10 + s},{ARMS[arm] + draw.gauss(0, 0.01):.4f}" for r in range(8) for s in range(2)]
    made = imported(tmp_path, lines, study="study")
    found = document(made.folder)
    assert (made.design.pairing, found.unit, found.units) == ("declared", "study", 8)
    assert found.pairs[0].components.confirm == 2
    assert str(results.status(made.folder).studies["fast"]) == "8/8"
    guessed = imported(tmp_path, lines)
    assert guessed.design.pairing == "none"  # nobody said that study 1 of one arm belongs to study 1 of another


def test_curves(tmp_path: Path) -> None:
    """A row for each step: the last value counts, or with --best the best one, and the curve is kept."""
    lines = ["optimizer,seed,epoch,accuracy"]
    for arm, mean in ARMS.items():
        lines += [f"{arm},{s},{e},{mean - 0.1 * abs(e - 3) + s / 1000:.4f}" for s in range(6) for e in (4, 1, 2, 3)]
    made = imported(tmp_path, lines)
    record = next(t for t in results.ended_trials(made.folder) if t.job.arm == "fast" and t.job.seed == 0)
    assert record.result.value == pytest.approx(0.8)
    points = MetricLog(made.folder.trial(record.trial_id) / "metrics.jsonl").points()
    assert [p.step for p in points] == [1, 2, 3, 4]
    best = imported(tmp_path, lines, select="best")
    assert best.folder.sweep_id != made.folder.sweep_id
    assert max(t.result.value or 0 for t in results.ended_trials(best.folder)) == pytest.approx(0.905)


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        (lambda t: [t[0].replace("optimizer", "what"), *t[1:]], {}, "give --arm COLUMN; available: what, seed"),
        (lambda t: t, {"arm": ["optimiser"]}, "no column 'optimiser'; did you mean optimizer?"),
        (lambda t: [t[0].replace("accuracy", "y"), *t[1:]], {}, "give --metric NAME:maximize"),
        (lambda t: [t[0].replace("accuracy", "y"), *t[1:]], {"metrics": ["y"]}, "y:maximize or y:minimize"),
        (lambda t: [*t, "fast,9,,1000"], {}, "fast (row 29)"),
        (lambda t: [*t, "fast,9,nan,1000"], {}, "--worst VALUE"),
        (lambda t: [*t, "fast,9,inf,1000"], {}, "--drop-missing"),
        (lambda t: [*t, "fast,9,high,1000"], {}, "row 29: accuracy is 'high'"),
        (lambda t: [*t, ",9,0.9,1000"], {}, "row 29: has no optimizer"),
        (lambda t: [*t, "fast,,0.9,1000"], {}, "row 29: no seed"),
        (lambda t: [*t, "fast,3,0.1,1000"], {}, "arm fast has seed 3 twice, in row 5 and row 29"),
        (lambda t: [*t, "Fast,9,0.9,1000"], {}, "arms fast and Fast look alike"),
        (lambda t: [*t, "fast,9,0.9,1000,7"], {}, "row 29 has 5 cells"),
        (lambda t: ["a,a", "1,2"], {}, "two columns are named 'a'"),
        (lambda t: t[:1], {}, "no rows"),
        (lambda t: [""], {}, "is empty"),
        (lambda t: t, {"where": ["steps=5"]}, "keeps no rows; steps has: 1000"),
        (lambda t: t, {"tune_seeds": ["99"]}, "99 is not a seed; available: 0, 1"),
        (lambda t: t, {"report": "seed"}, "--metric seed:maximize"),
    ],
)  # fmt: skip
def test_dirty_input_is_refused_with_a_way_out(
    change: Callable[[list[str]], list[str]], asked: dict[str, Any], words: str, tmp_path: Path
) -> None:
    said = refused(tmp_path, change(rows()), **asked)
    assert words in said


def test_dirty_input_that_is_mended(tmp_path: Path) -> None:
    lines = rows()
    lines[1] = lines[1].replace(lines[1].split(",")[2], f"{100 * float(lines[1].split(',')[2]):.2f}%")
    lines += [lines[5], "", "fast,9,nan,1000"]
    made = imported(tmp_path, lines, worst=0.1)
    said = "\n".join(made.notes)
    assert "1 rows repeat others" in said
    assert "1 run without a finite value counts as 0.1: fast (row 31)" in said
    assert "fast 9" in said  # which no other arm has
    dropped = imported(tmp_path, lines, drop_missing=True)
    assert "left out: fast (row 31)" in "\n".join(dropped.notes)


def test_a_diverged_run_counts_as_the_worst(tmp_path: Path) -> None:
    lines = [line if not line.startswith("slow,3") else "slow,3,nan,1000" for line in rows()]
    found = document(imported(tmp_path, lines, worst=0.0, budget="steps").folder)
    pair = next(p for p in found.pairs if {p.a, p.b} == {"fast", "slow"})
    assert abs(pair.difference) > 0.1


def test_separators_and_commas(tmp_path: Path) -> None:
    plain = imported(tmp_path, rows()).folder
    lines = [line.replace(",", ";").replace(".", ",") for line in rows()]
    assert imported(tmp_path, lines).folder.sweep_id == plain.sweep_id


def test_states_of_runs(tmp_path: Path) -> None:
    """Runs that failed or run still are left out, and that is said."""
    lines = [f"{line},{'State' if i == 0 else 'finished'}" for i, line in enumerate(rows())]
    lines += ["fast,20,0.5,1000,crashed", "slow,20,0.5,1000,running"]
    made = imported(tmp_path, lines)
    said = "\n".join(made.notes)
    assert "1 run failed and is left out: fast (row 29)" in said
    assert "1 run had not ended" in said
    assert len(made.design.placed) == 27


def test_parquet_is_the_same(tmp_path: Path) -> None:
    csv = imported(tmp_path, rows())
    pd.read_csv(tmp_path / "r.csv").to_parquet(tmp_path / "r.parquet")
    other = make(of_parquet(tmp_path / "r.parquet"), Question(), tmp_path / "runs", "r", {})
    assert (other.folder.sweep_id, other.was_there) == (csv.folder.sweep_id, True)


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Somebody's experiment: a parent for each optimizer, children that know their seed alone, histories, a failure."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder / 'db'}")
    experiment = client.create_experiment("theirs", artifact_location=str(folder))
    draw = random.Random(4)

    def run(params: dict[str, Any], value: float | None, parent: str = "", status: str = "FINISHED") -> str:
        made = client.create_run(experiment, tags={"mlflow.parentRunId": parent} if parent else {}).info.run_id
        for key, one in params.items():
            client.log_param(made, key, one)
        for step in range(1, 4) if value is not None else ():
            client.log_metric(made, "val_acc", value - 0.1 * (3 - step), step=step)
        client.set_terminated(made, status)
        return str(made)

    for arm, mean in ARMS.items():
        parent = run({"optimizer": arm, "lr": 0.1 * mean}, None)
        for seed in range(7):
            run({"seed": seed, "out": f"/tmp/{arm}/{seed}"}, mean + draw.gauss(0, 0.005), parent)
    run({"optimizer": "fast", "seed": 99}, None, status="FAILED")
    client.create_run(experiment)
    return f"sqlite:///{folder / 'db'}"


@pytest.mark.slow
def test_an_experiment_of_mlflow(mlflow_store: str, tmp_path: Path) -> None:
    table = mlflow_runs.runs(mlflow_store, ["theirs"], ["val_acc"])
    made = make(table, Question(metrics=["val_acc:maximize"]), tmp_path, "theirs", {})
    assert list(made.role.arm) == ["params.optimizer"]
    assert list(made.role.parameters) == ["params.lr"]
    assert {p.n for p in document(made.folder).pairs} == {7}
    said = "\n".join(made.notes)
    assert "parent runs" in said
    assert "1 run failed" in said
    assert "not ended yet" in said
    record = results.ended_trials(made.folder)[0]
    assert len(MetricLog(made.folder.trial(record.trial_id) / "metrics.jsonl").points()) == 3
    with pytest.raises(UnusableError, match=r"no experiment 'other'; available: .*theirs"):
        mlflow_runs.runs(mlflow_store, ["other"])


@pytest.mark.slow
def test_studies_of_optuna(tmp_path: Path) -> None:
    """Each study is a search; its best value was chosen for being the best, which is said."""
    url = f"sqlite:///{tmp_path / 'o.db'}"
    draw, store = random.Random(5), optuna.storages.RDBStorage(url)
    for arm in ("fast", "slow"):
        for number in range(1, 8):
            sampler = optuna.samplers.RandomSampler(seed=number)
            study = optuna.create_study(
                study_name=f"{arm}-{number}", storage=store, direction="maximize", sampler=sampler
            )
            for _ in range(2):
                trial = study.ask()
                rate = trial.suggest_float("lr", 0.01, 1.0, log=True)
                trial.report(0.5, 1)
                study.tell(trial, ARMS[arm] - 0.01 * rate + draw.gauss(0, 0.003))
            study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    table = optuna_runs.runs(url)
    made = make(table, Question(), tmp_path / "runs", "o", {})
    found = document(made.folder)
    assert (found.unit, found.paired, found.pairs[0].counts) == ("study", False, (7, 7))
    assert found.pairs[0].searched == {"fast": 2, "slow": 2}
    assert [n for n in made.notes if "chosen for that value" in n]
    declared = make(table, Question(study="study"), tmp_path / "runs", "o", {})
    assert declared.design.pairing == "declared"
    with pytest.raises(UnusableError, match="no study nothing; available: fast-1"):
        optuna_runs.runs(url, ["nothing"])


@pytest.mark.slow
def test_the_verbs(call: Any, tmp_path: Path) -> None:
    """One command from a file to a verdict; what would train refuses, with a reason."""
    (tmp_path / "r.csv").write_text("\n".join(grid(12)) + "\n")
    done = call("import", "csv", str(tmp_path / "r.csv"), "--metric", "accuracy:maximize")
    assert done.code == 0, done.err
    assert "guessed: arms from column 'optimizer'" in done.err
    shown = call("compare", "@last")
    assert shown.code == 0
    assert shown.out.count("(imported: pairing declared)") == 1
    identity = call("compare", "@last", "--json").document["sweep_id"]
    for words in (["report"], ["best"], ["status"], ["table", "--by", "lr"], ["export", "-o", str(tmp_path / "out")]):
        one = call(*words, "--json")
        assert one.code == 0, one.err
        assert "pairing declared" in json.dumps(one.document["exploratory"])
    page = Path(call("report", "--json").document["report"]).read_text()
    assert "Imported: pairing declared." in page
    assert pq.read_table(tmp_path / "out" / "trials.parquet").num_rows == 24 + 16
    file = str(tmp_path / "runs" / identity / "sweep.yaml")
    for words in (["run", file], ["plan", file], ["validate", file]):
        one = call(*words)
        assert (one.code, "but not run" in one.err.replace("\n", " ")) == (3, True)
    assert call("reconcile", identity).code == 2
    assert call("compare", "@last", "--metric", "loss").code == 4
    again = call("import", "csv", str(tmp_path / "r.csv"), "--metric", "accuracy:maximize")
    assert "imported before" in again.err
    assert len(list((tmp_path / "runs").glob("r-*"))) == 1


@pytest.mark.parametrize("read", [lambda uri: mlflow_runs.runs(uri, ["e"]), optuna_runs.runs])
@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
def test_what_is_not_there_is_not_made(read: Callable[[str], Any], scheme: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="no such file"):
        read(f"{scheme}{tmp_path / 'store'}")
    assert not list(tmp_path.iterdir())


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a\njournal\n")
    for read in (optuna_runs.runs, lambda uri: mlflow_runs.runs(uri, ["e"])):
        with pytest.raises(UnusableError, match=r"notes\.txt: is "):
            read(str(path))
    with pytest.raises(UnusableError, match="is not a readable"):
        optuna_runs.runs(str(tmp_path))


def test_a_folder_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow refuses folders unless it is told otherwise; here they are read only."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(str(tmp_path / "mlruns"))
    run = client.create_run(client.create_experiment("e"))
    client.log_metric(run.info.run_id, "acc", 0.5)
    client.set_terminated(run.info.run_id)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    (found,) = mlflow_runs.runs(str(tmp_path / "mlruns"), ["e"]).runs
    assert found.values["metrics.acc"] == 0.5
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


def test_passwords_are_not_shown() -> None:
    with pytest.raises(UnusableError) as caught:
        optuna_runs.runs("postgresql+psycopg://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_table_of_ours_brings_its_hyperparameters(tmp_path: Path) -> None:
    lines = ["arm,seed,param.rate,accuracy", *(f"{a},{s},0.1,0.{s + 1}" for a in ("a", "b") for s in range(7))]
    assert imported(tmp_path, lines).role.parameters == ["param.rate"]
