"""Where a trial works: in its folder, or, when that lies in an object store, in a scratch folder that is uploaded.

Order is the guarantee: a checkpoint is uploaded after the log that it covers, under a name that holds its checksum, and
result.json after everything else. Whoever finds a whole checkpoint or a result finds what belongs to it.

Training goes on while a checkpoint is uploaded. One upload is under way at a time and the next checkpoint waits for its
end, so the newest one up there is at most as old as the interval and the time of an upload, or as two uploads.
"""

from __future__ import annotations

import shutil
import socket
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from orchestrator.storage.object_store import Far, StoreError, near
from orchestrator.trial.log_files import is_log

STOP_POLL_S = 2.0
LOG, RESULT = "metrics.jsonl", "result.json"


class NotShared(Exception):  # noqa: N818
    """A machine of the cluster does not see the sweep's folder."""

    @classmethod
    def of(cls, folder: Path, machines: str) -> NotShared:
        """The error of these machines; an exception that travels between processes is made of its message."""
        return cls(
            f"{folder} is not there on {machines}: on a cluster a sweep's folder has to be one that every machine "
            "mounts, or an object store, --root s3://BUCKET/FOLDER"
        )


def newest_checkpoint(folder: str) -> str:
    """The name of the newest checkpoint of the trial in `folder`, empty when there is none or the store is away."""
    if "://" not in folder:
        return max((path.name for path in Path(folder).glob("checkpoint-*.pt")), default="")
    try:
        return max((n for n in Far(folder, near(folder, "work")).names() if n.startswith("checkpoint-")), default="")
    except StoreError:
        return ""


class TrialPlace:
    """The folder of one trial, and its far side if it has one. For a local folder everything here does nothing.

    Raises NotShared when that lies in a sweep's folder that this machine does not have.
    """

    def __init__(self, folder: str, stop_file: str) -> None:
        self.folder = near(folder, "work")
        if "://" not in folder and not self.folder.parent.parent.is_dir():
            raise NotShared.of(self.folder.parent.parent, socket.gethostname())
        self.folder.mkdir(parents=True, exist_ok=True)
        self._far = Far(folder, self.folder) if "://" in folder else None
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._upload: Future[None] | None = None
        self.durable = -1.0
        """Points up to this many gradient evaluations are covered by a checkpoint that outlives this machine."""
        self.upload_s = 0.0
        """How long the last upload of a checkpoint took."""
        self._stop = near(stop_file)
        where, _, self._flag = stop_file.rpartition("/")
        self._sweep = Far(where, self._stop.parent) if self._far else None
        self._asked, self._looked = False, 0.0

    @property
    def is_far(self) -> bool:
        """Whether what is here has to be uploaded to be found."""
        return self._far is not None

    def fetch(self, *, own_log: bool = False) -> None:
        """Bring the scratch folder level with what was uploaded last, from whatever machine.

        `own_log`: a script's checkpoints here may be newer than those uploaded; its log may not fall behind them.
        """
        if self._far is not None:
            ahead = self._ahead(self._far, (LOG,) if own_log else ())
            there = self._far.pull(lambda name: name not in ahead, deep=False)
            for old in (p for kind in ("*.json*", "*.pt", "*.tar") for p in self.folder.glob(kind)):
                if old.name not in there | ahead:
                    old.unlink()

    def _ahead(self, far: Far, also: Sequence[str]) -> set[str]:
        """What a worker that died on this machine printed and did not upload."""
        found = (path for path in self.folder.iterdir() if is_log(path.name) or path.name in also)
        mine = {path.name: path.stat().st_size for path in found}
        sizes = far.sizes() if mine else {}
        return {name for name, size in mine.items() if size > sizes.get(name, 0)}

    def printed(self) -> list[str]:
        """Files of what the trial printed that are not uploaded as they are."""
        found = list[str]()
        for name in filter(is_log, self._far.changed() if self._far is not None else []):
            with suppress(FileNotFoundError):  # a script's, which ends meanwhile
                if (self.folder / name).stat().st_size:
                    found.append(name)
        return found

    def upload_printed(self) -> None:
        """Upload what the trial printed."""
        if self._far is not None:
            self._far.push(self.printed())

    def begun(self) -> None:
        """Let others know that the trial is running."""
        if self._far is not None:
            self._far.push(["trial.json"])

    def logged(self) -> None:
        """The log is about to be read by the driver."""
        self.settle()
        if self._far is not None:
            self._far.push([*self.printed(), LOG])

    def saved(self, covers: float) -> None:
        """Begin to upload the newest checkpoint, of so many gradient evaluations, and the log. None may be under way.

        Until the next `settle` no checkpoint is to be written or removed here.
        """
        if self._far is None:
            self.durable = covers
        else:
            self._upload = self._pool.submit(self._put, self._far, covers)

    def _put(self, far: Far, covers: float) -> None:
        began = time.monotonic()
        kept = sorted(path.name for path in self.folder.glob("checkpoint-*") if path.suffix in (".pt", ".tar"))
        far.push([*self.printed(), LOG, kept[-1]], patience_s=0.0)
        self.durable = covers
        far.remove(n for n in far.names() if n.startswith("checkpoint-") and n not in kept)
        self.upload_s = time.monotonic() - began

    def busy(self) -> bool:
        """Whether an upload is under way."""
        return self._upload is not None and not self._upload.done()

    def settle(self) -> None:
        """Return once no upload is under way; with a warning when the last one failed."""
        upload, self._upload = self._upload, None
        try:
            if upload is not None:
                upload.result()
        except StoreError as error:
            warnings.warn(f"checkpoint not uploaded, training goes on: {error}", stacklevel=2)

    def ended(self) -> None:
        """Upload the log and the result; one that another worker uploaded meanwhile stays."""
        self.settle()
        if self._far is None:
            return
        self.upload_printed()
        if self._far.exists(RESULT):
            self._far.pull(deep=False)
        else:
            self._far.push([LOG, RESULT])
        self._far.remove(n for n in self._far.names() if n.startswith("checkpoint-"))

    def stop_asked(self) -> bool:
        """Whether the sweep is to drain. A far flag is looked at every STOP_POLL_S."""
        if self._stop.exists():
            return True
        if self._sweep is not None and time.monotonic() - self._looked > STOP_POLL_S:
            self._looked = time.monotonic()
            try:
                self._asked = self._sweep.exists(self._flag, patience_s=0.0)
            except StoreError:
                return self._asked
        return self._asked

    def close(self) -> None:
        """Clear the scratch folder of a trial that is over.

        The driver may have stopped it, and cleared the far side, while a checkpoint was on its way there.
        """
        late = self._upload is not None
        self.settle()
        self._pool.shutdown()
        if self._far is None:
            return
        over = (self.folder / RESULT).exists()
        with suppress(StoreError):
            if late and self._far.exists(RESULT, patience_s=0.0):
                over = True
                self._far.remove(n for n in self._far.names() if n.startswith("checkpoint-"))
        if over:
            shutil.rmtree(self.folder, ignore_errors=True)
