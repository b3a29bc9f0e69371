"""Where studies are kept: a journal file in the sweep's folder, or a database."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import LOCK_FILE_SUFFIX

from orchestrator.definition.errors import UsageError
from orchestrator.search.away import START_S, first_line, is_away, patiently
from orchestrator.storage.documents import reading
from orchestrator.storage.errors import Unreachable

NAMED = "name one as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE (pip install 'geosweep[cluster]')"


def storage(journal: Path, url: str | None = None) -> BaseStorage:
    """The storage of a sweep: its journal file, or the database at `url`. The caller holds the sweep.

    Raises Damaged; Unreachable when the database does not answer for START_S seconds; UsageError for a URL of none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not url:
            _repair(journal)
            with reading(journal):
                return JournalStorage(JournalFileBackend(str(journal)))
        from sqlalchemy.exc import ArgumentError  # not for a journal

        try:
            return patiently(lambda: RDBStorage(url, engine_kwargs={"pool_pre_ping": True}), START_S)
        except ImportError as error:  # of the driver that SQLAlchemy needs for it
            kind = url.partition(":")[0]
            raise UsageError(f"--storage: nothing installed here reads a database at {kind}://; {NAMED}") from error
        except ArgumentError as error:
            raise UsageError(f"--storage: is not the URL of a database; {NAMED}") from error
        except Exception as error:
            if not is_away(error):
                raise
            raise Unreachable(f"the database of the studies does not answer ({first_line(error)})") from error


def delete_studies(url: str, sweep_id: str) -> int:
    """Delete the studies of a sweep from the database at `url`; returns how many there were."""
    kept = storage(Path(), url)
    names = [s.study_name for s in patiently(lambda: optuna.get_all_study_summaries(kept, include_best_trial=False))]
    mine = [name for name in names if name.startswith(f"{sweep_id}/")]
    for name in mine:
        patiently(functools.partial(optuna.delete_study, study_name=name, storage=kept))
    return len(mine)


def _repair(journal: Path) -> None:
    """Truncate a line half written to a full disk, and remove the lock of a killed driver.

    Optuna would wait half a minute for the lock, and append to the half line, which makes the journal unreadable.
    """
    if not journal.exists():
        return
    journal.with_name(journal.name + LOCK_FILE_SUFFIX).unlink(missing_ok=True)
    with journal.open("r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
