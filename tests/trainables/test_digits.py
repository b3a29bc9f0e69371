"""The digits task: its split, its label noise, its batches."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import datasets

from trainables import tables
from trainables.tasks.digits import TRAIN, Digits, images_and_labels


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_exactly_the_asked_share_of_training_labels_is_wrong(noise: float) -> None:
    task = Digits(noise=noise)
    truth = images_and_labels()[1][:TRAIN]
    for seed in (0, 1):
        assert int((task._noisy(seed) != truth).sum()) == round(noise * TRAIN)
    if noise:
        assert not torch.equal(task._noisy(0), task._noisy(1))


def test_every_epoch_shows_every_image_once() -> None:
    task = Digits()
    rows = torch.cat([task._rows(0, i) for i in range(2 * TRAIN // 64 + 1)])
    assert sorted(rows[:TRAIN].tolist()) == list(range(TRAIN))
    assert sorted(rows[TRAIN : 2 * TRAIN].tolist()) == list(range(TRAIN))
    assert not torch.equal(rows[:TRAIN], rows[TRAIN : 2 * TRAIN])


def test_batches_do_not_depend_on_the_order_of_asking() -> None:
    a, b = Digits(noise=0.4), Digits(noise=0.4)
    for i in (200, 3, 77, 19, 20):
        a.batch(1, i)
    for x, y in zip(a.batch(0, 40), b.batch(0, 40), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("model", Digits.MODELS)
def test_models_map_images_to_classes(model: str) -> None:
    task = Digits(model=model)
    assert task.model(0)(task.batch(0, 0)[0]).shape == (64, 10)


@pytest.mark.parametrize("values", [{"model": "vgg"}, {"noise": 1.0}, {"noise": -0.1}, {"batch_size": 0}])
def test_bad_parameters_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Digits(**values)


@pytest.mark.parametrize("name", [*tables.FILES, "diabetes"])
def test_tables_are_those_of_scikit_learn(name: str) -> None:
    raw = getattr(datasets, f"load_{name}")()
    x, y = tables.table(name)
    assert np.array_equal(x, raw.data)
    assert np.array_equal(y, raw.target)


@pytest.mark.parametrize("name", list(tables.FILES))
def test_tables_need_no_scikit_learn_to_be_imported(name: str) -> None:
    code = f"import sys; from trainables import tables; tables.table({name!r}); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
