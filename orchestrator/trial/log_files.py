"""The files with a trial's output: stdout.log and stderr.log; for its additional workers stdout-1.log, ...

Writers open them for appending. A file that grows beyond LIMIT keeps its head and tail, with a marker where it was cut.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.storage.object_store import Far, near

LIMIT = 8 << 20
"""Maximum bytes per file; briefly more while the trial is running."""
STREAMS = {"stdout": 1, "stderr": 2}
"""Name -> file descriptor."""
LAST_LINES, LAST_BYTES = 12, 2000
"""Lines and bytes of each file shown for a failed trial."""
CUT = re.compile(rb"\n?\[geosweep: (\d+) bytes were cut out here\]\n")

LONGEST_MARK = 80


def file_name(stream: str, worker: int = 0) -> str:
    """The file of `stdout` or `stderr`; worker 0 is the trial itself, or its only process."""
    return f"{stream}-{worker}.log" if worker else f"{stream}.log"


def is_log(name: str) -> bool:
    """Whether a file in a trial's folder is one of these."""
    return name.endswith(".log") and name.startswith(tuple(STREAMS))


def goes_on() -> bytes:
    """The line that separates a trial's output before an interruption from its output afterwards."""
    return (
        f"[geosweep: the trial goes on here, {time.strftime('%Y-%m-%d %H:%M:%S')}, {socket.gethostname()}]\n".encode()
    )


def bound(path: Path, limit: int = LIMIT) -> None:
    """Remove the middle of a file that is longer than `limit` bytes, whole lines if possible.

    Half of the limit remains from the head, a quarter from the tail. It is done in place: processes that have the file
    open for appending continue to write at its end.
    """
    if path.stat().st_size <= limit:
        return
    with path.open("r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        head = file.read(limit // 2 + LONGEST_MARK)
        earlier = CUT.search(head)
        if earlier:
            first, rest, before = earlier.start(), earlier.end(), int(earlier[1])
        else:
            first = rest = head.rfind(b"\n", 0, limit // 2) + 1 or limit // 2
            before = 0
        file.seek(size - limit // 4)
        tail = file.read(limit // 4)
        tail = tail[tail.find(b"\n") + 1 :]
        cut = size - len(tail) - rest + before
        content = (b"" if head[:first].endswith(b"\n") else b"\n") + b"[geosweep: %d bytes were cut out here]\n" % cut
        end = file.seek(first) + (file.write(content + tail) or 0)
        while (grown := os.fstat(file.fileno()).st_size) > size:  # output printed meanwhile
            file.seek(size)
            more = file.read(grown - size)
            file.seek(end)
            end, size = end + (file.write(more) or 0), grown
        os.ftruncate(file.fileno(), end)


def read(address: str, name: str) -> bytes:
    """A file of the trial at `address`, a folder or a URI; empty if there is none. Raises StoreError."""
    if "://" in address:
        return Far(address, near(address, "work")).text(name).encode()
    try:
        with (Path(address) / name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # wait while its middle is being removed
            return file.read()
    except FileNotFoundError:
        return b""


def last_lines(address: str) -> str:
    """The last output of the trial at `address`, on both streams; empty if it printed nothing."""
    found = []
    for stream in STREAMS:
        text = read(address, file_name(stream))[-LAST_BYTES:].decode(errors="replace").rstrip()
        if text:
            found += [f"{stream}, last lines:", *(f"  {line}" for line in text.splitlines()[-LAST_LINES:])]
    return "\n".join(found)


def follow(look: Callable[[], bytes], over: Callable[[], bool], *, every_s: float = 0.5) -> Iterator[bytes]:
    """The content of a file, then whatever is appended to it, until `over`."""
    seen = b""
    while True:
        last, content = over(), look()
        if new := _further(seen, content):
            yield new
        seen = content
        if last:
            return
        time.sleep(every_s)


def _further(seen: bytes, content: bytes) -> bytes:
    """The part of `content` beyond `seen`, whose middle may have been removed."""
    if content.startswith(seen):
        return content[len(seen) :]
    end = seen[-128:]
    at = content.rfind(end)
    if at >= 0:
        return content[at + len(end) :]
    cut = CUT.search(content)
    return content[cut.start() :] if cut else content
