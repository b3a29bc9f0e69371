"""Megabytes of the wheels that a lock pins, packed and unpacked: what an image downloads, and what lies in its layer.

    python -m tests.bench.wheel_sizes k8s/docker/torch-cuda.lock

The package index states the first; the second is read from the list of files at the end of each wheel (wheels for
x86-64, Python 3.11). No wheel is downloaded.
"""

from __future__ import annotations

import io
import json
import re
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

JSON = "application/vnd.pypi.simple.v1+json"
FITS = re.compile(r"-(cp311-cp311|cp3\d+-abi3|py[23.]+[a-z0-9.]*-none)-(any|\S*x86_64)\.whl$")


def pins(text: str) -> dict[str, set[str]]:
    """Package -> the hashes of its wheels."""
    return {
        re.split(r"==|\[", block)[0].strip(): set(re.findall(r"sha256:([0-9a-f]{64})", block))
        for block in re.split(r"\n(?=[a-zA-Z])", text)
        if "==" in block
    }


def wheel(name: str, hashes: set[str]) -> dict[str, Any]:
    """The largest of its wheels that fits this machine, as the index describes it."""
    asked = urllib.request.Request(f"https://pypi.org/simple/{name}/", headers={"Accept": JSON})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        files = json.load(answer)["files"]
    mine = [f for f in files if f["hashes"].get("sha256") in hashes and FITS.search(f["filename"])]
    return max(mine, key=lambda f: int(f["size"]))


class Remote(io.RawIOBase):
    """A file behind a URL, of which only the parts that are read are asked for."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        end = self._size if count < 0 else min(self._size, self._at + count)
        if end <= self._at:
            return b""
        asked = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            if answer.status != 206:
                raise OSError(f"{self._url}: no parts of files are given")
            part: bytes = answer.read()
        self._at += len(part)
        return part


def unpacked(found: dict[str, Any]) -> int:
    """Bytes of all files in a wheel."""
    with zipfile.ZipFile(Remote(found["url"], int(found["size"]))) as archive:  # type: ignore[arg-type]
        return sum(info.file_size for info in archive.infolist())


if __name__ == "__main__":
    rows = []
    for name, hashes in pins(Path(sys.argv[1]).read_text()).items():
        found = wheel(name, hashes)
        rows.append((int(found["size"]), unpacked(found), name))
    for packed, whole, name in [
        *sorted(rows, reverse=True),
        (*map(sum, zip(*[r[:2] for r in rows], strict=True)), "all"),
    ]:
        sys.stdout.write(f"{packed / 1e6:9,.1f} {whole / 1e6:9,.1f}  {name}\n")
