"""The recipes of `docs/optimizers_elsewhere.md`, run as they stand there."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

PAGE = Path(__file__).parents[2] / "docs" / "optimizers_elsewhere.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
ARMS = ("sam", "llqr", "rotated_adamw")
EPOCHS = 4


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def page(*words: str) -> dict[str, Any]:
    """What the first block defines, and the blocks that hold one of the words."""
    found: dict[str, Any] = {"__name__": "recipe"}
    for block in (BLOCKS[0], *(b for b in BLOCKS[1:] if any(w in b for w in words))):
        exec(compile(block, str(PAGE), "exec"), found)
    return found


def plainly(own: dict[str, Any], name: str) -> nn.Module:
    """The weights of the same steps in a loop of torch alone."""
    torch.manual_seed(5)
    model = own["network"]()
    optimizer = own["optimizer_for"](model, name)
    for x, y in own["batches"] * EPOCHS:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = own["loss_of"](model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)
    return model  # type: ignore[no-any-return]


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)


@needs("lightning")
@pytest.mark.slow
@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("way", ["Automatic", "Manual"])
def test_lightning_takes_the_steps_of_a_plain_loop(way: str, name: str, tmp_path: Path) -> None:
    import lightning

    own = page("lightning", "Manual")
    torch.manual_seed(5)
    module = own[way](name)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and logging intervals
        dataset = torch.utils.data.TensorDataset(own["inputs"], own["targets"])
        trainer.fit(module, torch.utils.data.DataLoader(dataset, batch_size=16))
    assert trainer.global_step == EPOCHS * len(own["batches"])
    assert_same(module.model, plainly(own, name))


@needs("accelerate")
@pytest.mark.parametrize("name", ARMS)
def test_accelerate_takes_the_steps_of_a_plain_loop(name: str) -> None:
    own = page("accelerate")
    torch.manual_seed(5)
    model, optimizer, losses = own["train_with_accelerate"](name, EPOCHS)
    assert losses[-1] < losses[0]
    assert optimizer.optimizer.grad_evals >= EPOCHS * len(own["batches"])
    assert_same(model, plainly(own, name))


class ForTrainer(nn.Module):
    """A network with the interface that Trainer wants: the loss first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        if labels is None:
            return self.network(x)
        outputs = self.network(x)
        return {"loss": nn.functional.cross_entropy(outputs, labels), "logits": outputs}


@needs("transformers")
@needs("accelerate")
@pytest.mark.slow
@pytest.mark.parametrize("name", ARMS)
def test_the_trainer_takes_the_steps_of_a_plain_loop(name: str, tmp_path: Path) -> None:
    from transformers import TrainingArguments

    own = page("transformers")
    torch.manual_seed(5)
    model = ForTrainer(own["network"]())
    data = [{"x": x, "labels": y} for xs, ys in own["batches"] for x, y in zip(xs, ys, strict=True)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=EPOCHS, per_device_train_batch_size=16, max_grad_norm=0.0,
        lr_scheduler_type="constant", report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, logging_steps=1, train_sampling_strategy="sequential",
    )  # fmt: skip
    own["ClosureTrainer"].arm = name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = own["ClosureTrainer"](model=model, args=arguments, train_dataset=data)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert trainer.state.global_step == EPOCHS * len(own["batches"])
    assert_same(model.network, plainly(own, name))
