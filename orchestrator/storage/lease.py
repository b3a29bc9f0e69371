"""Who may drive a sweep in an object store: the holder of a PostgreSQL advisory lock in the database of the studies.

The lock belongs to the driver's connection: it is released as soon as the process ends, or about 25 s after its machine
is lost (keepalives), with no clock to trust and nothing to clean up. While it is held, a thread keeps the remote side
in sync, forwards stop requests, and updates a heartbeat in the remote file `lock` that shows the sweep is running.

The lock does not work behind a pooler that assigns connections per transaction: connect to the server directly.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.storage.object_store import Far, StoreError
from orchestrator.storage.periodic import periodic

POLL_S, BEAT_S = 1.0, 10.0
FRESH_S = 3 * BEAT_S
"""A heartbeat older than this belongs to a dead driver."""
LOCK, STOP, LAST = "lock", "stop", "outcome.json"
KEEPALIVE = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"


class Taken(Exception):  # noqa: N818
    """Another connection has the lock."""


class Lease:
    """The advisory lock of `name` in the database at `url` (SQLAlchemy's form). Raises Taken, StoreError."""

    def __init__(self, url: str, name: str) -> None:
        scheme, found, rest = url.partition("://")
        if scheme.partition("+")[0] not in ("postgresql", "postgres") or not found:
            raise StoreError(
                "a sweep in an object store keeps its studies and its lock in PostgreSQL; "
                "name it: --storage postgresql+psycopg://USER:PASSWORD@HOST/DATABASE (GEOSWEEP_STORAGE)"
            )
        self._url, self._key = f"postgresql://{rest}", _key(name)
        try:
            self._connect()
        except self._errors() as error:
            raise StoreError(f"the database of the studies does not answer: {str(error).strip()}") from None

    def renew(self) -> bool:
        """False once another driver has the lock. While the database is unavailable nobody else can take it."""
        try:
            self._connection.execute("SELECT 1")
        except self._errors():
            try:
                self._connect()
            except Taken:
                return False
            except self._errors():
                return True
        return True

    def close(self) -> None:
        """Release the lock."""
        self._connection.close()

    def _connect(self) -> None:
        import psycopg

        self._connection: Any = psycopg.connect(self._url, autocommit=True, connect_timeout=10, options=KEEPALIVE)
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key]).fetchone()
        if not (row and row[0]):
            self._connection.close()
            raise Taken

    @staticmethod
    def _errors() -> tuple[type[Exception], ...]:
        try:
            import psycopg
        except ImportError:
            raise StoreError("PostgreSQL needs psycopg: install geosweep[cluster]") from None
        return (psycopg.Error,)


@contextmanager
def driving(far: Far, url: str, owner: str, wanted: Callable[[str], bool], stop: Callable[[], None]) -> Iterator[None]:
    """Hold the lease of the remote folder and keep it in sync; `stop` is called when the sweep is to drain.

    Raises Taken with the holder's description.
    """
    try:
        lease = Lease(url, far.uri)
    except Taken:
        raise Taken(far.text(LOCK)) from None
    try:
        far.remove([STOP])  # meant for an earlier driver; from here on it is meant for this one
        far.write(LOCK, owner)
        far.pull(wanted)
        far.push(n for n in far.changed() if n not in (LOCK, STOP))
        keeper = _Keeper(far, lease, owner, stop)
        try:
            with periodic(POLL_S, keeper.look, name="keeper"):
                yield
        finally:
            if not keeper.lost:  # otherwise the remote side is another driver's
                changed = [n for n in far.changed(deep=True) if n != LOCK]
                far.push(sorted(changed, key=lambda n: n == LAST))
                far.remove([LOCK])
    finally:
        lease.close()


class _Keeper:
    """Renews the lease and the heartbeat, keeps the remote side in sync and forwards stop requests."""

    def __init__(self, far: Far, lease: Lease, owner: str, stop: Callable[[], None]) -> None:
        self._far, self._lease, self._owner, self._stop = far, lease, owner, stop
        self._beat, self._stopping = time.monotonic(), False
        self.lost = False
        """Whether another driver has the lease."""

    def look(self) -> None:
        """One round; while the store is unavailable, the work is left to a later one."""
        with contextlib.suppress(StoreError, FileNotFoundError):
            self._look()

    def _look(self) -> None:
        far = self._far
        if self.lost:
            return
        if not self._lease.renew():
            self.lost = True
            self._stop()
            return
        if not self._stopping and far.exists(STOP, patience_s=0.0):
            self._stop()
        if not self._stopping and (far.folder / STOP).exists():
            far.push([STOP], patience_s=0.0)
            self._stopping = True
        if time.monotonic() - self._beat >= BEAT_S:
            self._beat = time.monotonic()
            far.write(LOCK, self._owner)
            far.push([n for n in far.changed() if n not in (LOCK, LAST)], patience_s=0.0)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
