"""The task `images`: splits, label noise, recipes, pairing, the same batches whoever prepares them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import optim_core
import trainables
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from tests.contracts import task_contract
from tests.trainables.data import canonical, sources
from trainables import checkpoint
from trainables.data import columns
from trainables.data.convert import convert
from trainables.loop import Training
from trainables.models.catalogue import IMAGES, Inputs
from trainables.presets import PRESETS
from trainables.tasks.images import Images

PUBLISHED = {
    ("resnet18", 100, 32): 11_220_132,
    ("resnet18", 1000, 224): 11_689_512,
    ("wrn28_10", 10, 32): 36_479_194,
    ("vgg16_bn", 10, 32): 14_728_266,
    ("resnet50", 1000, 224): 25_557_032,
    ("vit_s", 1000, 224): 22_050_664 - 2 * 384,  # published with a class token and its place; here the mean is pooled
    ("vit_ti", 1000, 224): 5_717_416 - 2 * 192,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSWEEP_CACHE", str(folder / "cache"))
        canonical.raw_images(folder / "raw", {"train": 300, "test": 40}, shape=(1, 8, 8))
        canonical.raw_images(folder / "split", {"train": 64, "val": 16})
        convert("imagefolder", sources.image_folder(folder / "src", {"train": 6, "val": 2}), folder / "encoded")
        yield folder


def build(place: Path, name: str = "raw", **values: Any) -> Images:
    return Images(**{"data": str(place / name), "batch_size": 16, "model": "resnet18", **values})


class Light(Images):
    """With a model that trains in no time."""

    def model(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))


@pytest.mark.parametrize("case", PUBLISHED, ids=str)
def test_models_have_the_published_size(case: tuple[str, int, int]) -> None:
    name, classes, side = case
    with torch.device("meta"):
        model = IMAGES[name](Inputs(classes=classes, channels=3, side=side))
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[case]


@pytest.mark.slow
@pytest.mark.parametrize("name, side", [("resnet18", 32), ("resnet50", 96), ("vgg16_bn", 32), ("vit_ti", 32)])
def test_models_map_images_to_classes(name: str, side: int) -> None:
    model = IMAGES[name](Inputs(classes=7, channels=3, side=side))
    assert model(torch.randn(2, 3, side, side)).shape == (2, 7)


def test_wide_network_maps_images_to_classes() -> None:
    from trainables.models.deep_resnet import WideResNet

    assert WideResNet(7, 3, depth=10, factor=1)(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name, noise", [("raw", 0.3), ("split", 0.0), ("encoded", 0.0)])
def test_contract(place: Path, name: str, noise: float) -> None:
    task_contract.check(lambda: build(place, name, noise=noise, size=8, workers=1), without_test=name != "raw")


class TestSplits:
    def test_a_missing_validation_split_is_held_out_and_never_trained_on(self, place: Path) -> None:
        task = build(place, held_out=0.2)
        seen = np.concatenate([task._where(0, i)[0] for i in range(30)])
        assert sorted(set(seen)) == task._rows.tolist()
        assert len(task._held) == 60
        assert not set(seen) & set(task._held)
        assert np.array_equal(task._held, build(place, held_out=0.2, batch_size=8)._held)

    def test_metrics_are_those_that_the_data_allow(self, place: Path) -> None:
        assert set(build(place).METRICS) == {"accuracy/val", "accuracy/test", "loss/val", "loss/test"}
        assert set(build(place, "split").METRICS) == {"accuracy/val", "loss/val"}

    def test_evaluation_sees_each_image_once_as_it_is(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trainables.tasks.images.EVALUATION_BATCH", 7)
        task = build(place, crop="padded", cutout=4)
        images = torch.cat([x for x, _ in task._evaluation("test")])
        raw = columns(task._set, "test")["image"]
        assert torch.allclose(images, torch.from_numpy((raw / 255 - 0.4) / 0.2).float(), atol=1e-5)

        class Oracle(torch.nn.Module):
            """Knows that brightness tells the class."""

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                level = ((x * 0.2 + 0.4) * 255).mean((1, 2, 3)) - 31.5
                return -((level[:, None] - 48 * torch.arange(4)) ** 2) / 100

        found = task.evaluate(Oracle())
        assert found["accuracy/test"] == found["accuracy/val"] == 1
        assert found["loss/test"] < 1e-3


def test_exactly_the_asked_share_of_labels_is_wrong(place: Path) -> None:
    task = build(place, noise=0.4)
    truth = columns(task._set, "train")["label"]
    for seed in (0, 1):
        wrong = np.flatnonzero(task._noisy(seed) != truth)
        assert len(wrong) == round(0.4 * len(task._rows))
        assert set(wrong) <= set(task._rows)
    assert not np.array_equal(task._noisy(0), task._noisy(1))


def test_refresh_batches_have_the_noisy_labels_of_the_seed(place: Path) -> None:
    task = build(place, noise=0.5, crop="none", flip=False)
    raw = {image.tobytes(): row for row, image in enumerate(columns(task._set, "train")["image"])}
    images, labels = task.refresh_batch(3, 0)
    back = ((images * 0.2 + 0.4) * 255).round().to(torch.uint8).numpy()
    rows = [raw[image.tobytes()] for image in back]
    assert labels.tolist() == task._noisy(3)[rows].tolist()
    assert rows != task._where(3, 0)[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, values", [("raw", {"cutout": 3, "noise": 0.2}), ("encoded", {"crop": "resized", "size": 8})]
)
def test_batches_are_the_same_for_any_number_of_workers(place: Path, name: str, values: dict[str, Any]) -> None:
    tasks = [build(place, name, workers=w, **values) for w in (0, 1, 4)]
    for index in (0, 1, 2, 30, 3):
        batches = [task.batch(1, index) for task in tasks]
        for other in batches[1:]:
            assert all(torch.equal(x, y) for x, y in zip(batches[0], other, strict=True))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(place: Path, preset: str) -> None:
    base = PRESETS[preset]
    if base.batch_size > 300:
        with pytest.raises(ValueError, match="batch_size is 1024"):
            Images(data=str(place / "raw"), preset=preset)
        return
    task = Images(data=str(place / "raw"), preset=preset, cutout=min(base.cutout, 8), held_out=0.1)
    images, labels = task.batch(0, 0)
    assert len(images) == len(labels) == base.batch_size
    assert task.recipe() == base.training
    assert task.recipe(warmup=0.5).schedule == base.training.schedule
    assert Images(data=str(place / "raw"), preset=preset, batch_size=9, cutout=0).batch(0, 0)[0].shape[0] == 9


def test_label_smoothing_is_in_training_alone(place: Path) -> None:
    task = build(place, label_smoothing=0.1)
    logits, labels = torch.tensor([[40.0, 0.0, 0.0, 0.0]]), torch.tensor([0])
    assert float(task.loss(logits, labels)) == pytest.approx(0.1 * 3 / 4 * 40)
    assert float(build(place, label_smoothing=0.0).loss(logits, labels)) == pytest.approx(0)


@pytest.mark.slow
def test_training_learns_and_resumes_bit_for_bit(place: Path, tmp_path: Path) -> None:
    def start(workers: int) -> Training:
        task = Light(data=str(place / "raw"), batch_size=16, workers=workers, preset="cifar", cutout=2)
        return Training(task, lambda m, loss, r: optim_core.build("sgd", m, lr=0.1), budget=60, seed=2, evaluations=3)

    whole = start(0)
    points = [whole.advance() for _ in range(3)]
    assert points[-1] is not None
    assert points[-1].metrics["accuracy/test"] > 0.45  # chance is 0.25
    half = start(3)
    half.advance()
    left = iter(range(7))
    assert half.advance(lambda: next(left) == 6) is None  # within an epoch, between two evaluations
    checkpoint.save(half.state(), tmp_path)
    again = start(1)
    again.load(checkpoint.newest(tmp_path) or {})
    last = [again.advance() for _ in range(2)][-1]
    assert last is not None
    assert last.metrics["loss/test"] == points[-1].metrics["loss/test"]
    for a, b in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_equal_data_are_told_by_the_digest(place: Path, tmp_path: Path) -> None:
    other = canonical.raw_images(tmp_path / "other", {"train": 300, "test": 40}, shape=(1, 8, 8), seed=1)
    assert build(place).facts() != Images(data=str(other.folder)).facts()
    assert (
        build(place).batch_identity(0, 0)[:32]
        != Images(data=str(other.folder), batch_size=16).batch_identity(0, 0)[:32]
    )


BAD = [
    ({"model": "vgg"}, "model"),
    ({"preset": "x"}, "preset"),
    ({"batch_size": 0}, "batch_size"),
    ({"batch_size": 301}, "batch_size"),
    ({"crop": "x"}, "crop"),
    ({"cutout": 9}, "cutout"),
    ({"label_smoothing": 1.0}, "label_smoothing"),
    ({"noise": 1.0}, "noise"),
    ({"held_out": 0.0}, "held_out"),
    ({"held_out": 0.99}, "held_out"),
    ({"size": 0}, "size"),
    ({"workers": -1}, "workers"),
    ({"device": "gpu"}, "device"),
    ({"data": "nowhere"}, "data is 'nowhere': nowhere: not a data set: there is no such folder"),
    ({"model": "vit_s", "size": 30}, "patch"),
]


@pytest.mark.parametrize("values, message", BAD, ids=str)
def test_bad_parameters_are_refused(place: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(place, **values)


def test_a_gpu_that_is_not_there_is_said_when_training_starts(place: Path) -> None:
    if torch.cuda.is_available():
        assert next(build(place, device="cuda").model(0).parameters()).is_cuda  # type: ignore[union-attr]
        return
    task = build(place, device="cuda")
    with pytest.raises(RuntimeError, match="sees no GPU"):
        task.model(0)


def test_relative_paths_are_looked_up_below_the_data_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSWEEP_DATA", str(place))
    assert Images(data="raw").facts() == build(place).facts()


def test_wanted_loss_at_the_start(place: Path) -> None:
    """A fresh network knows nothing: about log(classes)."""
    task = build(place, model="vit_ti")
    images, labels = task.batch(0, 0)
    with torch.no_grad():
        loss = task.loss(task.model(0)(images), labels)  # type: ignore[operator]
    assert float(loss) == pytest.approx(math.log(4), abs=0.7)


def test_tasks_are_registered() -> None:
    assert {"images", "tokens"} <= set(trainables.names())


SWEEPS = sorted((Path(__file__).parents[2] / "sweeps/own_data").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_sweeps_on_own_data_are_valid_once_the_data_are_there(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSWEEP_DATA", str(tmp_path))
    with pytest.raises(SpecError, match="data"):
        sweep_file.load(path)
    canonical.raw_images(tmp_path / "cifar100", {"train": 300, "test": 9}, shape=(3, 32, 32))
    canonical.raw_images(tmp_path / "imagenet", {"train": 1200, "val": 9}, shape=(3, 16, 16))
    ids = {"train": np.arange(9000), "val": np.arange(3000)}
    canonical.tokens(tmp_path / "openwebtext", ids, vocabulary=50257, block=1000)
    assert sweep_file.load(path).name == path.stem.replace("_", "-")
