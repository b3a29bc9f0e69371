"""Converters on files that are laid out byte for byte as the originals; what comes out is what went in."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.trainables.data import sources
from trainables.data import DataError, columns
from trainables.data.check import check
from trainables.data.convert import convert
from trainables.data.convert.output import Output, replacing, silent


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_cifar10(tmp_path: Path, form: str) -> None:
    files = sources.cifar10_files()
    if form == "archive":
        source = sources.tar(tmp_path / "cifar-10-python.tar.gz", files, zipped=True)
    else:
        source = tmp_path
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
    done = convert("cifar10", source, tmp_path / "out")
    images = done.dataset.images
    assert images is not None
    assert images.classes[3] == "cat"
    train, test = columns(done.dataset, "train"), columns(done.dataset, "test")
    expected = np.concatenate([sources.pixels(6, i) for i in range(5)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(train["image"], expected)
    assert train["label"].tolist() == [(b + i) % 10 for b in range(5) for i in range(6)]
    assert np.array_equal(test["image"], sources.pixels(6, 5).reshape(-1, 3, 32, 32))
    scaled = expected / 255
    assert images.mean == pytest.approx(scaled.mean((0, 2, 3)), abs=1e-6)
    assert images.std == pytest.approx(scaled.std((0, 2, 3)), abs=1e-6)
    kind = pq.read_schema(tmp_path / "out/train-00000.parquet").field("image").type
    assert kind == pa.binary(3072)


def test_cifar100_keeps_the_fine_labels(tmp_path: Path) -> None:
    source = sources.tar(tmp_path / "cifar-100-python.tar.gz", sources.cifar100_files(), zipped=True)
    done = convert("cifar100", source, tmp_path / "out")
    assert columns(done.dataset, "train")["label"].tolist() == list(range(20))
    assert done.dataset.images
    assert done.dataset.images.classes[99] == "fine_99"


def test_pickles_of_python_3_are_read_too(tmp_path: Path) -> None:
    batch = {b"data": sources.pixels(4), b"fine_labels": [0, 1, 2, 3]}
    files = {n: pickle.dumps(batch, protocol=2) for n in ("train", "test")}
    files["meta"] = pickle.dumps({b"fine_label_names": [b"w%d" % i for i in range(100)]}, protocol=4)
    done = convert("cifar100", sources.tar(tmp_path / "a.tar", files), tmp_path / "out")
    assert np.array_equal(columns(done.dataset, "train")["image"].reshape(4, -1), sources.pixels(4))


def test_image_folders_keep_bytes_and_sort_classes(tmp_path: Path) -> None:
    root = sources.image_folder(tmp_path / "src", {"train": 4, "validation": 2})
    (root / "train/.DS_Store").write_bytes(b"x")
    done = convert("imagefolder", root, tmp_path / "out")
    assert done.dataset.images
    assert done.dataset.images.classes == ("ant", "bee", "cow")
    train = columns(done.dataset, "train")
    assert train["label"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    at = train["image_offsets"]
    assert train["image"][at[5] : at[6]].tobytes() == (root / "train/bee/001.png").read_bytes()
    assert set(done.dataset.splits) == {"train", "val"}
    stored = pq.read_table(tmp_path / "out/train-00000.parquet")["image"][5].as_py()
    assert stored["path"] == "train/bee/001.png"


def test_class_folders_alone_are_training_images(tmp_path: Path) -> None:
    root = sources.image_folder(tmp_path / "src", {"": 3})
    assert {k: v.rows for k, v in convert("imagefolder", root, tmp_path / "out").dataset.splits.items()} == {"train": 9}


def test_webdataset(tmp_path: Path) -> None:
    for number, shard in enumerate(["train/s-0000.tar", "train/s-0001.tar.gz", "val-0000.tar"]):
        files: dict[str, bytes] = {}
        for i in range(5):
            key = f"dir.v1/{number}{i}"
            files[f"{key}.jpg"] = sources.image(10 * number + i)
            files |= {f"{key}.cls": b"%d\n" % i} if number else {f"{key}.json": json.dumps({"label": i}).encode()}
        sources.tar(tmp_path / "src" / shard, files, zipped=shard.endswith("gz"))
    done = convert("webdataset", tmp_path / "src", tmp_path / "out")
    train = columns(done.dataset, "train")
    assert train["label"].tolist() == [0, 1, 2, 3, 4] * 2
    at = train["image_offsets"]
    assert train["image"][at[7] : at[8]].tobytes() == sources.image(12)
    assert done.dataset.splits["val"].rows == 5
    assert done.dataset.images
    assert len(done.dataset.images.classes) == 5


def hugging_face(folder: Path, *, rows: int = 6, labels: Any = None) -> Path:
    """Shards as `datasets` exports them: struct{bytes, path} and the features in the metadata."""
    features = {"img": {"_type": "Image"}, "fine_label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        images = pa.array(
            [{"bytes": sources.image(i, "PNG"), "path": None} for i in range(rows)],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
        values = pa.array(labels or [i % 3 for i in range(rows)], pa.int64())
        table = pa.table({"img": images, "fine_label": values}).replace_schema_metadata(metadata)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"data/{name}.parquet", row_group_size=4)
    return folder


@pytest.mark.parametrize("place", ["elsewhere", "in place"])
def test_hugging_face_shards_are_read_where_they_lie(tmp_path: Path, place: str) -> None:
    source = hugging_face(tmp_path / "src")
    before = {p: p.read_bytes() for p in source.rglob("*.parquet")}
    destination = source if place == "in place" else tmp_path / "out"
    done = convert("hf-parquet", source, destination)
    assert {p: p.read_bytes() for p in source.rglob("*.parquet")} == before
    assert not list(destination.glob("*.parquet"))
    train = columns(done.dataset, "train")
    assert train["label"].tolist() == [0, 1, 2, 0, 1, 2] * 2
    at = train["image_offsets"]
    assert train["image"][at[7] : at[8]].tobytes() == sources.image(1, "PNG")
    assert done.dataset.images
    assert done.dataset.images.classes == ("a", "b", "c")
    if place == "in place":
        source.rename(tmp_path / "moved")
        assert (
            tmp_path
            / "moved"
            / json.loads((tmp_path / "moved/dataset.json").read_text())["splits"]["test"]["shards"][0]["file"]
        ).is_file()


def bare(folder: Path, labels: Any, kind: Any = None, *, file: str = "train-0", names: Any = None) -> Path:
    """A shard without the features of `datasets`, or with the names of its classes alone."""
    images = pa.array(
        [{"bytes": sources.image(i, "PNG"), "path": None} for i in range(len(labels))],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    folder.mkdir(exist_ok=True)
    table = pa.table({"image": images, "label": pa.array(labels, kind or pa.int64())})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    pq.write_table(table, folder / f"{file}.parquet")
    return folder


def valid(folder: Path) -> None:
    """What was converted is what `data check` accepts."""
    assert check(folder, silent)[1] == []


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.uint64()], ids=str)
def test_hugging_face_classes_without_names_are_numbers(kind: Any, tmp_path: Path) -> None:
    done = convert("hf-parquet", bare(tmp_path / "src", [0, 2, 1], kind), tmp_path / "out")
    assert done.dataset.images
    assert done.dataset.images.classes == ("0", "1", "2")
    assert done.notes == ()
    valid(tmp_path / "out")


def test_class_numbers_that_no_row_has_are_told(tmp_path: Path) -> None:
    done = convert("hf-parquet", bare(tmp_path / "src", [1, 3, 1]), tmp_path / "out")
    assert done.notes == ("label: no training row has 2 of the 4 class numbers: 0, 2",)


@pytest.mark.parametrize("empty", ["train-0", "train-2", "validation-0"])
def test_shards_without_rows_are_left_out(empty: str, tmp_path: Path) -> None:
    source = bare(tmp_path / "src", [0, 1, 2], file="train-1")
    bare(source, [], pa.null(), file=empty)
    done = convert("hf-parquet", source, tmp_path / "out")
    assert {split: part.rows for split, part in done.dataset.splits.items()} == {"train": 3}
    assert done.notes == (f"left out, without rows: {empty}.parquet",)
    valid(tmp_path / "out")


def test_shards_may_differ_where_training_does_not_look(tmp_path: Path) -> None:
    source = bare(tmp_path / "src", [0, 1], pa.int64())
    bare(source, [1, 0], pa.int32(), file="train-1")
    table = pq.read_table(source / "train-1.parquet").append_column("id", pa.array([7, 8]))
    pq.write_table(table.select(["id", "label", "image"]), source / "train-1.parquet")
    (source / ".train-2.parquet").write_bytes(b"half a download")
    done = convert("hf-parquet", source, tmp_path / "out")
    assert columns(done.dataset, "train")["label"].tolist() == [0, 1, 1, 0]
    valid(tmp_path / "out")


@pytest.mark.parametrize(
    ("labels", "kind", "says"),
    [
        (["cat", "dog"], pa.string(), "is string; labels are class numbers.*class_encode_column"),
        ([[0], [1]], pa.list_(pa.int64()), "labels are class numbers"),
        ([0.0, 1.0], pa.float64(), "is double; labels are class numbers"),
        ([True, False], pa.bool_(), "is bool; labels are class numbers"),
        ([None, None], pa.null(), "is null; labels are class numbers"),
        ([0, None], pa.int64(), "1 of 2 rows have no label"),
        ([0, -1], pa.int64(), "-1 is not a class number"),
        ([0, 2**64 - 1], pa.uint64(), "18446744073709551615 is a label here, which is not a class number"),
        ([0, 0], pa.int64(), "every training row has the label 0"),
        ([], pa.int64(), "its .parquet files have no rows"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels: Any, kind: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        convert("hf-parquet", bare(tmp_path / "src", labels, kind), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [2, "ab", ["a", "a"], [None, "a"]], ids=str)
def test_names_of_classes_that_are_none_are_refused(names: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label: the metadata's ClassLabel feature has"):
        convert("hf-parquet", bare(tmp_path / "src", [0, 1], names=names), tmp_path / "out")


def test_shards_that_name_their_classes_differently_are_refused(tmp_path: Path) -> None:
    source = bare(tmp_path / "src", [0, 1], names=["a", "b"])
    bare(source, [0, 1], file="train-1", names=["b", "a"])
    with pytest.raises(DataError, match=r"train-1.parquet: label: the names of its classes are not those of train-0"):
        convert("hf-parquet", source, tmp_path / "out")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1, -2]], "token 1 is -2; the vocabulary has 10"),
        ([[1], [10]], "token 1 is 10; the vocabulary has 10"),
        ([[1, None]], "value 1 is null"),
        ([[1.0]], "is list<.*double>; it must be a list of integers"),
        (["a b"], "is string; it must be a list of integers"),
        (pa.array([[], []], pa.list_(pa.int32())), "no row holds a token"),
    ],
    ids=str,
)
def test_tokens_that_training_would_refuse_are_refused_before(rows: Any, says: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    pq.write_table(pa.table({"tokens": [[1, 2]]}), tmp_path / "src/train-0.parquet")
    pq.write_table(pa.table({"tokens": rows}), tmp_path / "src/validation-0.parquet")
    with pytest.raises(DataError, match=f"validation-0.parquet: .*tokens: .*{says}"):
        convert("hf-parquet", tmp_path / "src", tmp_path / "out", vocabulary=10)
    assert not (tmp_path / "out").exists()


def test_a_label_that_has_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 is a label here; the training split has 3 classes \(0 to 2\)"):
        convert("hf-parquet", hugging_face(tmp_path / "src", labels=[0, 1, 2, 3, 0, 1]), tmp_path / "out")


def test_hugging_face_tokens(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    ids = pa.array([[1, 2, 3], [4, 5]], pa.list_(pa.int32()))
    pq.write_table(pa.table({"input_ids": ids}), tmp_path / "src/train-0.parquet")
    done = convert("hf-parquet", tmp_path / "src", tmp_path / "out", vocabulary=10)
    assert columns(done.dataset, "train")["tokens"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype, vocabulary", [("uint16", 50257), ("uint32", 100_000)])
def test_flat_tokens_come_back_in_order(tmp_path: Path, dtype: str, vocabulary: int) -> None:
    (tmp_path / "src").mkdir()
    ids = np.random.default_rng(0).integers(0, vocabulary, 1000).astype(dtype)
    ids.tofile(tmp_path / "src/train.bin")
    ids[:64].tofile(tmp_path / "src/val.bin")
    done = convert("tokens-bin", tmp_path / "src", tmp_path / "out", vocabulary=vocabulary, dtype=dtype, block=64)
    train = columns(done.dataset, "train")["tokens"]
    assert train.dtype == ("uint16" if vocabulary < 65536 else "int32")
    assert train.tolist() == ids[:960].tolist()
    assert done.notes == ("train: the last 40 tokens do not fill a block of 64 and were left out",)


def test_text_as_bytes(tmp_path: Path) -> None:
    content = "Größe, ".encode() * 100
    (tmp_path / "a.txt").write_bytes(content)
    done = convert("text", tmp_path / "a.txt", tmp_path / "out", block=16)
    parts = [columns(done.dataset, s)["tokens"].astype(np.uint8).tobytes() for s in ("train", "val")]
    assert content.startswith(parts[0])
    assert len(parts[0]) == 800
    assert content[810:].startswith(parts[1])


def test_text_as_words_loses_nothing(tmp_path: Path) -> None:
    text = b"the cat sat on the mat\n  and the dog_1 sat, too. rare\xc3\xa9\n" * 9
    for name, part in {"wiki.train.tokens": text, "wiki.valid.tokens": b"the cat is unknown here"}.items():
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / name).write_bytes(part)
    done = convert("text", tmp_path / "src", tmp_path / "out", tokenizer="words", vocabulary=266, block=2)
    words = [w.encode("latin-1") for w in json.loads((tmp_path / "out/vocabulary.json").read_text())]
    assert len(words) == 10
    assert words[:2] == [b" sat", b" the"]
    table = [bytes([i]) for i in range(256)] + words
    for split, whole in (("train", text), ("val", b"the cat is unknown here")):
        ids = columns(done.dataset, split)["tokens"]
        assert whole.startswith(b"".join(table[i] for i in ids))
        assert len(ids) < len(whole)


def test_text_without_split_names_is_split_by_path(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / f"src/{i}.txt").write_bytes(b"%03d;" % i * 2)
    done = convert("text", tmp_path / "src", tmp_path / "out", block=8)
    found = {s: set(columns(done.dataset, s)["tokens"].astype(np.uint8).tobytes()[::8]) for s in ("train", "val")}
    rows = {s: part.rows for s, part in done.dataset.splits.items()}
    assert sum(rows.values()) == 60
    assert 1 <= rows["val"] <= 15
    assert found


def test_large_splits_become_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.data.convert.output.SHARD_BYTES", 40 * 3072)
    source = sources.tar(tmp_path / "a.tar", sources.cifar100_files(100))
    monkeypatch.setattr("trainables.data.convert.output.GROUP_ROWS", 25)
    done = convert("cifar100", source, tmp_path / "out")
    assert [s.rows for s in done.dataset.splits["train"].shards] == [50, 50]
    assert np.array_equal(columns(done.dataset, "train")["image"].reshape(100, -1), sources.pixels(100, 1))


class TestWholeOrNotThere:
    def test_nothing_is_left_after_an_error(self, tmp_path: Path) -> None:
        files = sources.cifar100_files()
        del files["cifar-100-python/test"]
        with pytest.raises(DataError, match="there is no test"):
            convert("cifar100", sources.tar(tmp_path / "a.tar", files), tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]

    def test_a_killed_conversion_is_no_data_set_and_is_swept_away(self, tmp_path: Path) -> None:
        dead = tmp_path / ".out.partial-999"
        dead.mkdir()
        (dead / "lock").touch()
        (dead / "train-00000.parquet").write_bytes(b"half")
        source = sources.tar(tmp_path / "a.tar", sources.cifar100_files())
        assert not (tmp_path / "out").exists()
        convert("cifar100", source, tmp_path / "out")
        assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["a.tar", "out"]
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "dataset.json",
            "test-00000.parquet",
            "train-00000.parquet",
        ]

    def test_a_living_one_is_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="on purpose"), replacing(tmp_path / "out") as first:
            other = tmp_path / "out.txt"
            other.write_text("some text " * 500)
            first.folder.rename(tmp_path / ".out.partial-12345")  # as another process would have named it
            convert("text", other, tmp_path / "out", block=4)
            assert (tmp_path / ".out.partial-12345/lock").exists()
            raise RuntimeError("on purpose")
        assert (tmp_path / "out/dataset.json").exists()

    def test_it_appears_at_the_end_alone(self, tmp_path: Path) -> None:
        seen = []

        def look(what: str, done: int, total: int) -> None:
            seen.append((tmp_path / "out").exists())

        convert("imagefolder", sources.image_folder(tmp_path / "src", {"train": 3}), tmp_path / "out", progress=look)
        assert seen
        assert not any(seen)

    def test_a_destination_with_something_in_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/precious").touch()
        source = sources.tar(tmp_path / "a.tar", sources.cifar100_files())
        with pytest.raises(DataError, match="already exists"):
            convert("cifar100", source, tmp_path / "out")

    def test_without_rows_to_train_on_there_is_no_data_set(self, tmp_path: Path) -> None:
        output = Output(tmp_path)
        with pytest.raises(DataError, match="nothing to train on"):
            output.finish("x", None)  # type: ignore[arg-type]


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "src/train" / name).mkdir(parents=True)
        (tmp_path / f"src/train/{name}/1.png").write_bytes(sources.image(1, "PNG", mode="L"))
    done = convert("imagefolder", tmp_path / "src", tmp_path / "out")
    assert done.dataset.images
    assert done.dataset.images.shape == (1, 0, 0)
    pixels = np.asarray(Image.open(io.BytesIO(sources.image(1, "PNG", mode="L"))))
    assert done.dataset.images.mean == pytest.approx([pixels.mean() / 255], abs=1e-6)
