"""What counts as a finite gradient, and as one that the closure has not cleared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optim_core.fresh import Call, Stamp, finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_one_entry_decides(dtype: torch.dtype) -> None:
    tensors = [torch.ones(3, 4, dtype=dtype), torch.ones((), dtype=torch.float32), torch.empty(0, dtype=dtype)]
    assert finite(tensors)
    for value in (math.nan, math.inf, -math.inf):
        for spoilt in (0, 1):
            broken = [t.clone() for t in tensors]
            broken[spoilt].view(-1)[-1] = value
            assert not finite(broken)


def test_large_entries_are_finite_where_their_squares_are_not() -> None:
    assert finite([torch.full((4,), 3e38), torch.full((4,), 1e300, dtype=torch.float64)])
    assert finite([])
    assert finite([torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([2.0]), (4,), check_invariants=True)])
    assert not finite(
        [torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([math.nan]), (4,), check_invariants=True)]
    )


def backward(p: Tensor) -> None:
    (p * torch.arange(1.0, 4.0)).sum().backward()


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("clear", ["none", "zero", "no"])
def test_a_gradient_from_outside_has_to_be_cleared(clear: str, micro_batches: int) -> None:
    p = torch.zeros(3, requires_grad=True)
    backward(p)
    call = Call([p], {})
    if clear == "none":
        p.grad = None
    elif clear == "zero":
        assert p.grad is not None
        p.grad.zero_()
    for _ in range(micro_batches):
        backward(p)
    call.close()
    if clear == "no":
        with pytest.raises(RuntimeError, match="did not clear"):
            call.check("SGD")
    else:
        call.check("SGD")
        assert p.grad is not None
        assert torch.equal(p.grad, micro_batches * torch.arange(1.0, 4.0))


def test_one_parameter_that_nobody_cleared_is_enough() -> None:
    p, q = (torch.zeros(3, requires_grad=True) for _ in range(2))
    backward(p)
    backward(q)
    call = Call([p, q], {})
    p.grad = None
    backward(p)
    call.close()
    with pytest.raises(RuntimeError, match="did not clear"):
        call.check("SGD")


def test_what_the_last_call_left_is_cleared_and_what_was_written_since_is_not() -> None:
    p, q = (torch.zeros(3, requires_grad=True) for _ in range(2))
    backward(p)
    backward(q)
    stamps = {id(x): Stamp(x.grad) for x in (p, q)}
    assert q.grad is not None
    q.grad.mul_(2)
    call = Call([p, q], stamps)
    assert p.grad is None
    assert q.grad is not None
    call.close()
    with pytest.raises(RuntimeError, match="left no gradient"):
        call.check("SGD")
