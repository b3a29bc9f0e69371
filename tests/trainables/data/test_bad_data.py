"""Bad data: an error that names file, row group and field, from conversion, `check` and the first trial alike."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainables.data import canonical, sources
from trainables.data import DataError, cache, columns, load
from trainables.data.check import check
from trainables.data.convert import convert
from trainables.data.convert.output import describe
from trainables.data.description import DataSet, Split


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "cache"))


def rewritten(dataset: DataSet, change: Callable[[Any], Any], *, group: int = 3) -> DataSet:
    """The data set with its training shard changed, and hashes that fit: somebody wrote it that way."""
    path = dataset.folder / "train-00000.parquet"
    table = change(pq.read_table(path))
    pq.write_table(table, path, row_group_size=group, store_schema=True)
    shard = describe(path, path.name)
    splits = {**dataset.splits, "train": Split(rows=shard.rows, shards=(shard,))}
    dataset.model_copy(update={"splits": splits}).write(dataset.folder)
    return load(dataset.folder)


def replaced(name: str, values: Any) -> Callable[[Any], Any]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


IMAGES = 8 * 8 * 3
BAD_IMAGES = {
    "missing column": (lambda t: t.drop_columns("label"), 0, "label", "no such column; available: image"),
    "wrong width": (
        replaced("image", pa.array([b"x" * 10] * 7, pa.binary(10))), 0, "image", "10 bytes wide.*needs 192"
    ),
    "wrong type": (
        replaced("image", pa.array([b"x"] * 7)), 0, "image", r"is binary; it must be fixed_size_binary\(192\)"
    ),
    "list too short": (
        replaced("image", pa.array([[1] * 192] * 6 + [[1] * 5], pa.list_(pa.uint8()))),
        2, "image", "row 0 has 5 values; it must have 192",
    ),
    "labels as text": (replaced("label", pa.array(["a"] * 7)), 0, "label", "is string; labels are int64"),
    "label too high": (
        replaced("label", pa.array([0, 1, 2, 3, 4, 0, 0])),
        1, "label", r"row 1 is 4; the data set has 4 classes \(0 to 3\)",
    ),
    "label below zero": (replaced("label", pa.array([0, 0, 0, 0, 0, -1, 0])), 1, "label", "row 2 is -1"),
    "null label": (replaced("label", pa.array([0, 0, 0, 0, 0, 0, None])), 2, "label", "row 0 is null"),
    "empty shard": (lambda t: t.slice(0, 0), 0, "image", "the shard is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images(tmp_path: Path, case: str) -> None:
    change, group, field, message = BAD_IMAGES[case]
    dataset = rewritten(canonical.raw_images(tmp_path / "set", {"train": 7}), change)
    with pytest.raises(DataError, match=message) as caught:
        columns(dataset, "train")
    error = caught.value
    assert (Path(error.file).name, error.row_group, error.field) == ("train-00000.parquet", group, field)
    assert not [p for p in cache.folder().iterdir() if p.suffix != ".lock"]
    _, problems = check(dataset.folder, lambda *_: None)
    assert [str(p) for p in problems] == [str(error)]


BAD_TOKENS = {
    "above the vocabulary": (
        pa.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], pa.list_(pa.uint16(), 2)),
        1, "row 1, token 1 is 10; the vocabulary has 10",
    ),
    "below zero": (pa.array([[1, 2], [3, -4]], pa.list_(pa.int32(), 2)), 0, "row 1, token 1 is -4"),
    "other width": (
        pa.array([[1, 2, 3]] * 4, pa.list_(pa.uint16(), 3)), 0, "row 0 has 3 values; it must have 2"
    ),
    "fractions": (
        pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2)), 0, r"is fixed_size_list<.*float.*it must be"
    ),
    "numbers": (pa.array([1, 2, 3]), 0, r"is int64; it must be fixed_size_list<uint16>\[2\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_tokens(tmp_path: Path, case: str) -> None:
    values, group, message = BAD_TOKENS[case]
    dataset = canonical.tokens(tmp_path / "set", {"train": range(10)}, vocabulary=10, block=2)
    dataset = rewritten(dataset, lambda _: pa.table({"tokens": values}))
    with pytest.raises(DataError, match=message) as caught:
        columns(dataset, "train")
    assert (caught.value.row_group, caught.value.field) == (group, "tokens")


class TestTheProof:
    def test_a_changed_byte(self, tmp_path: Path) -> None:
        dataset = canonical.raw_images(tmp_path / "set", {"train": 7})
        path = dataset.folder / "train-00000.parquet"
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-00000\.parquet: sha256: is .* where dataset\.json says"):
            columns(dataset, "train")

    def test_a_truncated_shard(self, tmp_path: Path) -> None:
        dataset = canonical.raw_images(tmp_path / "set", {"train": 7})
        path = dataset.folder / "train-00000.parquet"
        os.truncate(path, 500)
        with pytest.raises(DataError, match="bytes: has 500 bytes"):
            columns(dataset, "train")
        assert len(check(dataset.folder, lambda *_: None)[1]) == 2

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        dataset = canonical.raw_images(tmp_path / "set", {"train": 7})
        (dataset.folder / "train-00000.parquet").unlink()
        with pytest.raises(DataError, match="is missing"):
            columns(dataset, "train")
        assert [p.message for p in check(dataset.folder, lambda *_: None)[1]] == ["is missing; dataset.json lists it"]

    def test_no_parquet(self, tmp_path: Path) -> None:
        dataset = rewritten(canonical.raw_images(tmp_path / "set", {"train": 7}), lambda t: t)
        path = dataset.folder / "train-00000.parquet"
        path.write_bytes(b"x" * path.stat().st_size)
        assert "not a Parquet file" in str(check(dataset.folder, lambda *_: None)[1][1])

    def test_a_stray_shard(self, tmp_path: Path) -> None:
        dataset = canonical.raw_images(tmp_path / "set", {"train": 7})
        (dataset.folder / "train-00001.parquet").touch()
        assert "does not list it" in str(check(dataset.folder, lambda *_: None)[1][0])

    def test_an_image_that_is_cut_short(self, tmp_path: Path) -> None:
        """Its header is whole. Conversion sees it when it is in the sample of the statistics, `check` always."""
        root = sources.image_folder(tmp_path / "src", {"train": 3})
        dataset = convert("imagefolder", root, tmp_path / "set").dataset
        whole = (root / "train/bee/000.JPEG").read_bytes()

        def change(table: Any) -> Any:
            rows = [{**r, "bytes": r["bytes"][:-60]} if r["bytes"] == whole else r for r in table["image"].to_pylist()]
            return table.set_column(0, "image", pa.array(rows, table.schema.field("image").type))

        problems = check(rewritten(dataset, change).folder, lambda *_: None)[1]
        assert [(p.row_group, p.field) for p in problems] == [(1, "image")]
        assert "row 0 cannot be decoded: image file is truncated" in problems[0].message
        (root / "train/bee/000.JPEG").write_bytes(whole[:-60])
        with pytest.raises(DataError, match=r"bee/000\.JPEG: image: cannot be decoded"):
            convert("imagefolder", root, tmp_path / "again")


BAD_DESCRIPTIONS = {
    "no json": ("{", "not JSON"),
    "version": ({"schema_version": 2}, "schema_version: is 2; this version reads 1"),
    "hash": (
        {"splits": {"train": {"rows": 1, "shards": [{"file": "a", "rows": 1, "bytes": 1, "sha256": "x"}]}}},
        "splits.train.shards.0.sha256",
    ),
    "sum": ({"splits": {"train": {"rows": 9, "shards": []}}}, "splits.train.rows: is not the sum"),
    "no train": ({"splits": {}}, "there is no split `train`"),
    "nothing": ({"images": None}, "either `images` or `tokens`"),
    "unknown key": ({"size": 1}, "size"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DESCRIPTIONS)
def test_descriptions(tmp_path: Path, case: str) -> None:
    change, message = BAD_DESCRIPTIONS[case]
    dataset = canonical.raw_images(tmp_path / "set", {"train": 7})
    file = dataset.folder / "dataset.json"
    file.write_text(change if isinstance(change, str) else json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=message) as caught:
        load(dataset.folder)
    assert caught.value.file == str(file)
    assert check(dataset.folder, lambda *_: None)[0] is None


def test_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no dataset\.json.*geosweep data convert"):
        load(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        load(tmp_path / "x")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo broken > broken",)


def cifar(tmp_path: Path, change: Callable[[dict[str, bytes]], None], *, kind: str = "cifar100") -> str:
    files = {k.split("/")[-1]: v for k, v in sources.cifar100_files().items()}
    change(files)
    with pytest.raises(DataError) as caught:
        convert(kind, sources.tar(tmp_path / "a.tar", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(caught.value)


class TestPickles:
    def test_a_forbidden_class_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        found = cifar(tmp_path, lambda f: f.update(train=pickle.dumps({b"data": Evil()})))
        assert "a.tar!train: pickle: this pickle tries to load posix.system" in found
        assert not (tmp_path / "broken").exists()

    @pytest.mark.parametrize("name", ["builtins\neval", "numpy\nload", "numpy.core.multiarray\nscalar", "codecs\nopen"])
    def test_neighbors_of_what_is_allowed(self, tmp_path: Path, name: str) -> None:
        found = cifar(tmp_path, lambda f: f.update(train=b"\x80\x02c" + name.encode() + b"\n."))
        assert name.replace("\n", ".") in found

    def test_a_truncated_one(self, tmp_path: Path) -> None:
        found = cifar(tmp_path, lambda f: f.update(test=f["test"][:5000]))
        assert "a.tar!test: pickle: cannot be unpickled" in found

    def test_no_dictionary(self, tmp_path: Path) -> None:
        assert "holds a list" in cifar(tmp_path, lambda f: f.update(test=pickle.dumps([1])))


def batch(**changes: Any) -> bytes:
    content = {"data": sources.pixels(3), "fine_labels": [0, 1, 2], **changes}
    return pickle.dumps({k.encode(): v for k, v in content.items() if v is not None}, protocol=2)


@pytest.mark.parametrize(
    "content, message",
    [
        (batch(data=None), "train: data: no such key"),
        (batch(data=np.zeros((3, 100), np.uint8)), r"train: data: is uint8 \[3, 100\]; it must be uint8 \[n, 3072\]"),
        (batch(data=np.zeros((3, 3072), np.float32)), "train: data: is float32"),
        (batch(data=[1]), "train: data: is list"),
        (batch(fine_labels=[0, 1]), "train: fine_labels: has 2 labels for 3 images"),
        (batch(fine_labels=[0, 1, 100]), "train: fine_labels: row 2 is 100; there are 100 classes"),
        (batch(fine_labels=[0, 1, "x"]), "train: fine_labels: is not a list of integers"),
    ],
)
def test_batches_of_cifar(tmp_path: Path, content: bytes, message: str) -> None:
    import re

    assert re.search(message, cifar(tmp_path, lambda f: f.update(train=content)))


class TestArchives:
    def test_the_wrong_kind(self, tmp_path: Path) -> None:
        assert "there is no data_batch_1" in cifar(tmp_path, lambda f: None, kind="cifar10")

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
    @pytest.mark.parametrize("zipped", [False, True])
    def test_truncated(self, tmp_path: Path, share: float, zipped: bool) -> None:
        path = sources.tar(tmp_path / "a.tar", sources.cifar100_files(), zipped=zipped)
        content = path.read_bytes()
        path.write_bytes(
            content[: int(len(content) * share)] if zipped else content[: int(len(content.rstrip(b"\0")) * share)]
        )
        with pytest.raises(DataError, match=r"a\.tar"):
            convert("cifar100", path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_truncated_between_two_samples(self, tmp_path: Path) -> None:
        """tarfile itself takes this for the end of the archive."""
        files = {"1.png": sources.image(1, "PNG"), "1.cls": b"0", "2.png": sources.image(2, "PNG"), "2.cls": b"1"}
        path = sources.tar(tmp_path / "train-0.tar", files)
        length = 512 + (len(files["1.png"]) + 511) // 512 * 512 + 512 + 512
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(DataError, match=r"train-0\.tar: is truncated after 1\.cls"):
            convert("webdataset", path, tmp_path / "out")

    def test_no_archive(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"hello"))
        with pytest.raises(DataError, match="truncated or damaged at its first member"):
            convert("cifar10", tmp_path / "a.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    "files, message",
    [
        ({"1.png": None, "1.txt": b"0"}, "train.tar!1: label: there is no cls and no json in this sample"),
        ({"1.cls": b"0"}, "train.tar!1: image: there is no image"),
        ({"1.png": None, "1.cls": b"dog"}, "train.tar!1: label: is 'dog'"),
        ({"1.png": None, "1.json": b"{"}, "train.tar!1: json: is not JSON"),
        ({"1.png": None, "1.json": b'{"label": true}'}, "train.tar!1: label: is True"),
        ({"1.jpg": b"no image", "1.cls": b"0"}, "train.tar!1: image: is not an image"),
    ],
)
def test_samples_of_webdataset(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    whole = {k: sources.image(1, "PNG") if v is None else v for k, v in files.items()}
    with pytest.raises(DataError) as caught:
        convert("webdataset", sources.tar(tmp_path / "train.tar", whole), tmp_path / "out")
    assert message in str(caught.value)


class TestImageFolders:
    def test_validation_images_without_folders(self, tmp_path: Path) -> None:
        root = sources.image_folder(tmp_path / "src", {"train": 2})
        (root / "val").mkdir()
        (root / "val/ILSVRC2012_val_00000001.JPEG").write_bytes(sources.image(1))
        with pytest.raises(DataError, match=r"val_00000001\.JPEG: is in val/ itself; move each image"):
            convert("imagefolder", root, tmp_path / "out")

    def test_a_class_that_is_not_trained(self, tmp_path: Path) -> None:
        root = sources.image_folder(tmp_path / "src", {"train": 2, "val": 1})
        (root / "val/cow").rename(root / "val/yak")
        with pytest.raises(DataError, match="val/yak: label: is not a class of the training images"):
            convert("imagefolder", root, tmp_path / "out")

    def test_a_file_that_is_no_image(self, tmp_path: Path) -> None:
        root = sources.image_folder(tmp_path / "src", {"train": 2})
        (root / "train/ant/000.JPEG").write_bytes(b"<html>")
        with pytest.raises(DataError, match=r"ant/000\.JPEG: image: is not an image"):
            convert("imagefolder", root, tmp_path / "out")

    def test_one_class(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has 1 class folders"):
            convert("imagefolder", sources.image_folder(tmp_path / "src", {"train": 2}, ("a",)), tmp_path / "out")


class TestFlatTokens:
    def convert(self, tmp_path: Path, content: bytes, **options: Any) -> str:
        (tmp_path / "train.bin").write_bytes(content)
        with pytest.raises(DataError) as caught:
            convert(
                "tokens-bin", tmp_path / "train.bin", tmp_path / "out", **{"vocabulary": 100, "block": 4, **options}
            )
        return str(caught.value)

    def test_above_the_vocabulary(self, tmp_path: Path) -> None:
        ids = np.arange(100, 0, -1, dtype=np.uint16)
        assert "train.bin: tokens: token 0 is 100; the vocabulary has 100" in self.convert(tmp_path, ids.tobytes())

    @pytest.mark.parametrize("magic", [20240520, 20240801, 7])
    def test_a_header(self, tmp_path: Path, magic: int) -> None:
        header = np.zeros(256, np.int32)
        header[:3] = magic, 1, 500
        content = header.tobytes() + np.ones(500, np.uint16).tobytes()
        assert "starts with a header" in self.convert(tmp_path, content)

    def test_a_header_of_numpy(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.ones(500, np.uint16))
        assert "starts with a header" in self.convert(tmp_path, (tmp_path / "x.npy").read_bytes())

    def test_half_a_token(self, tmp_path: Path) -> None:
        assert "not a whole number of uint16: truncated" in self.convert(tmp_path, b"123")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        assert "the file is empty" in self.convert(tmp_path, b"")

    def test_less_than_a_block(self, tmp_path: Path) -> None:
        assert "has 2 tokens, less than one block of 4" in self.convert(tmp_path, b"1\x002\x00")

    def test_an_unknown_dtype(self, tmp_path: Path) -> None:
        assert "dtype: is 'int8'; available: uint16" in self.convert(tmp_path, b"1\x002\x00", dtype="int8")


def test_hugging_face_columns(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    path = tmp_path / "src/train.parquet"
    pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), path)
    with pytest.raises(DataError, match="columns: name the image or token column; available: picture, label"):
        convert("hf-parquet", tmp_path / "src", tmp_path / "out")
    with pytest.raises(DataError, match="kind: no such column"):
        convert("hf-parquet", tmp_path / "src", tmp_path / "out", image_column="picture", label_column="kind")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}), path)
    with pytest.raises(DataError, match="row group 0: image: row 0 holds no bytes"):
        convert("hf-parquet", tmp_path / "src", tmp_path / "out")
    pq.write_table(pa.table({"input_ids": [[1, 2]]}), path)
    with pytest.raises(DataError, match="vocabulary: give the size"):
        convert("hf-parquet", tmp_path / "src", tmp_path / "out")
