"""Gradients and Hessian products, also in the basis in which the optimizer keeps its moments.

    R g,   H_R x = R ( H (R^T x) )                      (Zhang et al. 2024, arXiv 2410.19964, section 4)

Without a rotated optimizer R = I. If R is a projection (galore), H_R covers only the subspace; properties of the loss,
such as eigenvalues and traces, are measured with H itself. A list of tensors represents one vector of all coordinates.
Products with the Hessian use double backward: about two extra gradients each; attention must be of the plain kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optim_core.diagnostics.registry import Subject
from optim_core.turned import Turned

Vectors = list[Tensor]
Product = Callable[[Sequence[Tensor]], Vectors]


def parameters(subject: Subject) -> list[Tensor]:
    """The optimizer's parameters, or those that require gradients; in the order of its groups."""
    if subject.optimizer is not None:
        known = set(subject.model.parameters())
        return [p for g in subject.optimizer.param_groups for p in g["params"] if p in known]
    return [p for p in subject.model.parameters() if p.requires_grad]


def to_basis(subject: Subject, tensors: Sequence[Tensor]) -> Vectors:
    """R x, one tensor for each parameter."""
    if not isinstance(subject.optimizer, Turned):
        return list(tensors)
    params = parameters(subject)
    found = subject.optimizer.forward(dict(zip(params, tensors, strict=True)))
    return [found.get(p, t) for p, t in zip(params, tensors, strict=True)]


def from_basis(subject: Subject, tensors: Sequence[Tensor]) -> Vectors:
    """R^T x, one tensor for each parameter."""
    if not isinstance(subject.optimizer, Turned):
        return list(tensors)
    params = parameters(subject)
    found = subject.optimizer.backward(dict(zip(params, tensors, strict=True)))
    return [found.get(p, t) for p, t in zip(params, tensors, strict=True)]


def gradient(subject: Subject, batch: int) -> Vectors:
    """Gradient of the mean loss on one batch, not rotated; zeros for a parameter without one."""
    inputs, targets = subject.batches[batch]
    params = parameters(subject)
    loss = subject.loss(subject.model(inputs), targets)
    found = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
    return list(found)


def hessian_product(subject: Subject) -> Product:
    """Return x -> H x for the mean loss over all batches; the graph of the gradient is built once and kept."""
    params = parameters(subject)
    losses = [subject.loss(subject.model(inputs), targets) for inputs, targets in subject.batches]
    mean = torch.stack(losses).mean()
    slopes = torch.autograd.grad(mean, params, create_graph=True, allow_unused=True, materialize_grads=True)

    def product(x: Sequence[Tensor]) -> Vectors:
        curved = [(s, d) for s, d in zip(slopes, x, strict=True) if s.requires_grad]
        if not curved:
            return [torch.zeros_like(t) for t in x]
        pulled = torch.autograd.grad(
            [s for s, _ in curved],
            params,
            [d for _, d in curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return [h.detach() for h in pulled]

    return product


def product_in_basis(subject: Subject) -> Product:
    """Return x -> R H R^T x, with x shaped like `shapes_in_basis`."""
    product = hessian_product(subject)

    def turned(x: Sequence[Tensor]) -> Vectors:
        with torch.no_grad():
            direction = from_basis(subject, x)
        curved = product(direction)
        with torch.no_grad():
            return to_basis(subject, curved)

    return turned


def shapes_in_basis(subject: Subject) -> Vectors:
    """Zeros of the shapes of rotated tensors."""
    with torch.no_grad():
        return [torch.zeros_like(t) for t in to_basis(subject, [torch.zeros_like(p) for p in parameters(subject)])]
