"""The exact damped Newton, Gauss-Newton or Fisher step as a linear-quadratic regulator over the layers.

A network x_{i+1} = f_i(w_i, x_i), with x_i the activations of the whole batch, flattened [n_i], and w_i [P_i]. With
A_i = df_i/dx [n_{i+1}, n_i], B_i = df_i/dw [n_{i+1}, P_i], the step u minimizes, from dx_0 = 0,

    dx_{i+1} = A_i dx_i + B_i u_i
    J(u) = l_N^T dx_N + 1/2 dx_N^T Q_N dx_N + sum_i 1/2 [dx_i^T Q_i dx_i + 2 u_i^T M_i dx_i + u_i^T (R_i + damping) u_i]

where l_N is the gradient of the loss at the output, and Q_i, R_i, M_i are the second derivatives of the Hamiltonian
p_{i+1}^T f_i along the metric's own costate p: zero for the Gauss-Newton and Fisher matrices, that of the loss for
Newton. The backward Riccati recursion (Dufort-Labbe et al. 2026, arXiv 2605.04230) gives u = -(H + damping)^{-1} g.

A reference for tests: dense, float64, O(sum n_i^3 + P_i^3) with n_i a multiple of the batch. P up to about 300. All
derivatives are taken by double backward: torch's forward-over-reverse is wrong for LayerNorm and for BatchNorm in
training mode, and has no formula for attention. Layers with random draws (dropout) are not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from optim_core.curvature import plain_attention
from optim_core.pullback import pulled_whole

Scalar = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One layer, linearized, with its share of the cost."""

    dynamics: Tensor
    """A [n_{i+1}, n_i]."""
    control: Tensor
    """B [n_{i+1}, P_i]."""
    state_cost: Tensor
    """Q [n_i, n_i]."""
    control_cost: Tensor
    """R [P_i, P_i], without damping."""
    cross_cost: Tensor
    """M [P_i, n_i]."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The regulator of one network on one batch."""

    stages: list[Stage]
    terminal_slope: Tensor
    """l_N [n_N], the gradient of the loss at the output."""
    terminal_cost: Tensor
    """Q_N [n_N, n_N]."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The result of the Riccati recursion."""

    controls: list[Tensor]
    """u_i [P_i], the optimal step of each layer."""
    pivots: list[Tensor]
    """S_i [P_i, P_i]; together they have as many negative eigenvalues as H + damping."""
    value: Tensor
    """The stationary value of J, 1/2 g^T u."""


def linearise(
    layers: Sequence[nn.Module],
    inputs: Tensor,
    loss: Scalar,
    *,
    metric: str = "gauss_newton",
    output_cost: Tensor | None = None,
    intermediate: Mapping[int, Scalar] | None = None,
) -> Problem:
    """The regulator of `layers` applied in turn to `inputs`, with `loss` a function of the last outputs.

    `metric` is gauss_newton or newton. `output_cost` [n_N, n_N] replaces the Hessian of the loss in the outputs (a
    Fisher matrix). `intermediate` maps i to a scalar function of x_i (0 < i < N) whose Hessian, that of a weighted
    divergence at coincidence, is added to Q_i. Raises ValueError for an unknown metric, an invalid i, or a parameter
    that two layers share, since its steps would be solved separately. Buffers are not changed.
    """
    if metric not in ("gauss_newton", "newton"):
        raise ValueError(f"metric is {metric!r}; it must be gauss_newton or newton")
    extra = dict(intermediate or {})
    if not all(0 < i < len(layers) for i in extra):
        raise ValueError(f"intermediate has keys {sorted(extra)}; each must lie in 1 .. {len(layers) - 1}")
    owned = [p for layer in layers for p in layer.parameters()]
    if len(set(owned)) < len(owned):
        raise ValueError("two layers share a parameter; the regulator has a separate control for each layer")
    maps, states, weights = _flat_layers(layers, inputs)
    slope = _slopes(loss, [states[-1]])[1][0].detach().flatten()
    terminal = _hessian(loss, states[-1]) if output_cost is None else output_cost
    costate = slope if metric == "newton" else torch.zeros_like(slope)
    stages: list[Stage] = []
    for i in reversed(range(len(layers))):
        stage, costate = _stage(maps[i], weights[i], states[i].flatten(), costate)
        if i in extra:
            stage = replace(stage, state_cost=stage.state_cost + _hessian(extra[i], states[i]))
        stages.insert(0, stage)
    return Problem(stages=stages, terminal_slope=slope, terminal_cost=terminal)


def solve(problem: Problem, damping: float) -> Solution:
    """Backward Riccati recursion, then the controls forward. The step is a minimizer iff every pivot is positive."""
    cost, costate = problem.terminal_cost, problem.terminal_slope
    gains: list[tuple[Tensor, Tensor]] = []
    pivots: list[Tensor] = []
    value = torch.zeros_like(costate[:1].sum())
    for stage in reversed(problem.stages):
        A, B = stage.dynamics, stage.control
        S = stage.control_cost + damping * torch.eye(B.shape[1], dtype=B.dtype) + B.T @ cost @ B
        G = stage.cross_cost + B.T @ cost @ A
        b = B.T @ costate
        solved = torch.linalg.solve(S, torch.cat([G, b[:, None]], 1))
        gains.insert(0, (solved[:, :-1], solved[:, -1]))
        pivots.insert(0, S)
        value = value - b @ solved[:, -1] / 2
        costate = A.T @ costate - G.T @ solved[:, -1]
        cost = A.T @ cost @ A + stage.state_cost - G.T @ solved[:, :-1]
        cost = (cost + cost.T) / 2
    controls: list[Tensor] = []
    state = torch.zeros(problem.stages[0].dynamics.shape[1], dtype=problem.terminal_cost.dtype)
    for stage, (feedback, feedforward) in zip(problem.stages, gains, strict=True):
        controls.append(-(feedback @ state + feedforward))
        state = stage.dynamics @ state + stage.control @ controls[-1]
    return Solution(controls=controls, pivots=pivots, value=value)


def objective(problem: Problem, controls: Sequence[Tensor], damping: float) -> tuple[Tensor, list[Tensor]]:
    """J(u) by simulating the dynamics, and dJ/du of each layer by the adjoint recursion."""
    states = [torch.zeros(problem.stages[0].dynamics.shape[1], dtype=problem.terminal_cost.dtype)]
    value = torch.zeros_like(problem.terminal_slope[:1].sum())
    for stage, u in zip(problem.stages, controls, strict=True):
        x = states[-1]
        bend = x @ stage.state_cost @ x + 2 * u @ stage.cross_cost @ x + u @ stage.control_cost @ u
        value = value + (bend + damping * u @ u) / 2
        states.append(stage.dynamics @ x + stage.control @ u)
    x = states[-1]
    value = value + problem.terminal_slope @ x + x @ problem.terminal_cost @ x / 2
    adjoint = problem.terminal_slope + problem.terminal_cost @ x
    slopes: list[Tensor] = []
    for stage, u, x in reversed(list(zip(problem.stages, controls, states[:-1], strict=True))):
        of_control = stage.control_cost @ u + damping * u + stage.cross_cost @ x
        slopes.insert(0, of_control + stage.control.T @ adjoint)
        adjoint = stage.dynamics.T @ adjoint + stage.cross_cost.T @ u + stage.state_cost @ x
    return value, slopes


def _stage(f: Callable[[Tensor, Tensor], Tensor], w: Tensor, x: Tensor, costate: Tensor) -> tuple[Stage, Tensor]:
    """The layer's linearization and cost, and the metric's costate at its input."""
    leaves = [w.clone().requires_grad_(), x.clone().requires_grad_()]
    with torch.enable_grad(), plain_attention():
        B, A = _jacobian(f(*leaves), leaves)
    leaves, slopes = _slopes(lambda w, x: costate @ f(w, x), [w, x])
    (R, M), (_, Q) = (_jacobian(g, leaves) for g in slopes)
    return Stage(dynamics=A, control=B, state_cost=Q, control_cost=R, cross_cost=M), A.T @ costate


def _flat_layers(
    layers: Sequence[nn.Module], inputs: Tensor
) -> tuple[list[Callable[[Tensor, Tensor], Tensor]], list[Tensor], list[Tensor]]:
    """Layers as functions of flat weights and flat activations, the activations x_0 .. x_N, the flat weights."""
    maps: list[Callable[[Tensor, Tensor], Tensor]] = []
    weights: list[Tensor] = []
    x = inputs.detach()
    states = [x]
    for layer in layers:
        named = dict(layer.named_parameters())
        buffers = {key: b.clone() for key, b in layer.named_buffers()}
        sizes, shapes = [p.numel() for p in named.values()], [p.shape for p in named.values()]

        def flat(
            w: Tensor, x: Tensor, layer: nn.Module = layer, names: tuple[str, ...] = tuple(named),
            sizes: list[int] = sizes, shapes: list[torch.Size] = shapes, shape: torch.Size = x.shape,
            buffers: dict[str, Tensor] = buffers,
        ) -> Tensor:  # fmt: skip
            parts = [v.reshape(s) for v, s in zip(torch.split(w, sizes), shapes, strict=True)] if names else []
            kept = {key: b.clone() for key, b in buffers.items()}
            out = functional_call(layer, {**dict(zip(names, parts, strict=True)), **kept}, (x.reshape(shape),))
            return cast(Tensor, out).flatten()

        maps.append(flat)
        weights.append(torch.cat([p.detach().flatten() for p in named.values()]) if named else x.new_zeros(0))
        with torch.no_grad():
            x = cast(Tensor, functional_call(layer, {key: b.clone() for key, b in buffers.items()}, (x,)))
        states.append(x)
    return maps, states, weights


def _hessian(function: Scalar, x: Tensor) -> Tensor:
    """Second derivative of a scalar function of x [*shape], as a matrix [n, n]."""
    leaves, slopes = _slopes(function, [x])
    return _jacobian(slopes[0], leaves)[0]


def _slopes(function: Callable[..., Tensor], at: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Fresh leaves at the points, and the gradients of a scalar function there, themselves differentiable."""
    leaves = [x.detach().clone().requires_grad_() for x in at]
    with torch.enable_grad(), plain_attention():
        value = function(*leaves)
        if not value.requires_grad:
            return leaves, [torch.zeros_like(x) for x in leaves]
        return leaves, list(torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True))


def _jacobian(of: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Derivatives [of.numel(), leaf.numel()] of a tensor in each leaf, row by row."""
    if not of.requires_grad or not of.numel():
        return [of.new_zeros(of.numel(), leaf.numel()) for leaf in leaves]
    flat = of.flatten()
    units = torch.eye(len(flat), dtype=flat.dtype)
    rows = [pulled_whole([flat], leaves, [unit], retain_graph=True) for unit in units]
    return [torch.stack([row[i].flatten() for row in rows]) for i in range(len(leaves))]
