"""The cache of a node: mapped, one copy for all processes, built once, whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.trainables.data import canonical, sources
from trainables.data import DataError, cache, columns
from trainables.data.convert import convert


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_columns_are_mapped_and_read_only(tmp_path: Path) -> None:
    dataset = canonical.raw_images(tmp_path / "set", {"train": 50, "test": 5})
    columns(dataset, "train")
    cache._mapped.cache_clear()
    before = pa.total_allocated_bytes()
    found = columns(dataset, "train")
    assert pa.total_allocated_bytes() == before
    assert found["image"].shape == (50, 3, 8, 8)
    assert not found["image"].flags.writeable
    assert found.rows == 50


def test_equal_content_is_cached_once_and_changed_content_apart(tmp_path: Path, place: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        columns(canonical.raw_images(tmp_path / name, {"train": 9}, seed=seed), "train")
    assert len([p for p in place.iterdir() if p.is_dir()]) == 2


def test_the_source_is_not_needed_again(tmp_path: Path) -> None:
    dataset = canonical.raw_images(tmp_path / "set", {"train": 9})
    columns(dataset, "train")
    (tmp_path / "set/train-00000.parquet").unlink()
    cache._mapped.cache_clear()
    assert columns(dataset, "train").rows == 9


def test_many_at_once_build_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = canonical.raw_images(tmp_path / "set", {"train": 40, "val": 8})
    written, write = [], cache._write

    def counted(*words: object) -> None:
        written.append(words[1])
        write(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_write", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: columns(dataset, "train")["label"].sum(), range(8)))
    assert len(set(found)) == 1
    assert sorted(written) == ["train", "val"]


@pytest.mark.parametrize("damage", ["cut", "gone", "emptied"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, place: Path, damage: str) -> None:
    dataset = canonical.raw_images(tmp_path / "set", {"train": 40})
    expected = np.array(columns(dataset, "train")["image"])
    file = next(place.glob("*/train.arrow"))
    if damage == "gone":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "emptied" else file.stat().st_size // 2)
    cache._mapped.cache_clear()
    assert np.array_equal(columns(dataset, "train")["image"], expected)


def test_leavings_of_a_killed_build_are_no_cache(tmp_path: Path, place: Path) -> None:
    dataset = canonical.raw_images(tmp_path / "set", {"train": 9})
    dead = place / f".building-{dataset.fingerprint}-v1-99"
    dead.mkdir(parents=True)
    (dead / "train.arrow").write_bytes(b"half")
    assert columns(dataset, "train").rows == 9
    assert not dead.exists()


def test_a_full_disk_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = canonical.raw_images(tmp_path / "set", {"train": 9})
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="GEOSWEEP_CACHE"):
        columns(dataset, "train")


def test_lists_of_numbers_are_read_as_raw_images(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from trainables.data.convert.output import describe
    from trainables.data.description import Split, load

    dataset = canonical.raw_images(tmp_path / "set", {"train": 9})
    expected = np.array(columns(dataset, "train")["image"])
    path = tmp_path / "set/train-00000.parquet"
    labels = pq.read_table(path)["label"].cast(pa.int32())
    images = pa.array(list(expected.reshape(9, -1)), pa.list_(pa.uint8()))
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    shard = describe(path, path.name)
    dataset.model_copy(update={"splits": {"train": Split(rows=9, shards=(shard,))}}).write(tmp_path / "set")
    again = columns(load(tmp_path / "set"), "train")
    assert np.array_equal(again["image"], expected)
    assert again["label"].dtype == np.int64


READ = """
import sys
from pathlib import Path
from trainables.data import columns, load
image = columns(load(Path(sys.argv[1])), "train")["image"]
total = int(image.sum())
def sizes():
    rows = Path("/proc/self/smaps").read_text().split("\\n")
    at = next(i for i, row in enumerate(rows) if row.endswith("train.arrow"))
    return {r.split()[0]: int(r.split()[1]) for r in rows[at + 1 : at + 20] if r.endswith("kB")}
print("mapped", flush=True)
sys.stdin.readline()
found = sizes()
print(total, found["Rss:"], found["Pss:"], found["Private_Dirty:"], flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_processes_share_one_copy(tmp_path: Path) -> None:
    """Each maps all pages; their proportional shares add up to one copy."""
    dataset = canonical.raw_images(tmp_path / "set", {"train": 3000}, shape=(3, 32, 32))
    columns(dataset, "train")
    size_kb = 3000 * 3072 / 1024
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    children = [subprocess.Popen([sys.executable, "-c", READ, str(dataset.folder)], **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for child in children:
        assert child.stdout.readline() == "mapped\n"
    rows = []
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
        rows.append([int(word) for word in child.stdout.readline().split()])
    for child in children:
        child.communicate("\n", timeout=120)
    assert len({row[0] for row in rows}) == 1
    for _, resident, _, dirty in rows:
        assert resident >= size_kb
        assert dirty == 0
    assert sum(share for _, _, share, _ in rows) <= 1.2 * size_kb


def test_encoded_images_keep_their_bounds(tmp_path: Path) -> None:
    root = sources.image_folder(tmp_path / "src", {"train": 5})
    found = columns(convert("imagefolder", root, tmp_path / "out").dataset, "train")
    offsets = found["image_offsets"]
    assert len(offsets) == 16
    assert offsets[-1] == len(found["image"]) == sum(p.stat().st_size for p in root.rglob("*.*"))
