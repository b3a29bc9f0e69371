"""Two processes give every optimizer the trajectory that one process has on the same batches."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import optim_core
from tests import pair
from tests.orchestrator.command import Forked
from trainables.workers import Workers, listen

pytestmark = pytest.mark.slow

BOTH = {"sgd", "sam", "llqr_sam", "rotated_adamw", "conjugate_gradient"}
"""With batches in pieces and whole; one of each way of taking gradients, the others in pieces alone."""


def test_two_processes_are_one_for_every_optimizer(tmp_path: Path) -> None:
    """Thirteen rows with masked targets in parts of seven and six; refreshes and perturbations happen on the way.

    Weights and logged losses agree to rounding in float64, which methods that estimate curvature by differences of
    gradients magnify to about 1e-9. Workers with other weights are found.
    """
    cases = [
        {"name": name, "recipe": recipe}
        for name in optim_core.names()
        if not getattr(optim_core.lookup(name), "PLAYS_GAMES", False)  # games stay in one process
        for recipe in (pair.RECIPES if name in BOTH else ["pieces"])
    ]
    cases.append({"name": "", "recipe": "drift"})
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))
    store = listen("127.0.0.1")
    other = Forked(str(file), f"127.0.0.1:{store.port}", program=Path(pair.__file__))
    try:
        for number, case in enumerate(cases):
            workers = Workers(size=2, store=dist.PrefixStore(str(number), store))
            try:
                if case["recipe"] == "drift":
                    assert pair.drift(workers)
                else:
                    compare(case["name"], case["recipe"], workers)
            finally:
                workers.close()
        said = other.communicate(timeout=60)
        assert other.returncode == 0, said
    finally:
        if other.poll() is None:
            other.send_signal(signal.SIGKILL)


def compare(name: str, recipe: str, workers: Workers) -> None:
    one, two = pair.training(name, recipe, None), pair.training(name, recipe, workers)
    expected, found = pair.finish(one), pair.finish(two)
    assert two.step == one.step >= 3
    start = one.task.model(2)
    assert isinstance(start, torch.nn.Module)
    for a, b, w in zip(one.model.parameters(), two.model.parameters(), start.parameters(), strict=True):
        assert not torch.equal(a, w), name
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-8), (name, recipe, float((a - b).detach().abs().max()))
    for p, q in zip(expected, found, strict=True):
        for key in ("loss/train", "loss/val"):
            assert q.metrics[key] == pytest.approx(p.metrics[key], rel=1e-7), (name, recipe, key)


def test_a_rank_beyond_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rank is 2; it must lie in \[0, 2\)"):
        Workers(rank=2, size=2)
