"""The studies in a real PostgreSQL that is killed and started again in the middle of a sweep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.search.optuna_storage import storage
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.sweep_files import sweep_text
from tests.services import Postgres, postgres_server

pytestmark = pytest.mark.slow


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.mark.long  # at any call, without a server: test_lost_answers.py
def test_a_database_that_dies_and_comes_back_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    text = sweep_text(method="tpe", trials=4, confirm=1, per_trial=8)
    definition = sweep_file.loads(text, "test.yaml")
    found = {}
    for name, url in (("journal", None), ("postgres", postgres.url)):
        folder = runner.open_folder(definition, text, tmp_path / name, {})

        class Restarting(DebugExecutor):
            """Kills the server after the fifth trial; it is back a second later, while the driver waits for it."""

            def run(self, conductor: Any) -> None:
                told = 0
                on_report = conductor.on_report

                def hearing(report: Any) -> bool:
                    nonlocal told
                    told += report.done
                    if told == 5 and report.done:
                        postgres.kill()
                        threading.Thread(target=lambda: (time.sleep(1.0), postgres.start())).start()
                    return bool(on_report(report))

                conductor.on_report = hearing
                super().run(conductor)

        executor = Restarting() if url else DebugExecutor()
        with folder.hold():
            assert runner.run(definition, folder, executor, NoTracker(), storage_url=url).state == "done"
        kept = storage(folder.journal, url)
        studies = [optuna.load_study(study_name=f"{folder.sweep_id}/{arm}", storage=kept) for arm in ("sgd", "adamw")]
        found[name] = [[(t.state.name, t.params, t.value) for t in s.trials] for s in studies]
        assert len(results.ended_trials(folder)) == 10
        assert folder.journal.exists() == (url is None)
    assert found["journal"] == found["postgres"]
