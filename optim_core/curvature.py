"""Products of a model's curvature matrices with vectors in weight space, and the gradient, all on one batch.

With z the outputs [n], J = dz/dw [n, P] and Q the Hessian of the loss (or of a divergence) in z [n, n]:

    Gauss-Newton   J^T Q J v                                     (Schraudolph 2002, section 3)
    Fisher         J^T Q J v, Q the Hessian of a divergence from the present outputs (Amari 1998; the same matrix as
                   Gauss-Newton for cross-entropy of logits and for squared error)
    Newton         d/dw <grad L(w), v>, by double backward       (Pearlmutter 1994)

Vectors are lists with one tensor per weight, of the same shape. The point is fixed at construction, which costs one
gradient. A product then costs, in gradients (forward and backward pass), measured on one CPU thread: Gauss-Newton 1.35
to 1.7 (MLP 64-256-256-10) and 1.5 to 1.75 (convolutional networks), Newton 1.3 to 2.2; budgets are charged
`PRODUCT_COST` for any model.

J v is computed by double backward through a stored graph, or in forward mode if the model has convolutions, whose
double backward in torch does about twice the work. If one of these has no formula for some layer the other is used; if
both fail the error names the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from optim_core.pullback import pulled, pulled_whole
from optim_core.sharded import locals_of, whole_sum

Loss = Callable[[Tensor, Any], Tensor]
Divergence = Callable[[Tensor, Tensor], Tensor]
PRODUCT_COST = {"ngd": 1.75, "newton": 2.0}
"""Gradient evaluations charged per product, by metric."""


class Curvature(Protocol):
    """The gradient at a point and products with one symmetric matrix there."""

    value: Tensor
    """The loss, a scalar."""
    gradient: list[Tensor]

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """The matrix times `vector`."""


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product over all tensors together, a scalar tensor."""
    return whole_sum([x.sum() for x in torch._foreach_mul(locals_of(a), locals_of(b))], a)


def softmax_kl(reference: Tensor, current: Tensor) -> Tensor:
    """KL divergence between the categorical distributions of logits [..., classes], mean over all but the last axis."""
    p, q = reference.log_softmax(-1), current.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by matrix products: torch's fused kernels have neither forward mode nor a second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class GaussNewton:
    """The generalized Gauss-Newton matrix of `loss(model(inputs), targets)` in the named `weights` (leaf tensors).

    With `divergence(reference, current)` the output Hessian is that of the divergence at coincidence: the Fisher matrix
    for `softmax_kl`. The gradient is always that of the loss. Raises TypeError or ValueError if the loss is not a
    differentiable scalar function of the outputs.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        loss: Loss,
        inputs: Any,
        targets: Any,
        *,
        divergence: Divergence | None = None,
    ) -> None:
        self._model, self._weights, self._inputs = model, dict(weights), inputs
        self._modes = [self._jvp_by_double_backward, self._jvp_in_forward_mode]
        if any(isinstance(m, _ConvNd) for m in model.modules()):
            self._modes.reverse()
        leaves = list(weights.values())
        with torch.enable_grad(), plain_attention():
            self.outputs = outputs_of(model, weights, inputs)
            self._point = self.outputs.detach().requires_grad_()
            self.value = scalar_loss(loss, self._point, targets)
            slope = _output_gradient(self.value, self._point)
            self._slope = slope
            if divergence is not None:
                self._slope = _output_gradient(divergence(self._point.detach(), self._point), self._point)
            self._cotangent = slope.detach().requires_grad_()
            slopes = pulled_whole([self.outputs], leaves, [self._cotangent], create_graph=True)
        self.gradient = [g.detach() for g in slopes]
        self._pulled, self._checked = [(i, g) for i, g in enumerate(slopes) if g.requires_grad], False

    def jvp(self, vector: Sequence[Tensor]) -> Tensor:
        """J v, shaped like the outputs. Raises RuntimeError if neither way has a formula for every layer."""
        try:
            return self._modes[0](vector)
        except RuntimeError as error:
            if len(self._modes) == 1:
                raise
            self._modes.pop(0)  # use the other way from now on
            try:
                return self.jvp(vector)
            except RuntimeError as other:
                raise RuntimeError(f"{error}; {other}") from error

    def output_product(self, tangent: Tensor) -> Tensor:
        """Q t, with t and the result shaped like the outputs."""
        if not self._slope.requires_grad:
            return torch.zeros_like(tangent)
        return pulled_whole([self._slope], [self._point], [tangent], retain_graph=True)[0]

    def vjp(self, cotangent: Tensor) -> list[Tensor]:
        """J^T t."""
        leaves = list(self._weights.values())
        return pulled_whole([self.outputs], leaves, [cotangent], retain_graph=True)

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """J^T Q J v."""
        return self.vjp(self.output_product(self.jvp(vector)))

    def _jvp_by_double_backward(self, vector: Sequence[Tensor]) -> Tensor:
        if not self._checked:
            refuse_dead_ends([g for _, g in self._pulled])
            self._checked = True
        picked = [vector[i] for i, _ in self._pulled]
        (found,) = pulled([g for _, g in self._pulled], [self._cotangent], picked, retain_graph=True)
        assert found is not None  # torch raises where there is no path
        return found

    def _jvp_in_forward_mode(self, vector: Sequence[Tensor]) -> Tensor:
        with torch.no_grad(), plain_attention(), forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(w.detach(), v)  # type: ignore[no-untyped-call]
                for (name, w), v in zip(self._weights.items(), vector, strict=True)
            }
            tangent = forward_ad.unpack_dual(  # type: ignore[no-untyped-call]
                outputs_of(self._model, duals, self._inputs)
            ).tangent
        return torch.zeros_like(self.outputs) if tangent is None else tangent


class Newton:
    """The Hessian of `loss(model(inputs), targets)` in the named `weights`; it may be indefinite."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], loss: Loss, inputs: Any, targets: Any) -> None:
        self._leaves = list(weights.values())
        with torch.enable_grad(), plain_attention():
            value = scalar_loss(loss, outputs_of(model, weights, inputs), targets)
            slopes = torch.autograd.grad(value, self._leaves, create_graph=True, materialize_grads=True)
        self.value = value.detach()
        self.gradient = [g.detach() for g in slopes]
        self._slopes = [(i, g) for i, g in enumerate(slopes) if g.requires_grad]
        refuse_dead_ends([g for _, g in self._slopes])

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """H v."""
        picked = [vector[i] for i, _ in self._slopes]
        return pulled_whole([g for _, g in self._slopes], self._leaves, picked, retain_graph=True)


METRICS: dict[str, Callable[..., Curvature]] = {"ngd": GaussNewton, "newton": Newton}


def outputs_of(model: nn.Module, weights: Mapping[str, Tensor], inputs: Any) -> Tensor:
    """The model's outputs with `weights` (parameters or buffers by name) instead of its own. Raises TypeError."""
    found = functional_call(model, dict(weights), (inputs,))
    if not isinstance(found, Tensor):
        raise TypeError(
            f"{type(model).__name__} returns {type(found).__name__}; curvature needs a model that returns one tensor. "
            "Wrap it in a module that returns the outputs which the loss takes"
        )
    return found


def scalar_loss(loss: Loss, outputs: Tensor, targets: Any) -> Tensor:
    """`loss(outputs, targets)`. Raises TypeError or ValueError if that is not a scalar that depends on the outputs."""
    value = loss(outputs, targets)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"loss(outputs, targets) returned {shape}; it must be a scalar tensor, the mean of the batch")
    if not value.requires_grad:
        raise ValueError("loss(outputs, targets) does not depend on the outputs; it must be a function of them")
    return value.reshape(())


def bends(loss: Loss, outputs: Tensor, targets: Any) -> bool:
    """Whether the loss has a second derivative in its outputs, here or at randomly drawn outputs."""
    for point in (outputs.detach().clone(), torch.randn_like(outputs)):
        with torch.enable_grad():
            slope = _output_gradient(loss(point.requires_grad_(), targets), point)
        if not slope.requires_grad:
            continue
        (product,) = pulled_whole([slope], [point], [torch.randn_like(point)])
        if bool(product.any()):
            return True
    return False


def _output_gradient(value: Tensor, point: Tensor) -> Tensor:
    _only_depends_on(value, point)
    (slope,) = torch.autograd.grad(value, point, create_graph=True)
    return slope


def _only_depends_on(value: Tensor, point: Tensor) -> None:
    """Raises ValueError if the graph of `value` reaches a leaf other than `point`."""
    for node in _graph([value]):
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf is not point:
            raise ValueError(
                f"loss(outputs, targets) also depends on a tensor of shape {tuple(leaf.shape)} that is not an output; "
                "remove penalties on weights from the loss (weight_decay is a hyperparameter)"
            )


def refuse_dead_ends(gradients: Sequence[Tensor]) -> None:
    """Raises RuntimeError if a second derivative of `gradients` would silently miss a path.

    torch marks a non-differentiable backward by an error node, which never runs unless the path behind it is requested.
    """
    if any(node.name().endswith("::Error") for node in _graph(gradients)):
        raise RuntimeError("some operation has a backward that is marked once_differentiable")


def _graph(tensors: Sequence[Tensor]) -> Iterator[Any]:
    """All nodes of the autograd graph of `tensors`."""
    seen, todo = set(), [t.grad_fn for t in tensors]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            todo.extend(following for following, _ in node.next_functions)


class _Probe:
    """Records the calls of every module without children."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
        self._hooks = [
            m.register_forward_pre_hook(self._note(name), with_kwargs=False)
            for name, m in model.named_modules()
            if not any(True for _ in m.children())
        ]

    def _note(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            self.calls.append((name, module, arguments))

        return note

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def module_without_products(model: nn.Module, weights: Mapping[str, Tensor], inputs: Any) -> str | None:
    """Name and class of the first module that does not support J v, or None if each of them does individually."""
    probe = _Probe(model)
    try:
        with torch.no_grad():
            outputs_of(model, weights, inputs)
    finally:
        probe.close()
    for name, module, arguments in probe.calls:
        try:
            with torch.enable_grad(), plain_attention():
                _differentiate_twice(module, arguments)
        except RuntimeError:
            return f"{name or 'the model itself'} ({type(module).__name__})"
    return None


def _differentiate_twice(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    fresh = tuple(
        a.detach().clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments
    )
    leaves = [a for a in fresh if isinstance(a, Tensor) and a.requires_grad]
    leaves += [p for p in module.parameters() if p.requires_grad]
    outputs = module(*fresh)
    if not leaves or not isinstance(outputs, Tensor) or not outputs.requires_grad:
        return
    cotangent = torch.ones_like(outputs).requires_grad_()
    slopes = pulled([outputs], leaves, [cotangent], create_graph=True, allow_unused=True)
    reached = [g for g in slopes if g is not None and g.requires_grad]
    if reached:
        refuse_dead_ends(reached)
        pulled(reached, [cotangent], [torch.ones_like(g) for g in reached], allow_unused=True)


def named_weights(model: nn.Module, wanted: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name -> tensor for the model's parameters that are in `wanted`, tied ones once."""
    keep = set(wanted)
    return {name: cast(Tensor, p) for name, p in model.named_parameters() if p in keep}
