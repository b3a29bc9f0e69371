"""The files that hold what a trial printed: stdout.log and stderr.log; of its further workers stdout-1.log, ...

Whoever writes them opens them for appending. A file that grows beyond LIMIT keeps its head and its tail, and says where
it was cut.
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
"""Bytes of one file; a moment's printing more while the trial is at work."""
STREAMS = {"stdout": 1, "stderr": 2}
"""Name -> file descriptor."""
LAST_LINES, LAST_BYTES = 12, 2000
"""Of each file, what is shown of a failed trial."""
CUT = re.compile(rb"\n?\[geosweep: (\d+) bytes were cut out here\]\n")

LONGEST_MARK = 80


def file_name(stream: str, worker: int = 0) -> str:
    """The file of `stdout` or `stderr`; worker 0 is the trial itself, or its only process."""
    return f"{stream}-{worker}.log" if worker else f"{stream}.log"


def is_log(name: str) -> bool:
    """Whether a file of a trial's folder is one of these."""
    return name.endswith(".log") and name.startswith(tuple(STREAMS))


def goes_on() -> bytes:
    """The line that parts what a trial printed before it was interrupted from what it prints now."""
    return (
        f"[geosweep: the trial goes on here, {time.strftime('%Y-%m-%d %H:%M:%S')}, {socket.gethostname()}]\n".encode()
    )


def bound(path: Path, limit: int = LIMIT) -> None:
    """Cut out the middle of a file that is longer than `limit` bytes, whole lines where there are any.

    Half of the limit stays of the head, a quarter of the tail. It is done in place: whoever has the file open for
    appending goes on writing to its end.
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
        while (grown := os.fstat(file.fileno()).st_size) > size:  # what was printed meanwhile
            file.seek(size)
            more = file.read(grown - size)
            file.seek(end)
            end, size = end + (file.write(more) or 0), grown
        os.ftruncate(file.fileno(), end)


def read(address: str, name: str) -> bytes:
    """A file of the trial kept at `address`, a folder or a URI; empty when there is none. Raises StoreError."""
    if "://" in address:
        return Far(address, near(address, "work")).text(name).encode()
    try:
        with (Path(address) / name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # not while its middle is being cut out
            return file.read()
    except FileNotFoundError:
        return b""


def last_lines(address: str) -> str:
    """What the trial at `address` printed last, on both streams; empty when it printed nothing."""
    found = []
    for stream in STREAMS:
        text = read(address, file_name(stream))[-LAST_BYTES:].decode(errors="replace").rstrip()
        if text:
            found += [f"{stream}, last lines:", *(f"  {line}" for line in text.splitlines()[-LAST_LINES:])]
    return "\n".join(found)


def follow(look: Callable[[], bytes], over: Callable[[], bool], *, every_s: float = 0.5) -> Iterator[bytes]:
    """What a file holds, then what is added to it, until `over`."""
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
    """What `content` has beyond `seen`, of which the middle may have been cut out."""
    if content.startswith(seen):
        return content[len(seen) :]
    end = seen[-128:]
    at = content.rfind(end)
    if at >= 0:
        return content[at + len(end) :]
    cut = CUT.search(content)
    return content[cut.start() :] if cut else content
