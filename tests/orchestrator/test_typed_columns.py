"""Every hyperparameter has a column of its own type, beside the JSON text that holds them all."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import parquet, reconcile, results
from orchestrator.definition.columns import AMOUNTS, FACTS, of_metric
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.typed_column import column
from tests.swept import swept

EARLIER = Path(__file__).with_name("earlier") / "earlier-671cd845"
SWEEP = """
schema_version: 1
name: typed
task: {name: "tests.tasks:Fit"}
metric: {name: loss/val, goal: minimize}
arms:
  slow:
    optimizer: tests.tasks.Slow
    parameters:
      refresh_interval: {values: [5, 10]}
      ema_rate: {values: [0, 0.5]}
      kind: {values: [plain, dense]}
      rank: {values: [1, 2], when: {kind: dense}}
  sgd: {parameters: {nesterov: {values: [true]}, momentum: 0.9, weight_decay: {values: [0.1, 0.0]}}}
parameters: {lr: {distribution: log_uniform_values, min: 0.01, max: 0.1}}
method: {name: random, seed: 1}
budget: {per_trial: 8, trials_per_arm: 6}
seeds: {tune: 1, confirm: 1}
evaluations: 2
"""


@pytest.mark.parametrize(
    ("values", "kind", "shown"),
    [
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([1, None, 3], pa.int64(), [1, None, 3]),
        ([1, 0.5], pa.float64(), [1.0, 0.5]),
        ([2**63, 1], pa.string(), ["9223372036854775808", "1"]),
        ([-(2**63), 2**63 - 1], pa.int64(), [-(2**63), 2**63 - 1]),
        (["svd", None], pa.string(), ["svd", None]),
        (["auto", 0.5, True, 3], pa.string(), ["auto", "0.5", "true", "3"]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([[0.9, 0.99], {"b": 1, "a": "é"}], pa.string(), ["[0.9, 0.99]", '{"a": "é", "b": 1}']),
        ([None, None], pa.string(), [None, None]),
        ([], pa.string(), []),
    ],
)
def test_the_narrowest_type_that_holds_them_all(values: list[Any], kind: pa.DataType, shown: list[Any]) -> None:
    found = column(values)
    assert (found.type, found.to_pylist()) == (kind, shown)


def test_values_that_might_have_been_there_widen_the_type() -> None:
    assert column([1, 2], [0.5]).type == pa.float64()
    assert column([1, 2], ["auto"]).to_pylist() == ["1", "2"]


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))


@given(st.lists(PLAIN | st.lists(PLAIN, max_size=3), max_size=5))
def test_any_values_have_a_column(values: list[Any]) -> None:
    found = column(values)
    assert [cell is None for cell in found.to_pylist()] == [value is None for value in values]
    if found.type != pa.string():
        for cell, value in zip(found.to_pylist(), values, strict=True):
            assert cell == value or (isinstance(value, int) and math.isclose(cell, value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A sweep whose hyperparameters are of every kind, some of them inactive."""
    return swept(SWEEP, tmp_path_factory.mktemp("typed") / "runs")


@pytest.mark.slow
def test_the_columns_of_a_sweep(folder: SweepFolder) -> None:
    table = pq.read_table(folder.results / "trials.parquet")
    assert {f.name: str(f.type) for f in table.schema if f.name.startswith("param.")} == {
        "param.lr": "double",
        "param.refresh_interval": "int64",
        "param.ema_rate": "double",
        "param.kind": "string",
        "param.rank": "int64",
        "param.nesterov": "bool",
        "param.momentum": "double",
        "param.weight_decay": "double",
    }
    for row in table.to_pylist():
        typed = {name.removeprefix("param."): value for name, value in row.items() if name.startswith("param.")}
        assert {name: value for name, value in typed.items() if value is not None} == json.loads(row["parameters"])
    dense = {row["param.kind"]: row["param.rank"] is not None for row in table.to_pylist()}
    assert dense == {"dense": True, "plain": False, None: False}


def test_pandas_needs_no_parsing(folder: SweepFolder) -> None:
    frame = pd.read_parquet(folder.results / "trials.parquet")
    assert pd.api.types.is_float_dtype(frame["param.lr"])
    assert frame["param.lr"].between(0.01, 0.1).all()
    assert set(frame[frame["arm"] == "slow"]["param.kind"]) == {"plain", "dense"}
    best = frame[frame["stage"] == "tune"].groupby("param.kind")["loss/val"].min()
    assert set(best.index) == {"plain", "dense"}
    read = pq.read_table(folder.results / "trials.parquet", filters=[("param.kind", "=", "dense")])
    assert len(read) == (frame["param.kind"] == "dense").sum() > 0


def test_the_types_are_those_of_the_sweep_and_not_of_the_trials_that_ended(folder: SweepFolder) -> None:
    trials = results.ended_trials(folder)
    whole = parquet.trials_table(folder, trials).schema
    for some in ([], trials[:1], trials[-1:]):
        part = parquet.trials_table(folder, some).schema
        assert [f for f in part if f.name.startswith("param.")] == [f for f in whole if f.name.startswith("param.")]


def test_a_metric_takes_no_other_column(folder: SweepFolder) -> None:
    """A script reports what it likes: `seconds` and `seed`, too."""
    given = {"loss/val": 1.0, "param.lr": 9.0, **dict.fromkeys(FACTS | AMOUNTS, 7.0)}
    trials = [replace(t, result=replace(t.result, metrics=given)) for t in results.ended_trials(folder)]
    before, after = (parquet.trials_table(folder, some) for some in (results.ended_trials(folder), trials))
    assert set(parquet.TRIAL_COLUMNS) == (FACTS | AMOUNTS) & set(parquet.TRIAL_COLUMNS)
    for name in before.column_names:
        assert name == "loss/val" or "/" in name or after[name] == before[name]
    for name in given.keys() - {"loss/val"}:
        assert after[f"metric.{name}"].to_pylist() == [given[name]] * len(trials)
    assert of_metric("seconds", frozenset({"seconds"})) == "seconds", "a sweep may tune it"


def test_a_table_of_an_earlier_version_is_brought_up(folder: SweepFolder, tmp_path: Path) -> None:
    here = SweepFolder(tmp_path, folder.sweep_id)
    shutil.copytree(folder.path, here.path)
    path = here.results / "trials.parquet"
    now = pq.read_table(path)
    pq.write_table(now.drop_columns([n for n in now.column_names if n.startswith("param.")]), path)
    said = [line for line in reconcile.tables(here) if line.startswith("table")]
    assert len(said) == 1
    assert "from an earlier version" in said[0]
    assert pq.read_table(path).equals(now)


def test_a_folder_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / EARLIER.name)
    table = parquet.trials_table(find(tmp_path, EARLIER.name))
    assert str(table.schema.field("param.lr").type) == "double"
    assert table["param.lr"].null_count == 0
    stored = pq.read_table(EARLIER / "results" / "trials.parquet")
    assert (
        table.select(stored.column_names)
        .cast(stored.schema)
        .replace_schema_metadata()
        .equals(stored.replace_schema_metadata())
    ), "every column that it had says what it said"
    assert parquet.metrics_table(find(tmp_path, EARLIER.name)).equals(
        pq.read_table(EARLIER / "results" / "metrics.parquet").replace_schema_metadata()
    )
