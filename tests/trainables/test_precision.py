"""Numbers of the passes and pieces that fit: what the optimizer sees is the gradient all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.tasks import Fit
from tests.trainables.test_gradient import Single, gradient, norm
from trainables import Task, checkpoint
from trainables.gradient import Gradients
from trainables.loop import Training
from trainables.precision import FIRST_SCALE, Precision, _tf32_products
from trainables.recipe import PRECISIONS, Recipe
from trainables.workers import Workers


class Small(Fit):
    """Fit, whose model runs out of memory above `most` rows; `scale` of the loss. Counts what it was asked to do."""

    def __init__(self, *, most: int = 10**6, scale: float = 1.0, dropout: float = 0.1) -> None:
        super().__init__(dropout=dropout)
        self.most, self._scale, self.sizes = most, scale, list[int]()

    def model(self, seed: int) -> Any:
        model = super().model(seed)
        assert isinstance(model, nn.Sequential)
        model.insert(1, nn.BatchNorm1d(4))
        model[1].register_forward_hook(self._look)  # BatchNorm has taken note of the piece by then
        return model

    def _look(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not module.training:
            return
        self.sizes.append(len(output))
        if len(output) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return super().loss(outputs, targets) * self._scale


def training(task: Task, recipe: Recipe, name: str = "sgd", budget: float = 8, **values: Any) -> Training:
    recipe = replace(recipe, schedule=recipe.schedule or "constant")
    return Training(
        task,
        lambda model, loss, refresh: optim_core.build(name, model, **{"lr": 0.1, **values}),
        budget=budget,
        seed=0,
        evaluations=2,
        recipe=recipe,
    )


def weights(run: Training) -> list[Tensor]:
    assert isinstance(run.model, nn.Module)
    return [x.detach() for x in run.model.state_dict().values()]


def done(run: Training) -> Training:
    while not run.finished:
        run.advance()
    return run


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_precision_gives_the_gradient_in_float32(name: str) -> None:
    """To within its rounding: 2^-8 of bfloat16, 2^-11 of float16; tf32 is a GPU's affair and changes no bit here."""
    task = Single()
    loss, found, model = gradient(task, Recipe(precision=name))
    exact, full, _ = gradient(Single(), Recipe())
    error = norm([a - b for a, b in zip(found, full, strict=True)]) / norm(full)
    assert error <= {"bf16": 2**-5, "fp16": 2**-8}.get(name, 0.0)
    assert loss == pytest.approx(exact, rel=2**-7)
    assert task.outer == [torch.float32]
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_small_gradients_survive_float16_by_the_scale() -> None:
    """2^-24 is float16's smallest number. The scale lifts what lies below it, and leaves no trace in the result."""
    tiny = 2.0**-26
    _, full, _ = gradient(Small(dropout=0), Recipe())
    _, found, _ = gradient(Small(dropout=0, scale=tiny), Recipe(precision="fp16"))
    assert norm([a / tiny - b for a, b in zip(found, full, strict=True)]) < 0.01 * norm(full)


@pytest.mark.parametrize("accumulate", [2, 5])
def test_pieces_add_up_in_float16(accumulate: int) -> None:
    """With weights of unequal numbers of targets."""
    _, whole, _ = gradient(Single(), Recipe(precision="fp16"))
    _, pieces, _ = gradient(Single(), Recipe(precision="fp16", accumulate=accumulate))
    assert norm([a - b for a, b in zip(whole, pieces, strict=True)]) < 2**-8 * norm(whole)


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_an_overflow_in_float16_is_no_step_and_halves_the_scale(name: str, tmp_path: Path) -> None:
    """Its gradient is paid for. Stopped right after it and gone on with, training has the same bits."""
    task = Small(scale=2.0**9, dropout=0)
    task.divergence_loss = 1e9
    recipe = Recipe(precision="fp16", schedule="constant")
    whole, first, again = (training(task, recipe, name, 24, lr=1e-6) for _ in range(3))
    with pytest.warns(RuntimeWarning, match="not finite"):
        done(whole)
    skipped = whole.optimizer.skipped_steps
    assert 0 < skipped < whole.step
    assert whole.state()["gradients"]["precision"]["scale"] == FIRST_SCALE / 2**skipped
    assert 24 - {"sgd": 1, "sam": 2}[name] < whole.optimizer.grad_evals <= 24
    with pytest.warns(RuntimeWarning, match="not finite"):
        first.advance(lambda: first.step == 1)
    checkpoint.save({"training": first.state()}, tmp_path)
    saved = checkpoint.newest(tmp_path)
    assert saved is not None
    again.load(saved["training"])
    done(again)
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))
    assert again.state()["gradients"] == whole.state()["gradients"]


def test_tf32_holds_within_the_passes_alone() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with pytest.raises(KeyError), _tf32_products():
        assert matmul.allow_tf32
        assert cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    with Precision("tf32", [nn.Parameter(torch.ones(1))]).passes():  # on the CPU
        assert matmul.allow_tf32 == before[0]


@pytest.mark.parametrize("most, pieces", [(16, 1), (15, 2), (7, 4)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_takes_the_largest_pieces_that_fit(most: int, pieces: int, precision: str) -> None:
    """The same bits as with that number given, buffers included, and the same count of gradient evaluations."""
    runs = []
    for accumulate, limit in (("auto", most), (pieces, 16)):
        task = Small(most=limit)
        runs.append((done(training(task, Recipe(accumulate=accumulate, precision=precision), "sam")), task))
    (found, task), (given, plain) = runs
    assert found.state()["gradients"]["pieces"] == pieces
    assert found.optimizer.grad_evals == given.optimizer.grad_evals == 8
    assert all(torch.equal(a, b) for a, b in zip(weights(found), weights(given), strict=True))
    tried = [2**k for k in range(10) if 2**k < pieces]
    assert [n for n in task.sizes if n > most] == [16 // n for n in tried]
    assert task.sizes[len(tried) :] == plain.sizes


def _full(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_batch_that_fits_in_no_piece_is_an_error() -> None:
    task = Fit(dropout=0)
    run = training(task, Recipe(accumulate="auto"))
    assert isinstance(run.model, nn.Module)
    run.model.register_forward_hook(_full)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        run.advance()
    assert run.state()["gradients"]["pieces"] == 16
    task = Small(most=4)
    with pytest.raises(torch.OutOfMemoryError):
        training(task, Recipe(accumulate=2)).advance()
    assert task.sizes == [8]


def test_pieces_found_are_kept_in_the_checkpoint(tmp_path: Path) -> None:
    """A resumed run does not try again what did not fit, though there would be room: other pieces are other bits."""
    recipe = Recipe(accumulate="auto")
    whole = done(training(Small(most=5), recipe, budget=6))
    first = training(Small(most=5), recipe, budget=6)
    first.advance(lambda: first.step == 2)
    checkpoint.save(first.state(), tmp_path)
    task = Small(most=16)
    again, saved = training(task, recipe, budget=6), checkpoint.newest(tmp_path)
    assert saved is not None
    again.load(saved)
    point = again.advance()
    assert point is not None
    assert point.metrics["cost/pieces"] == 4
    assert set(task.sizes) == {4}
    assert all(torch.equal(a, b) for a, b in zip(weights(done(again)), weights(whole), strict=True))


def test_memory_that_runs_out_later_is_found_later() -> None:
    task = Small(most=16)
    run = training(task, Recipe(accumulate="auto"), budget=6)
    run.advance(lambda: run.step == 2)
    task.most = 8
    point = run.advance()
    assert point is not None
    assert point.metrics["cost/pieces"] == 2
    assert task.sizes == [16, 16, 16, 8, 8]


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with() -> None:
    first, again = (training(Small(), Recipe(precision="fp16")) for _ in range(2))
    first.advance(lambda: first.step == 2)
    state = first.state()
    del state["gradients"]
    again.load(state)
    assert again.step == 2


def test_auto_is_for_one_process() -> None:
    class Two(Workers):
        def __init__(self) -> None:
            self.rank, self.size = 0, 2

    task = Small()
    with pytest.raises(ValueError, match="accumulate is auto with 2 workers; it is found in one process only"):
        Gradients(task, task.model(0), Recipe(accumulate="auto"), Two())


def test_words_that_are_none_are_refused() -> None:
    for values in ({"accumulate": "all"}, {"accumulate": 0}, {"compile": "all"}, {"precision": "fp8"}):
        with pytest.raises(ValueError, match=next(iter(values))):
            Recipe(**values)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision, how",
    [
        ("bf16", "step"),  # with plain precision and compiled models: test_gradient.py
        pytest.param("fp32", "step", marks=pytest.mark.long),
        pytest.param("bf16", True, marks=pytest.mark.long),
    ],
)
def test_compiled_training_is_the_same(how: bool | str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through dynamo and autograd's tracer, in both passes of SAM and over several pieces."""
    torch.compiler.reset()
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda target: original(target, backend="aot_eager"))
    recipe = {"precision": precision, "accumulate": 2}
    compiled = done(training(Small(dropout=0), Recipe(compile=how, **recipe), "sam"))  # type: ignore[arg-type]
    plain = done(training(Small(dropout=0), Recipe(**recipe), "sam"))  # type: ignore[arg-type]
    for a, b in zip(weights(compiled), weights(plain), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_compiled_step_is_the_same_by_torchs_own_backend() -> None:
    torch.compiler.reset()
    runs = [done(training(Small(dropout=0), Recipe(compile=how), budget=4)) for how in (False, "step")]
    for a, b in zip(weights(runs[0]), weights(runs[1]), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
