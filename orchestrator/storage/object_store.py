"""A root in an object store: every process works in a local mirror and keeps it in sync with the remote folder.

An object store has no rename, append or lock, but an upload appears completely or not at all. So files are written
locally, exactly as under a local root, and uploaded whole, those that others rely on last:

| who | uploads | downloads |
|---|---|---|
| a trial's worker | at a checkpoint log, then checkpoint; at the end log, then result.json | its folder, first |
| the driver | its own files before the first trial, every few seconds, and at the end, outcome.json last | all, first |
| other verbs | a report | what changed |

The remote side is the source of truth. A file that changed there replaces the local one; one that is unchanged there
since the last pull keeps its local content, which is uploaded. URIs are those of fsspec: s3://bucket/prefix, with the
usual AWS_ variables for keys and endpoint.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.storage.retry import retry

PATIENCE_S = 60.0
"""How long a store may be unavailable before an operation gives up."""
BATCH, SIDE_BY_SIDE = 200, 32
INDEX = ".far.json"
T = TypeVar("T")


class StoreError(ConnectionError):
    """The object store is unreachable or denies access."""


def scratch() -> Path:
    """Where local mirrors are: GEOSWEEP_SCRATCH, or a per-user folder under the system's temporary one."""
    given = os.environ.get("GEOSWEEP_SCRATCH")
    return Path(given).absolute() if given else Path(tempfile.gettempdir()) / f"geosweep-{os.getuid()}"


def own_scratch() -> Path:
    """The scratch folder, created on first use. Raises StoreError if it belongs to somebody else."""
    base = scratch()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        raise StoreError(f"{base} belongs to another user; set GEOSWEEP_SCRATCH to a folder of your own")
    return base


def near(place: str, kind: str = "mirror") -> Path:
    """The local mirror of a URI; a local path, also as file:///FOLDER, is its own mirror. `work` folders belong to a
    worker, never to the driver.
    """
    scheme, found, path = place.partition("://")
    if not found:
        return Path(place)
    if scheme == "file":
        if not path.startswith("/"):
            raise StoreError(f"{place}: has a host, or no folder; write file:///FOLDER, or just the folder")
        return Path(path)
    if ".." in path.split("/") or not path.strip("/"):
        raise StoreError(f"{place} names no folder in a bucket; write s3://BUCKET/FOLDER")
    return own_scratch() / kind / scheme / path.strip("/")


def far(path: Path) -> str:
    """The URI mirrored by `path`; empty for an ordinary folder."""
    mirrors = scratch() / "mirror"
    if not path.is_relative_to(mirrors):
        return ""
    scheme, *rest = path.relative_to(mirrors).parts
    return f"{scheme}://{'/'.join(rest)}"


@functools.lru_cache(maxsize=1024)
def side(uri: str, folder: Path) -> Far:
    """The remote side of `folder`, one per process."""
    return Far(uri, folder)


class Far:
    """The remote side of a local mirror. Names are relative to both, with slashes; hidden files stay local."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri.rstrip("/"), folder
        self._store, self._base = _store(self.uri)
        self._heard: dict[str, float] = {}
        try:
            self._index: dict[str, list[Any]] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            self._index = {}

    def pull(self, wanted: Callable[[str], bool] = bool, *, deep: bool = True) -> set[str]:
        """Synchronize the mirror, without subfolders unless `deep`; returns the names on the remote side."""
        there = {n: i for n, i in self._listing(deep) if wanted(n)}
        new = [n for n, i in there.items() if not self._has(n, i)]
        for start in range(0, len(new), BATCH):
            self.fetch(new[start : start + BATCH], there)
        gone = [n for n in self._index if n not in there and wanted(n) and (deep or "/" not in n)]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
            del self._index[name]
        _place(self.folder / INDEX, json.dumps(self._index).encode())
        return set(there)

    def fetch(self, names: list[str], there: dict[str, Any] | None = None) -> None:
        """Download these files; missing ones are skipped."""
        for name in [n for n in names if _is_checkpoint(n)]:
            self._download(name)
            self._note(name, (there or {}).get(name))
        small = [f"{self._base}/{n}" for n in names if not _is_checkpoint(n)]
        if not small:
            return
        for path, content in self._patiently(lambda: _contents(self._store, small)).items():
            name = path[len(self._base) + 1 :]
            _place(self.folder / name, content)
            self._note(name, (there or {}).get(name))

    def push(self, names: Iterable[str], patience_s: float = PATIENCE_S) -> None:
        """Upload these files whole, in this order; missing ones, also those removed meanwhile, are skipped."""
        for name in names:
            if not self._stamp(name):
                continue
            self._note(name)  # noted first: what is written meanwhile counts as changed
            put = functools.partial(self._store.put_file, str(self.folder / name), f"{self._base}/{name}")
            try:
                self._patiently(put, patience_s)
            except BaseException as error:
                self._index.pop(name, None)
                if isinstance(error, FileNotFoundError) and not (self.folder / name).exists():
                    continue
                raise

    def changed(self, *, deep: bool = False) -> list[str]:
        """Local files that differ from what was last pulled or pushed.

        Other processes may write and remove files meanwhile: an empty script log is removed when the script ends.
        """
        found = list[Path]()
        for where, folders, files in os.walk(self.folder):
            found += [Path(where, name) for name in files if not name.startswith(".")]
            if not deep:
                folders.clear()
        names = [path.relative_to(self.folder).as_posix() for path in sorted(found)]
        return [name for name in names if self._stamp(name) not in ([], self._index.get(name, [])[1:])]

    def remove(self, names: Iterable[str]) -> None:
        """Delete these files on the remote side; missing ones are ignored."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._patiently(functools.partial(self._store.rm_file, f"{self._base}/{name}"))

    def clear(self) -> None:
        """Delete everything on the remote side."""
        self.remove(sorted((name for name, _ in self._listing(deep=True)), key=lambda n: n == "resolved.json"))
        self._index.clear()

    def begin_as(self, other: Far) -> None:
        """Copy the log, then the newest checkpoint, from another trial's remote side to this one, unless it has one."""
        kept = max((n for n in other.names() if _is_checkpoint(n)), default="")
        if kept and not any(_is_checkpoint(n) for n in self.names()):
            for name in ("metrics.jsonl", kept):
                copy = functools.partial(self._store.cp_file, f"{other._base}/{name}", f"{self._base}/{name}")
                self._patiently(copy)

    def names(self) -> list[str]:
        """The remote files, without those in subfolders."""
        return [name for name, _ in self._listing(deep=False)]

    def sizes(self) -> dict[str, int]:
        """Remote file -> bytes, without those in subfolders."""
        return {name: int(info["size"]) for name, info in self._listing(deep=False)}

    def folders(self) -> list[str]:
        """The subfolders on the remote side, one level."""
        listed = self._patiently(lambda: _entries(self._store, self._base))
        return sorted(i["name"].rstrip("/").rpartition("/")[2] for i in listed if i["type"] == "directory")

    def text(self, name: str) -> str:
        """The text of a remote file; empty if there is none."""
        try:
            content: bytes = self._patiently(lambda: self._store.cat_file(f"{self._base}/{name}"))
        except FileNotFoundError:
            return ""
        return content.decode(errors="replace")

    def write(self, name: str, text: str) -> None:
        """Write a remote file that has no local copy."""
        self._patiently(lambda: self._store.pipe_file(f"{self._base}/{name}", text.encode()))

    def exists(self, name: str, patience_s: float = PATIENCE_S) -> bool:
        """Whether the remote file exists."""
        return bool(self._patiently(lambda: self._store.exists(f"{self._base}/{name}"), patience_s))

    def age(self, name: str) -> float | None:
        """Seconds since a remote file was written, by this machine's clock; None if there is none."""
        try:
            written: datetime = self._patiently(lambda: self._store.modified(f"{self._base}/{name}"))
        except FileNotFoundError:
            return None
        return (datetime.now(UTC) - written).total_seconds()

    def hear(self, trial_id: str, durable: float, *, new: bool) -> None:
        """Fetch what a trial uploaded before it reported: at its end and at a rung (`new`), and after a checkpoint."""
        if new or durable > self._heard.get(trial_id, -1.0):
            self._heard[trial_id] = durable
            self.fetch([f"trials/{trial_id}/{name}" for name in ("trial.json", "metrics.jsonl", "result.json")])

    def _listing(self, deep: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        if deep:
            listed = list(self._patiently(lambda: self._store.find(self._base, detail=True)).values())
        else:
            listed = [i for i in self._patiently(lambda: _entries(self._store, self._base)) if i["type"] == "file"]
        for info in listed:
            yield info["name"][len(self._base) + 1 :], info

    def _has(self, name: str, info: dict[str, Any]) -> bool:
        path = self.folder / name
        if not path.exists():
            return False
        if _is_checkpoint(name):  # its name identifies its content
            return bool(path.stat().st_size == info["size"])
        return bool(self._index.get(name, [""])[0] == _token(info))

    def _note(self, name: str, info: dict[str, Any] | None = None) -> None:
        """Record the state of both sides of a file, now that they are in sync."""
        self._index[name] = [_token(info) if info else "", *self._stamp(name)]

    def _stamp(self, name: str) -> list[int]:
        """What changes whenever the near file does; empty when there is none."""
        try:
            status = (self.folder / name).stat()
        except FileNotFoundError:
            return []
        return [status.st_mtime_ns, status.st_size] if stat.S_ISREG(status.st_mode) else []

    def _download(self, name: str) -> None:
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        self._patiently(lambda: self._store.get_file(f"{self._base}/{name}", str(temporary)))
        temporary.replace(path)

    def _patiently(self, act: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
        """Call `act`, retried while the store is unavailable. Raises StoreError; passes on FileNotFoundError."""
        try:
            return retry(act, _is_away, patience_s=patience_s, first_s=0.5, longest_s=8.0)
        except FileNotFoundError as error:
            if "specified bucket" in str(error):
                raise StoreError(f"{self.uri}: {error}; create the bucket first") from error
            raise
        except Exception as error:
            way_out = "check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL_S3" if self.uri.startswith("s3:") else ""
            raise StoreError(f"{self.uri}: {type(error).__name__}: {error}; {way_out}".rstrip("; ")) from error


def probe(uri: str) -> str:
    """Write, read and remove a file at `uri`. For `geosweep doctor`."""
    there, name = side(uri, near(uri)), f"probe-{os.getpid()}"
    there.write(name, "geosweep")
    said = there.text(name)
    there.remove([name])
    return f"{uri} stored a file and returned {said!r}"


def _store(uri: str) -> tuple[Any, str]:
    """The file system (fsspec) of the URI, without listing caches, and the path in it."""
    import fsspec

    scheme, options = uri.partition("://")[0], dict[str, Any]()
    if scheme == "s3":  # with the endpoint, since fsspec caches one file system for equal options
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options = {"config_kwargs": {"connect_timeout": 10}, "endpoint_url": endpoint}
    try:
        store = fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except (ImportError, ValueError) as error:
        raise StoreError(f"{uri}: {error}; for s3:// install geosweep[cluster]") from None
    return store, str(store._strip_protocol(uri)).rstrip("/")


def _is_away(error: Exception) -> bool:
    """Whether the store may answer later: not if a file is missing or access is denied."""
    return not (isinstance(error, FileNotFoundError | PermissionError) or "Credentials" in type(error).__name__)


def _entries(store: Any, path: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = store.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return found


def _contents(store: Any, paths: list[str]) -> dict[str, bytes]:
    """The contents of the files that exist, fetched concurrently."""

    def read(path: str) -> bytes | None:
        try:
            content: bytes = store.cat_file(path)
        except FileNotFoundError:
            return None
        return content

    with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(paths))) as pool:
        found = zip(paths, pool.map(read, paths), strict=True)
        return {path: content for path, content in found if content is not None}


def _token(info: dict[str, Any]) -> str:
    """A token that changes whenever the remote file does."""
    return str(info.get("ETag") or f"{info['size']} {info.get('LastModified') or info.get('mtime')}")


def _is_checkpoint(name: str) -> bool:
    return name.endswith((".pt", ".tar"))


def _place(path: Path, content: bytes) -> None:
    """Write a local file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(content)
    temporary.replace(path)
