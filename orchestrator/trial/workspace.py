"""Where a trial works: in its folder, or, if that is in an object store, in a scratch folder that is uploaded.

The order of uploads is the guarantee: a checkpoint follows the log that it covers, under a name that contains its
checksum, and result.json follows everything else. Whoever finds a complete checkpoint or a result finds everything that
belongs to it.

Training continues while a checkpoint is uploaded. Only one upload runs at a time and the next checkpoint waits for its
end, so the newest uploaded one is at most as old as the interval plus the time of an upload, or two uploads.
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
        """The error for these machines; an exception passed between processes is rebuilt from its message."""
        return cls(
            f"{folder} does not exist on {machines}: on a cluster, a sweep's folder must be on a file system that "
            "every machine mounts, or in an object store, --root s3://BUCKET/FOLDER"
        )


def newest_checkpoint(folder: str) -> str:
    """The name of the newest checkpoint of the trial in `folder`; empty if there is none or the store is
    unavailable.
    """
    if "://" not in folder:
        return max((path.name for path in Path(folder).glob("checkpoint-*.pt")), default="")
    try:
        return max((n for n in Far(folder, near(folder, "work")).names() if n.startswith("checkpoint-")), default="")
    except StoreError:
        return ""


class TrialPlace:
    """The folder of one trial, and its remote side if it has one. For a local folder everything here is a no-op.

    Raises NotShared if it belongs to a sweep's folder that this machine does not have.
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
        """Points up to this many gradient evaluations are covered by a checkpoint that survives the loss of this
        machine.
        """
        self.upload_s = 0.0
        """How long the last upload of a checkpoint took."""
        self._stop = near(stop_file)
        where, _, self._flag = stop_file.rpartition("/")
        self._sweep = Far(where, self._stop.parent) if self._far else None
        self._asked, self._looked = False, 0.0

    @property
    def is_far(self) -> bool:
        """Whether files must be uploaded to be found."""
        return self._far is not None

    def fetch(self, *, own_log: bool = False) -> None:
        """Update the scratch folder with what was uploaded last, from any machine.

        `own_log`: a script's checkpoints here may be newer than the uploaded ones; its log must not fall behind them.
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
        """Output files of the trial that are not uploaded in their current state."""
        found = list[str]()
        for name in filter(is_log, self._far.changed() if self._far is not None else []):
            with suppress(FileNotFoundError):  # a script that ends meanwhile removes its empty files
                if (self.folder / name).stat().st_size:
                    found.append(name)
        return found

    def upload_printed(self) -> None:
        """Upload the trial's output."""
        if self._far is not None:
            self._far.push(self.printed())

    def begun(self) -> None:
        """Let others know that the trial is running."""
        if self._far is not None:
            self._far.push(["trial.json"])

    def logged(self) -> None:
        """The driver is about to read the log."""
        self.settle()
        if self._far is not None:
            self._far.push([*self.printed(), LOG])

    def saved(self, covers: float) -> None:
        """Start uploading the newest checkpoint, covering `covers` gradient evaluations, and the log. No upload may be
        running.

        Until the next `settle`, no checkpoint may be written or removed here.
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
        """Whether an upload is running."""
        return self._upload is not None and not self._upload.done()

    def settle(self) -> None:
        """Return once no upload is running; with a warning if the last one failed."""
        upload, self._upload = self._upload, None
        try:
            if upload is not None:
                upload.result()
        except StoreError as error:
            warnings.warn(f"checkpoint not uploaded, training continues: {error}", stacklevel=2)

    def ended(self) -> None:
        """Upload the log and the result; one that another worker uploaded meanwhile is kept."""
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
        """Whether the sweep is to drain. A remote flag is checked every STOP_POLL_S."""
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
        """Delete the scratch folder of a trial that is over.

        The driver may have stopped it, and cleared the remote side, while a checkpoint was being uploaded.
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
