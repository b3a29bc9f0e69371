"""Order, draws and augmentation: functions of (seed, epoch, row) alone, with the distributions that they claim."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.data import canonical
from trainables.data import augment, chance, columns, decode
from trainables.data.pixels import Pixels
from trainables.data.prefetch import Prefetch


def test_draws_are_uniform_and_uncorrelated() -> None:
    rows = np.arange(40_000)
    for stream in (chance.CROP_X, chance.FLIP):
        draws = chance.uniform(3, stream, 0, rows)
        counts = np.histogram(draws, 16, (0, 1))[0]
        chi2 = ((counts - 2500) ** 2 / 2500).sum()
        assert chi2 < 37.7  # 99.9 % of chi-squared with 15 degrees of freedom
        for other in (
            chance.uniform(4, stream, 0, rows),
            chance.uniform(3, stream, 1, rows),
            chance.uniform(3, chance.NOISE, 0, rows),
            chance.uniform(3, stream, 0, rows + 1),
        ):
            assert abs(np.corrcoef(draws, other)[0, 1]) < 4 / np.sqrt(len(rows))


def test_permutations_are_permutations_and_all_occur() -> None:
    found = {tuple(chance.permutation(3, seed)) for seed in range(100)}
    assert found == set(itertools.permutations(range(3)))


@pytest.mark.parametrize("size", [1, 7, 100, 250])
def test_order_is_the_same_for_any_batch_size(size: int) -> None:
    """The i-th sample of a run is the same however the run is cut into batches."""
    order = chance.Order(100, size)
    parts = [order.batch(5, i) for i in range(-(-500 // size))]
    rows, epochs = (np.concatenate(x)[:500] for x in zip(*parts, strict=True))
    one = [chance.Order(100, 1).batch(5, i) for i in (0, 99, 100, 333)]
    assert [(rows[i], epochs[i]) for i in (0, 99, 100, 333)] == [(r[0], e[0]) for r, e in one]
    for epoch in range(5):
        assert sorted(rows[epochs == epoch]) == list(range(100))
    assert not np.array_equal(rows[:100], rows[100:200])


def test_order_does_not_depend_on_the_order_of_asking() -> None:
    a, b = chance.Order(50, 8), chance.Order(50, 8)
    for i in (90, 3, 40, 7):
        a.batch(1, i)
    assert all(np.array_equal(x, y) for x, y in zip(a.batch(0, 12), b.batch(0, 12), strict=True))


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    place = tmp_path_factory.mktemp("order")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSWEEP_CACHE", str(place / "cache"))
        dataset = canonical.raw_images(place / "set", {"train": 64})
        assert dataset.images
        return Pixels(columns(dataset, "train"), dataset.images, side=8, crop="padded", flip=True)


class TestAugmentation:
    rows, epochs = np.arange(64), np.zeros(64, dtype=np.int64)

    def test_an_image_does_not_depend_on_its_batch(self, pixels: Pixels) -> None:
        whole = pixels.train(self.rows, self.epochs, 9)
        for piece in (slice(0, 1), slice(10, 30), slice(None, None, -1)):
            assert np.array_equal(pixels.train(self.rows[piece], self.epochs[piece], 9), whole[piece])

    def test_it_depends_on_seed_epoch_and_row(self, pixels: Pixels) -> None:
        whole = pixels.train(self.rows, self.epochs, 9)
        assert not np.array_equal(pixels.train(self.rows, self.epochs, 8), whole)
        assert not np.array_equal(pixels.train(self.rows, self.epochs + 1, 9), whole)

    def test_crops_are_shifts_and_all_shifts_occur(self) -> None:
        images = np.arange(1, 1 + 6 * 6, dtype=np.uint8).reshape(1, 1, 6, 6).repeat(400, 0)
        found = augment.crop(images, 2, 0, np.zeros(400, int), np.arange(400))
        padded = np.pad(images[0, 0], 2)
        shifts = {padded[y : y + 6, x : x + 6].tobytes(): (y, x) for y in range(5) for x in range(5)}
        assert {shifts[image.tobytes()] for image in found} == set(shifts.values())
        assert len(shifts) == 25

    def test_half_are_mirrored(self) -> None:
        images = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4).repeat(2000, 0)
        found = augment.flip(images, 0, np.zeros(2000, int), np.arange(2000))
        mirrored = (found == images[..., ::-1]).all((1, 2, 3))
        assert (mirrored | (found == images).all((1, 2, 3))).all()
        assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)

    def test_cutout_is_a_square_cut_at_the_border(self) -> None:
        found = augment.cutout(torch.ones(20_000, 2, 10, 10), 4, 0, np.zeros(20_000, int), np.arange(20_000)) == 0
        assert torch.equal(found[:, 0], found[:, 1])
        heights, widths = found[:, 0].any(2).sum(1), found[:, 0].any(1).sum(1)
        assert torch.equal(found[:, 0].sum((1, 2)), heights * widths)
        assert set(heights.tolist()) == {2, 3, 4}
        for (y, x), share in {(0, 0): 0.3 * 0.3, (0, 5): 0.3 * 0.4, (5, 5): 0.4 * 0.4}.items():
            assert float(found[:, 0, y, x].float().mean()) == pytest.approx(share, abs=4 * 0.4 / np.sqrt(20_000))

    def test_normalised_pixels(self) -> None:
        images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
        mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.1, 0.2, 0.3])
        expected = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
        assert torch.allclose(augment.normalise(images, *augment.scales(mean, std)).double(), expected, atol=1e-5)


@pytest.mark.slow
def test_random_windows_keep_their_promises() -> None:
    areas, ratios = [], []
    for row in range(2000):
        left, top, right, bottom = decode.window(200, 150, 0, 0, row)
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 150
        areas.append((right - left) * (bottom - top) / 30_000)
        ratios.append((right - left) / (bottom - top))
    assert 0.07 < min(areas) < 0.1
    assert max(areas) > 0.9
    assert min(ratios) > 0.74
    assert max(ratios) < 1.35
    assert abs(np.log(ratios).mean()) < 0.05
    assert decode.window(1000, 10, 0, 0, 0) == (493, 0, 506, 10)  # no try fits: the middle, 4/3 of the height


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_changes_nothing(workers: int) -> None:
    made = []

    def make(seed: int, index: int) -> tuple[int, int]:
        made.append(index)
        if index == 20:
            raise RuntimeError("row 20 is bad")
        return seed, index

    ahead = Prefetch(make, workers)
    asked = [(0, 0), (0, 1), (0, 2), (1, 2), (0, 7), (0, 8), (0, 3)]
    assert [ahead.get(*key) for key in asked] == asked
    with pytest.raises(RuntimeError, match="row 20"):
        ahead.get(0, 20)
    assert ahead.get(0, 21) == (0, 21)
    ahead.close()


def test_threads_get_no_work_while_a_ready_batch_goes_to_the_device() -> None:
    """What is read ahead starts after `finish`: sooner, it would hold the interpreter lock."""
    made: list[int] = []

    def make(seed: int, index: int) -> int:
        made.append(index)
        return index

    def finish(batch: int) -> list[int]:
        time.sleep(0.05)
        return list(made)

    ahead = Prefetch(make, 1)
    assert ahead.get(0, 0) == 0
    ahead._ready[0, 1].result()
    assert ahead.finished(finish, 0, 1) == [0, 1]
    assert ahead.get(0, 2) == 2
    ahead.close()


def test_scaled_images_by_any_way_are_the_same_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw image that has to be scaled goes through Pillow; at its own size both ways agree."""
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "cache"))
    dataset = canonical.raw_images(tmp_path / "set", {"train": 6})
    assert dataset.images
    direct = Pixels(columns(dataset, "train"), dataset.images, side=8)
    scaled = Pixels(columns(dataset, "train"), dataset.images, side=8)
    scaled._ready = False
    assert np.array_equal(direct.evaluate(np.arange(6)), scaled.evaluate(np.arange(6)))
    double = Pixels(columns(dataset, "train"), dataset.images, side=16).evaluate(np.arange(6))
    assert double.shape == (6, 3, 16, 16)
    assert abs(double.mean() - direct.evaluate(np.arange(6)).mean()) < 2
