"""Data in the formats of others, written byte for byte as the originals are laid out."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def python2_pickle(value: object) -> bytes:
    """A pickle of protocol 2 as Python 2's cPickle wrote it: SHORT_BINSTRING, NumPy's old module names, memo."""
    return _Python2().dump(value)


class _Python2:
    BATCH = 1000

    def __init__(self) -> None:
        self._memo = 0

    def dump(self, value: object) -> bytes:
        return b"\x80\x02" + self._save(value) + b"."

    def _put(self) -> bytes:
        self._memo += 1
        return b"q" + struct.pack("<B", self._memo) if self._memo < 256 else b"r" + struct.pack("<i", self._memo)

    def _save(self, value: object) -> bytes:
        if isinstance(value, dict):
            return b"}" + self._put() + b"(" + b"".join(self._save(k) + self._save(v) for k, v in value.items()) + b"u"
        if isinstance(value, bytes):
            size = b"U" + struct.pack("<B", len(value)) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
            return size + value + self._put()
        if isinstance(value, int):
            return b"K" + struct.pack("<B", value) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            out = b"]" + self._put()
            for first in range(0, len(value), self.BATCH):
                out += b"(" + b"".join(map(self._save, value[first : first + self.BATCH])) + b"e"
            return out
        assert isinstance(value, np.ndarray)
        rows, columns = map(self._save, value.shape)
        start = b"cnumpy.core.multiarray\n_reconstruct\n" + self._put() + b"cnumpy\nndarray\n" + self._put()
        start += b"K\x00\x85" + self._put() + self._save(b"b") + b"\x87" + self._put() + b"R" + self._put()
        dtype = b"cnumpy\ndtype\n" + self._put() + self._save(value.dtype.str[1:].encode())
        dtype += b"K\x00K\x01\x87" + self._put() + b"R" + self._put()
        dtype += b"(K\x03" + self._save(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t" + self._put() + b"b"
        state = b"(K\x01" + rows + columns + b"\x86" + self._put() + dtype + b"\x89"
        return start + state + self._save(value.tobytes()) + b"t" + self._put() + b"b"


def pixels(rows: int, seed: int = 0) -> np.ndarray:
    """Random images as a batch of CIFAR holds them, uint8 [rows, 3072]."""
    return np.random.default_rng(seed).integers(0, 256, (rows, 3072), dtype=np.uint8)


def cifar10_files(rows: int = 6) -> dict[str, bytes]:
    """The files of cifar-10-python.tar.gz with few rows in each batch."""
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    files = {"batches.meta": python2_pickle({b"num_cases_per_batch": 10000, b"label_names": names, b"num_vis": 3072})}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = [(number + i) % 10 for i in range(rows)]
        files[name] = python2_pickle(
            {
                b"batch_label": f"batch {number}".encode(),
                b"labels": labels,
                b"data": pixels(rows, number),
                b"filenames": [b"a_%d.png" % i for i in range(rows)],
            }
        )
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()} | {
        "cifar-10-batches-py/readme.html": b"<html></html>"
    }


def cifar100_files(rows: int = 20) -> dict[str, bytes]:
    """The files of cifar-100-python.tar.gz with few rows in each part."""
    files = {
        "meta": python2_pickle(
            {
                b"fine_label_names": [b"fine_%d" % i for i in range(100)],
                b"coarse_label_names": [b"coarse_%d" % i for i in range(20)],
            }
        )
    }
    for number, name in enumerate(["test", "train"]):
        files[name] = python2_pickle(
            {
                b"filenames": [b"b_%d.png" % i for i in range(rows)],
                b"batch_label": name.encode(),
                b"fine_labels": [i % 100 for i in range(rows)],
                b"coarse_labels": [i % 20 for i in range(rows)],
                b"data": pixels(rows, number),
            }
        )
    return {f"cifar-100-python/{name}": content for name, content in files.items()}


def tar(path: Path, files: dict[str, bytes], *, zipped: bool = False) -> Path:
    """A tar archive of these members in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(buffer.getvalue()) if zipped else buffer.getvalue())
    return path


def image(seed: int, kind: str = "JPEG", size: tuple[int, int] = (12, 10), mode: str = "RGB") -> bytes:
    """A random image file."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values, mode).save(buffer, kind)
    return buffer.getvalue()


def image_folder(root: Path, splits: dict[str, int], classes: tuple[str, ...] = ("ant", "bee", "cow")) -> Path:
    """Class folders with so many JPEG and PNG files in each class."""
    for number, (split, count) in enumerate(splits.items()):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                kind = "PNG" if i % 2 else "JPEG"
                content = image(1000 * number + 100 * label + i, kind, (12 + i, 10))
                (folder / f"{i:03d}.{'png' if i % 2 else 'JPEG'}").write_bytes(content)
    return root
