"""The task `tokens`: windows, epochs, masks, flat files, sizes of GPT-2."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import optim_core
from tests.contracts import task_contract
from tests.trainables.data import canonical
from trainables.data import DataError
from trainables.loop import Training
from trainables.models.catalogue import GPT_SIZES, gpt
from trainables.tasks.tokens import Tokens

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
}
TRAIN = np.arange(400) % 37


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSWEEP_CACHE", str(folder / "cache"))
        ids = {"train": TRAIN, "val": TRAIN[:80], "test": TRAIN[80:200]}
        canonical.tokens(folder / "blocks", ids, vocabulary=37, block=20)
        canonical.tokens(folder / "train", {"train": TRAIN}, vocabulary=37, block=20)
        masks = {k: np.arange(len(v)) % 20 >= 12 for k, v in ids.items()}
        canonical.tokens(folder / "masked", ids, vocabulary=37, block=20, masks=masks)
        (folder / "bins").mkdir()
        for split, values in ids.items():
            values.astype(np.uint16).tofile(folder / f"bins/{split}.bin")
        yield folder


def build(place: Path, name: str = "blocks", **values: Any) -> Tokens:
    flat = {"vocabulary": 37} if name == "bins" else {}
    return Tokens(**{"data": str(place / name), "model": "gpt_nano", "context": 8, "batch_size": 4, **flat, **values})


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_have_the_published_size(name: str) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in gpt(name, 50257, context=1024).parameters()) == PUBLISHED[name]
    assert set(GPT_SIZES) == {*PUBLISHED, "gpt_nano"}


@pytest.mark.parametrize("name, context", [("blocks", 8), ("train", 8), ("masked", 19), ("bins", 8)])
def test_contract(place: Path, name: str, context: int) -> None:
    task_contract.check(lambda: build(place, name, context=context, held_out=0.2), without_test=name == "train")


@pytest.mark.parametrize("name", ["blocks", "bins"])
def test_an_epoch_shows_each_window_once(place: Path, name: str) -> None:
    """Targets are the next tokens; windows of an epoch do not overlap and leave less than two windows out."""
    task = build(place, name, batch_size=1)
    count = task._windows()
    assert count == (400 - 8) // 8
    for epoch in (0, 1):
        starts = np.sort([int(task._starts(5, epoch * count + i)[0]) for i in range(count)])
        assert set(np.diff(starts)) == {8}
        assert 0 <= starts[0] < 8
        assert starts[-1] + 9 <= 400
    inputs, targets = task.batch(5, 3)
    at = int(task._starts(5, 3)[0])
    assert inputs[0].tolist() == TRAIN[at : at + 8].tolist()
    assert targets[0].tolist() == TRAIN[at + 1 : at + 9].tolist()


def test_blocks_and_flat_files_give_the_same_batches(place: Path) -> None:
    a, b = build(place, "blocks"), build(place, "bins", workers=2)
    for index in (0, 1, 40):
        assert all(torch.equal(x, y) for x, y in zip(a.batch(2, index), b.batch(2, index), strict=True))


def test_masked_tokens_are_read_but_not_predicted(place: Path) -> None:
    task = build(place, "masked", context=19)
    inputs, targets = task.batch(0, 0)
    rows = TRAIN.reshape(20, 20)[task._starts(0, 0) // 20]
    assert inputs.tolist() == rows[:, :-1].tolist()
    assert (targets[:, :11] == -1).all()
    assert targets[:, 11:].tolist() == rows[:, 12:].tolist()
    logits = torch.randn(4, 19, 37)
    expected = torch.nn.functional.cross_entropy(logits[:, 11:].flatten(0, 1), targets[:, 11:].flatten())
    assert float(task.loss(logits, targets)) == pytest.approx(float(expected))


def test_perplexity_of_a_model_that_knows_nothing_is_the_vocabulary(place: Path) -> None:
    class Uniform(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*tokens.shape, 37)

    found = build(place).evaluate(Uniform())
    assert found["perplexity/val"] == pytest.approx(37)
    assert found["loss/test"] == pytest.approx(math.log(37))


def test_a_missing_validation_split_is_the_end_of_the_text(place: Path) -> None:
    task = build(place, "train", held_out=0.2, batch_size=1)
    starts = [int(task._starts(0, i)[0]) for i in range(200)]
    assert max(starts) + 9 <= 320
    assert task._lengths["val"] == (320, 400)


@pytest.mark.slow
def test_training_learns(place: Path) -> None:
    """The text is periodic: the next token follows from this one."""
    task = build(place, batch_size=8)
    run = Training(task, lambda m, *_: optim_core.build("adamw", m, lr=1e-2), budget=60, seed=0, evaluations=1)
    point = run.advance()
    assert point is not None
    assert point.metrics["perplexity/test"] < 3


def test_a_token_above_the_vocabulary_of_a_flat_file(place: Path) -> None:
    with pytest.raises(DataError, match=r"train\.bin: tokens: row .* the vocabulary has 20"):
        for index in range(20):
            build(place, "bins", vocabulary=20).batch(0, index)


BAD = [
    ("blocks", {"model": "gpt3"}, "model is 'gpt3'; available: gpt_nano"),
    ("blocks", {"context": 0}, "context"),
    ("blocks", {"context": 500}, "context is 500; split"),
    ("blocks", {"batch_size": 0}, "batch_size"),
    ("blocks", {"dropout": 1.0}, "dropout"),
    ("blocks", {"workers": -1}, "workers"),
    ("blocks", {"device": "x"}, "device"),
    ("blocks", {"attention": "x"}, "attention"),
    ("blocks", {"vocabulary": 38}, "vocabulary: is 37 by dataset.json, not 38"),
    ("masked", {}, "context is 8; rows with masks have 20 tokens"),
    ("bins", {"vocabulary": 0}, "vocabulary: flat token files do not say"),
    ("bins", {"dtype": "int8"}, "dtype: is 'int8'"),
    ("nowhere", {}, "data is .*there is no such folder"),
]


@pytest.mark.parametrize("name, values, message", BAD, ids=str)
def test_bad_parameters_are_refused(place: Path, name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(place, name, **values)
