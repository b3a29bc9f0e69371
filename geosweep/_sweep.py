"""A sweep in Python: data frames, the comparison, the report."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from geosweep import _html
from geosweep._answers import Comparison, ReportFile
from orchestrator import parquet, results
from orchestrator.compare import answer, sweep_table
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report import publish, tables
from orchestrator.definition.columns import PARAMETER
from orchestrator.definition.states import Stage
from orchestrator.protocol import seal
from orchestrator.storage.folder import SweepFolder

TYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
"""Column types that pandas would otherwise change when a value is missing."""
AGAINST = ("difference", "ratio", "slowdown")
"""Columns of a table with a baseline."""


class Sweep:
    """A sweep under a root, finished or not. Created by `geosweep.run` and `geosweep.load`.

    Everything is read from its folder on access, so a sweep that runs elsewhere can be watched.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder

    @property
    def id(self) -> str:
        """`<name>-<8 digits>`, the hash of its definition."""
        return self._folder.sweep_id

    @property
    def path(self) -> Path:
        """Its folder on this machine."""
        return self._folder.path

    @property
    def state(self) -> str:
        """running, done, stopped, failed, or budget: a limit of the budget ended it."""
        return str(results.status(self._folder).state)

    @property
    def definition(self) -> dict[str, Any]:
        """The resolved sweep file, of which its id is the hash."""
        return dict(self._folder.resolved().definition)

    @property
    def exploratory(self) -> list[str]:
        """Why its results are exploratory; empty for a sweep that kept to what it sealed."""
        return seal.stamps(self._folder)

    def status(self) -> dict[str, Any]:
        """The document of `geosweep status --json`: trials by state, cost, errors."""
        return results.status(self._folder).document()

    @property
    def trials(self) -> pd.DataFrame:
        """One row per ended trial; `docs/results.md` lists the columns. Hyperparameters are `param.NAME`."""
        return _frame(parquet.tables(self._folder)["trials"])

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per value that a trial logged: trial_id, step (gradient evaluations), name, value."""
        return _frame(parquet.tables(self._folder)["metrics"])

    def best(self) -> pd.DataFrame:
        """One row per arm, best first: the mean over its confirm seeds, and its configuration.

        With several studies, `value` is the mean over them, and the configuration is from the study with the best
        search result. Before there are confirm results `stage` is tune: those values are optimistic, since they were
        selected.
        """
        chosen = results.best(self._folder)
        rows = [
            {
                "arm": arm,
                "value": one.value,
                "n": len(one.counted) if one.studies else one.seeds,
                "stage": str(one.stage),
                "trial_id": one.trial_id,
                **({} if one.study is None else {"study": one.study}),
                **{PARAMETER + name: value for name, value in one.parameters.items()},
            }
            for arm, one in chosen.arms.items()
        ]
        columns = ["arm", "value", "n", "stage", "trial_id"]
        rows.sort(key=lambda row: math.inf if row["value"] is None else chosen.goal.loss(row["value"]))
        return pd.DataFrame(rows, columns=columns if not rows else None).convert_dtypes().set_index("arm")

    def compare(self, baseline: str | None = None, *, metric: str = "", margin: float | None = None) -> Comparison:
        """Whether arms differ, over paired studies or confirm seeds, and with what certainty.

        `baseline`: compare every arm with this one, `none` all pairs; default: as the sweep declared. `margin`: smaller
        differences count as none. What was not declared is stamped exploratory. Raises Refused, with the reason, if
        nothing can be compared.
        """
        return Comparison(answer.answer(Evidence(self._folder), metric=metric, baseline=baseline, margin=margin))

    def table(self, by: str, *, baseline: str = "", columns: Sequence[str] = (), metric: str = "") -> pd.DataFrame:
        """One row per value of the hyperparameter `by`: the best configuration with it.

        `baseline`, one of the values, adds differences and slowdowns; `columns` adds final metrics (default: all
        geometry/...). The document of `geosweep table --json` is in `attrs["document"]`. Raises Refused, NotFound.
        """
        found = sweep_table.table(self._folder, by, baseline=baseline, columns=columns, metric=metric)
        rows = []
        for row in found.rows:
            low, high = row.interval or (None, None)
            rows.append(
                {
                    "optimizer": row.optimizer,
                    by: row.value,
                    found.metric: row.mean,
                    "low": low,
                    "high": high,
                    "n": row.n,
                    "stage": str(row.stage),
                    "tried": row.configurations,
                    **({name: getattr(row.against_baseline, name, None) for name in AGAINST} if baseline else {}),
                    **{PARAMETER + name: row.parameters.get(name) for name in found.varied},
                    **row.columns,
                }
            )
        frame = pd.DataFrame(rows)
        frame.attrs["document"] = found.document()
        return frame

    def report(self, to: str | os.PathLike[str] | None = None, *, tracking: bool = True) -> ReportFile:
        """Write one HTML file with the verdict, tables and figures, into `to` or the sweep's report/.

        `tracking`: also log it to the sweep's MLflow run, if it has one.
        """
        place = Path(to) if to is not None else None
        path, trouble = publish.write(Evidence(self._folder), place, tracking=tracking and self._tracked())
        return ReportFile(path=path, trouble=trouble)

    def _tracked(self) -> bool:
        return bool(self._folder.resolved().tracking) or (self._folder.root / "mlflow.db").exists()

    def __repr__(self) -> str:
        status = results.status(self._folder)
        return f"<Sweep {self.id}: {status.state}, {status.total.ended} of {status.total.planned} trials>"

    def _repr_html_(self) -> str:
        status = results.status(self._folder)
        evidence = Evidence(self._folder)
        confirmed = len(evidence.trials) and (evidence.trials["stage"] == Stage.CONFIRM).any()
        rows = tables.arms(evidence) if confirmed else [{"arm": arm, **asdict(n)} for arm, n in status.arms.items()]
        spent = f"{status.grad_evals:,.0f} gradient evaluations, {status.seconds:.0f} s"
        return _html.titled(f"{self.id}: {status.state}", _html.table(rows), [spent], status.exploratory)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=TYPES.get)
    return frame
