"""Step by step with the authors' own code: 100 losses and the last weights of each file in `agreement/vectors`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optim_core
from tests.closures import closure_of
from tests.contracts.optimizer_contract import Run, equal
from tests.golden.agreement.vectors.problems import STEPS, loss_at, network, sizes

FILES = sorted((Path(__file__).parents[1] / "golden" / "agreement" / "vectors").glob("*.json"))
RUNS = [
    pytest.param(document["arm"], run, id=f"{path.stem}-{i}")
    for path in FILES
    for document in [json.loads(path.read_text())]
    for i, run in enumerate(document["runs"])
]


@pytest.mark.slow
@pytest.mark.parametrize("arm, theirs", RUNS)
def test_a_hundred_steps_of_the_authors_code(arm: str, theirs: dict[str, Any]) -> None:
    kind, model = theirs["problem"], network(theirs["problem"])
    optimizer = optim_core.build(arm, model, **theirs["values"])
    losses = []
    for index in range(STEPS):
        losses.append(float(optimizer.step(closure_of(optimizer, loss_at(model, kind, index))).detach()))
    assert losses == pytest.approx(theirs["losses"], rel=1e-9)
    with optimizer.judged_weights():
        assert sizes(model) == pytest.approx(theirs["sizes"], rel=1e-9)


def test_every_file_names_its_source() -> None:
    assert len(FILES) == 7
    for path in FILES:
        source = json.loads(path.read_text())["source"]
        assert source["repository"].startswith("github.com/")
        assert len(source["commit"]) == 40


def test_norm_weights_are_adapted_by_name_and_left_out_by_axes() -> None:
    """The authors' rule and the other: they part where a model has a scale of a norm, and only there."""
    found = {}
    for kind in ("dense", "conv"):
        for adapted in ("weights", "matrices"):
            model = network(kind)
            optimizer = optim_core.build("asam", model, lr=0.1, adapted=adapted)
            optimizer.step(closure_of(optimizer, loss_at(model, kind, 0)))
            found[kind, adapted] = sizes(model)
    assert found["dense", "weights"] == found["dense", "matrices"]
    assert found["conv", "weights"] != found["conv", "matrices"]
    with pytest.raises(ValueError, match="named_parameters"):
        optim_core.lookup("asam")(network("dense").parameters(), lr=0.1)
    optim_core.lookup("asam")(network("dense").named_parameters(), lr=0.1)


def looksam_by_hand(kind: str, lr: float, radius: float, interval: int, weight: float, decay: float) -> list[float]:
    """Alg. 1 of Liu et al. 2022 on one flat vector, with heavy-ball momentum 0.9 for its optimizer."""
    model = network(kind)
    params = list(model.parameters())

    def at(w: Tensor, index: int) -> tuple[float, Tensor]:
        torch.nn.utils.vector_to_parameters(w, params)
        loss = loss_at(model, kind, index)()
        grads = torch.autograd.grad(loss, params, materialize_grads=True)
        return float(loss.detach()), torch.cat([g.flatten() for g in grads])

    w = torch.cat([p.detach().flatten() for p in params])
    losses, v, velocity = [], torch.zeros_like(w), torch.zeros_like(w)
    for t in range(STEPS):
        loss, g = at(w, t)
        losses.append(loss)
        if t % interval == 0:
            s = at(w + radius * g / g.norm(), t)[1]
            cosine = (g @ s) / (g.norm() * s.norm())
            v = s - s.norm() * cosine * g / g.norm()
        else:
            s = g + weight * g.norm() / v.norm() * v
        velocity = 0.9 * velocity + s + decay * w
        w = w - lr * velocity
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("interval, decay", [(1, 0.0), (2, 0.01), (5, 0.0)])
def test_looksam_is_its_algorithm(kind: str, interval: int, decay: float) -> None:
    model = network(kind)
    values = {"lr": 0.05, "sam_radius": 0.3, "look_interval": interval, "reuse_weight": 0.6, "weight_decay": decay}
    optimizer = optim_core.build("looksam", model, **values)
    losses = []
    for index in range(STEPS):
        losses.append(float(optimizer.step(closure_of(optimizer, loss_at(model, kind, index))).detach()))
    assert losses == pytest.approx(looksam_by_hand(kind, 0.05, 0.3, interval, 0.6, decay), rel=1e-9)
    assert optimizer.grad_evals == STEPS + math.ceil(STEPS / interval)
    assert optim_core.steps_within("looksam", optimizer.grad_evals, look_interval=interval) == STEPS
    assert optim_core.cost_per_step("looksam", look_interval=interval) == 1 + 1 / interval


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_the_first_schedule_free_step_is_one_of_the_base_without_momentum(base: str) -> None:
    run = Run(lambda m: optim_core.build("schedule_free", m, base=base, lr=0.05, weight_decay=0.0))
    plain = {"sgd": {"momentum": 0.0}, "adamw": {"beta1": 0.0, "weight_decay": 0.0}}[base]
    twin = Run(lambda m: optim_core.build(base, m, lr=0.05, **plain))
    run.steps(0, 1)
    twin.steps(0, 1)
    with run.optimizer.judged_weights():
        for a, b in zip(run.weights(), twin.weights(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_schedule_free_evaluates_the_average_and_comes_back() -> None:
    run = Run(lambda m: optim_core.build("schedule_free", m, lr=0.5))
    average: list[Tensor] = []
    for index in range(20):
        run.steps(index, index + 1)
        points = [run.optimizer.state[p]["base_point"] for p in run.model.parameters()]
        share = 1 / (index + 1)
        average = [x.lerp(z, share) for x, z in zip(average or points, points, strict=True)]
    home = run.weights()
    with run.optimizer.judged_weights():
        for a, b in zip(run.weights(), average, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        with pytest.raises(RuntimeError, match="train"):
            run.steps(20, 21)
    assert equal(run.weights(), home)
    run.optimizer.eval()
    run.optimizer.eval()
    run.optimizer.train()
    for a, b in zip(run.weights(), home, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
