"""What every task promises: batches and models are functions of seed and index; metrics and tokens are as declared."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainables import Task


def check(build: Callable[[], Task], *, without_test: bool = False) -> None:
    a, b = build(), build()
    assert a.batch_identity(3, 5) == b.batch_identity(3, 5)
    assert a.batch_identity(3, 5) != a.batch_identity(3, 6)
    assert a.batch_identity(3, 5) != a.batch_identity(4, 5)
    for x, y in zip(a.batch(3, 5), b.batch(3, 5), strict=True):
        assert torch.equal(x, y)
    model, twin = a.model(3), b.model(3)
    assert isinstance(model, torch.nn.Module)
    assert isinstance(twin, torch.nn.Module)
    assert set(a.evaluate(model.eval())) == set(a.METRICS)
    assert all("test" not in name for name in a.METRICS) == without_test
    for x, y in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(x, y)
    inputs, targets = a.refresh_batch(3, 0)
    assert torch.isfinite(a.loss(model(inputs), targets))
    if a.COUNTS:
        inputs = a.batch(3, 0)[0]
        assert a.tokens_per_batch() == (inputs.numel() if a.COUNTS == "tokens" else len(inputs))
