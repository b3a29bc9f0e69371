"""offset_rotated: the same data for the same seed, and each variant as steep as it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import trainables
from trainables.tasks.offset_rotated import INPUTS, SAMPLES, STEEP, OffsetRotated


def covariance(inputs: str) -> Tensor:
    """Uncentred second moments of the inputs [32, 32]: what the first layer's curvature is made of."""
    x = OffsetRotated(inputs=inputs, batch_size=SAMPLES).batch(0, 0)[0].double()
    return x.T @ x / SAMPLES


@pytest.mark.parametrize("inputs", OffsetRotated.INPUTS)
def test_a_function_of_seed_and_index(inputs: str) -> None:
    first, second = (trainables.build("offset_rotated", inputs=inputs) for _ in range(2))
    second.batch(3, 1)
    for a, b in zip(first.batch(3, 2), second.batch(3, 2), strict=True):
        assert torch.equal(a, b)
    assert first.batch_identity(3, 2) == second.batch_identity(3, 2) != first.batch_identity(4, 2)
    assert not torch.equal(first.batch(3, 2)[0], first.refresh_batch(3, 2)[0])
    torch.rand(7)
    for a, b in zip(first.model(5).parameters(), second.model(5).parameters(), strict=True):
        assert torch.equal(a, b)
    for seed in (3, 4):
        assert len({tuple(row.tolist()) for row in first.batch(seed, 0)[0]}) == 64


def test_the_offset_is_one_steep_direction_off_the_axes() -> None:
    values, vectors = torch.linalg.eigh(covariance("offset"))
    assert float(values[-1]) == pytest.approx(STEEP**2 + 1, rel=0.05)
    assert float(values[-2]) < 1.5
    assert float(vectors[:, -1].abs().max()) < 0.6
    for control in ("centred", "plain"):
        assert float(torch.linalg.eigvalsh(covariance(control))[-1]) < 1.5
    offset, centred = (OffsetRotated(inputs=i).batch(0, 0) for i in ("offset", "centred"))
    assert torch.equal(offset[1], centred[1])
    assert float((offset[0] - centred[0]).std(0).max()) < 1e-6


def test_scales_along_and_off_the_axes() -> None:
    scaled = covariance("scaled").diag()
    assert float(scaled[:3].min()) > 80
    assert float(scaled[3:].max()) < 1.5
    ladder = torch.logspace(0, -3, INPUTS, dtype=torch.float64)
    torch.testing.assert_close(covariance("graded").diag(), ladder, rtol=0.15, atol=0)
    plain, turned = (torch.linalg.eigvalsh(covariance(i)) for i in ("graded", "graded_rotated"))
    torch.testing.assert_close(plain, turned, rtol=1e-3, atol=1e-7)
    assert float(covariance("graded_rotated").diag().min()) > 10 * float(ladder[-1])


def test_loss_is_half_the_squared_error_summed_over_outputs() -> None:
    task = OffsetRotated()
    a, b = torch.randn(5, 16), torch.randn(5, 16)
    wanted = sum(0.5 * float(((a[i] - b[i]) ** 2).sum()) for i in range(5)) / 5
    assert float(task.loss(a, b)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("values", [{"inputs": "offsets"}, {"batch_size": 0}])
def test_bad_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        trainables.build("offset_rotated", **values)
