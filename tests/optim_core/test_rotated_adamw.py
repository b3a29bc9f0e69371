"""Optimizers in rotated bases: AdamW and SGD by their limits, layout and filters, refusals."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core import rotations
from optim_core.rotations import Options, Rotation
from tests.closures import closure_of
from tests.contracts import optimizer_contract
from tests.contracts.optimizer_contract import Run, equal
from tests.contracts.rotation_contract import flat, make

FIXED = ["global", "layer", "output", "input", "both", "hadamard", "dct", "block_product", "givens", "dense", "egop"]


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    return float((flat(a) - flat(b)).norm() / flat(a).norm())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta2", [0.999, 0.8])
def test_identity_is_torch_adamw_bit_for_bit(dtype: torch.dtype, beta2: float) -> None:
    """At beta2 0.8 and step 163 `math.sqrt` of the bias correction is one ulp off the power that torch takes."""
    ours = Run(lambda m: optim_core.build("rotated_adamw", m, lr=0.02, weight_decay=0.1, beta2=beta2), dtype)
    values = {"lr": 0.02, "weight_decay": 0.1, "betas": (0.9, beta2), "foreach": False}
    twin = Run(lambda m: torch.optim.AdamW(m.parameters(), **values), dtype)
    assert ours.steps(0, 200) == twin.steps(0, 200)
    assert equal(ours.weights(), twin.weights())


@functools.cache
def plain_sgd(first: int, **settings: float) -> Tensor:
    """Where SGD is after the batches from this one to the 200th."""
    plain = Run(lambda m: optim_core.build("sgd", m, **settings))
    plain.steps(first, 200)
    return flat(plain.weights())


def check_sgd_does_not_move(kind: str, **values: Any) -> None:
    """Momentum in rotated space, decoupled from where it points: the same run to 1e-10 over 200 steps.

    Without the first gradient, where that is spent on the basis.
    """
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    turned = Run(lambda m: optim_core.build("rotated(sgd)", m, rotation=kind, rotation_block=7, **settings, **values))
    plain = plain_sgd(int(turned.optimizer._spaces[0].fits_after), **settings)
    turned.steps(0, 200)
    assert float((plain - flat(turned.weights())).abs().max()) <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIXED)
def test_sgd_does_not_move_under_a_fixed_rotation(kind: str) -> None:
    check_sgd_does_not_move(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svd", "svd_left", "soap_eig"])
@pytest.mark.parametrize("update", ["before_step", "after_step"])
def test_sgd_does_not_move_under_refreshed_bases_when_its_momentum_moves_too(kind: str, update: str) -> None:
    check_sgd_does_not_move(kind, rotation_refresh=10, rotation_transport="mv", rotation_update=update)


@pytest.mark.slow
def test_momentum_that_is_carried_into_another_basis_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_sgd_does_not_move("svd", rotation_refresh=10, rotation_transport="carry")


@pytest.mark.parametrize("kind", ["global", "layer", "both", "dct"])
def test_rotated_of_adamw_is_rotated_adamw(kind: str) -> None:
    """Two implementations: one's own moments, and torch's fused AdamW on the rotated problem."""
    values = {
        "lr": 0.02,
        "rotation": kind,
        "rotation_block": 7,
        "rotation_refresh": 5,
        "weight_decay": 0.1,
        "eps": 1e-3,
    }
    ours = Run(lambda m: optim_core.build("rotated_adamw", m, **values))
    other = Run(lambda m: optim_core.build("rotated(adamw)", m, **values))
    ours.steps(0, 40)
    other.steps(0, 40)
    assert float((flat(ours.weights()) - flat(other.weights())).abs().max()) <= 1e-10


def test_any_torch_optimizer_can_be_the_base() -> None:
    known = optim_core.hyperparameters("rotated(torch.optim.RMSprop)")
    assert {"alpha", "lr", "rotation", "rotation_block"} <= set(known)
    run = Run(lambda m: optim_core.build("rotated(torch.optim.RMSprop)", m, lr=0.01, rotation="layer"))
    twin = Run(lambda m: optim_core.build("torch.optim.RMSprop", m, lr=0.01))
    same = Run(lambda m: optim_core.build("rotated(torch.optim.RMSprop)", m, lr=0.01))
    assert run.steps(0, 5) != twin.steps(0, 5) == same.steps(0, 5)
    assert equal(same.weights(), twin.weights())
    for name in ("rotated(sam)", "rotated(rotated(sgd))", "rotated(rotated_adamw)"):
        with pytest.raises(KeyError, match="base"):
            optim_core.lookup(name)
    with pytest.raises(ValueError, match="keeps only part"):
        optim_core.build("rotated(sgd)", nn.Linear(2, 2), rotation="galore")
    with pytest.raises(RuntimeError, match="unknown how to move 'sum'"):
        Run(
            lambda m: optim_core.build(
                "rotated(torch.optim.Adagrad)", m, rotation="svd", rotation_refresh=2, rotation_transport="mv"
            )
        ).steps(0, 3)


@pytest.mark.parametrize("name", ["rotated(adamw)", "rotated(torch.optim.RMSprop)"])
@pytest.mark.parametrize("kind", ["layer", "svd"])
def test_rotated_bases_resume_bit_for_bit(name: str, kind: str) -> None:
    def build(m: nn.Module) -> Any:
        return optim_core.build(name, m, lr=0.05, rotation=kind, rotation_refresh=3)

    optimizer_contract.check_resumes_bit_for_bit(build, torch.float32, 4)
    optimizer_contract.check_learning_rate_zero_moves_nothing(build)


@pytest.mark.slow
def test_adam_is_not_equivariant_but_for_signed_permutations() -> None:
    class Flips(Rotation):
        """x -> s * x reversed: a signed permutation inside each tensor."""

        def forward(self, tensors: Any) -> list[Tensor]:
            return [(self._signs(t) * t.reshape(-1)).flip(0).view(t.shape) for t in tensors]

        def backward(self, tensors: Any) -> list[Tensor]:
            return [(self._signs(t) * t.reshape(-1).flip(0)).view(t.shape) for t in tensors]

        def _signs(self, t: Tensor) -> Tensor:
            return torch.where(torch.arange(t.numel()) % 3 == 0, -1.0, 1.0).to(t)

    plain, turned = Run(make("identity")), Run(make("global"))
    flipped = Run(make("layer"))
    space = flipped.optimizer._spaces[0]
    space.rotation = Flips(space.layout.pieces, Options())
    for run in (plain, turned, flipped):
        run.steps(0, 200)
    assert float((flat(plain.weights()) - flat(flipped.weights())).abs().max()) <= 1e-10
    assert distance(plain.weights(), turned.weights()) > 0.1


def test_the_outer_permutations_change_nothing() -> None:
    """pi^-1 (blockdiag R) pi, as the paper has it, gives the trajectory of the shorter map."""
    short, exact = Run(make("global")), Run(make("global"))
    inner = exact.optimizer._spaces[0].rotation.map
    order = inner._order.there.long()

    class Exact(type(inner)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return torch.empty_like(x).index_copy_(0, order, super().forward(x))

        def backward(self, x: Tensor) -> Tensor:
            return super().backward(x[order])

    inner.__class__ = Exact
    short.steps(0, 60)
    exact.steps(0, 60)
    assert float((flat(short.weights()) - flat(exact.weights())).abs().max()) <= 1e-12


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 6)])
def test_one_step_with_no_memory_is_the_polar_factor(shape: tuple[int, int]) -> None:
    """beta1 = beta2 = 0 and a basis of the same step: U V^T, Muon's direction."""
    torch.manual_seed(3)
    layer = nn.Linear(shape[1], shape[0], bias=False).double()
    g = torch.randn(shape, dtype=torch.float64)
    home = layer.weight.detach().clone()
    optimizer = optim_core.build("rotated_adamw", layer, lr=1.0, rotation="svd", beta1=0.0, beta2=0.0, weight_decay=0.0)
    optimizer.step(closure_of(optimizer, lambda: (layer.weight * g).sum()))
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    assert float(s.min()) > 1e-2
    assert float((home - layer.weight.detach() - u @ vt).abs().max()) <= 1e-5


def test_several_groups_have_their_own_rates_and_rotations() -> None:
    def build(m: nn.Module) -> Any:
        named = list(m.named_parameters())
        groups = [
            {"params": named[:2], "lr": 0.0},
            {"params": named[2:], "lr": 0.02, "rotation": "svd", "rotation_refresh": 3},
        ]
        return optim_core.lookup("rotated_adamw")(groups)

    run = Run(build)
    before = run.weights()
    run.steps(0, 8)
    after = run.weights()
    assert equal(after[:2], before[:2])
    assert not torch.equal(after[2], before[2])
    optimizer_contract.check_resumes_bit_for_bit(build, torch.float32, 4)
    with pytest.raises(ValueError, match="mixes tensors"):
        optim_core.lookup("rotated_adamw")(
            [{"params": [("a", nn.Parameter(torch.ones(2)))]}, {"params": [("b", nn.Parameter(torch.ones(2)))]}],
            rotation="global",
        )


def test_a_parameter_without_gradient_stays_and_has_no_state() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 3), "idle": nn.Linear(3, 3)}).double()
    for kind in ("layer", "svd", "global"):
        optimizer = optim_core.build("rotated_adamw", model, rotation=kind, lr=0.1)
        home = model["idle"].weight.detach().clone()
        use = ["used"]
        closure = closure_of(
            optimizer,
            lambda use=use: sum((model[name](torch.ones(2, 3, dtype=torch.float64)) ** 2).sum() for name in use),
        )
        optimizer.step(closure)
        assert torch.equal(model["idle"].weight, home)
        assert model["idle"].weight not in optimizer.state
        use.append("idle")
        if kind == "global":
            with pytest.raises(RuntimeError, match="another set of parameters"):
                optimizer.step(closure)
        else:
            optimizer.step(closure)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rotation": "gloabl"}, "it must be one of"),
        ({"rotation_transport": "m"}, "reordered and change sign"),
        ({"rotation": "svd", "rotation_include": "wieght"}, "'wieght' matches no parameter of: weight, bias"),
        ({"rotation": "svd", "rotation_exclude": "embed"}, "'embed' matches no parameter"),
        ({"rotation": "svd", "rotation_include": "bias"}, "rotates none of the parameters .only matrices"),
        ({"rotation": "global", "rotation_exclude": "*"}, "rotates none"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim_core.build("rotated_adamw", nn.Linear(2, 2), **values)


def test_names_are_needed() -> None:
    with pytest.raises(TypeError, match="named_parameters"):
        optim_core.lookup("rotated_adamw")(nn.Linear(2, 2).parameters())


def test_egop_pays_for_its_samples_and_leaves_no_trace() -> None:
    def network(m: nn.Module) -> Any:
        return optim_core.build("rotated_adamw", m, lr=0.0, rotation="egop", rotation_samples=4)

    run = Run(network)
    before = run.weights()
    assert run.optimizer.next_cost() == 5
    with pytest.raises(ValueError, match="lower rotation_samples"):
        run.optimizer.freeze()
    run.closure(0)()
    gradients = [p.grad.clone() for p in run.model.parameters() if p.grad is not None]
    run.calls = 0
    run.steps(0, 1)
    assert run.calls == run.optimizer.grad_evals == 5
    assert run.optimizer.next_cost() == 1
    assert equal(run.weights(), before)
    assert equal([p.grad for p in run.model.parameters() if p.grad is not None], gradients)


def test_the_cost_of_the_first_step_is_what_it_charges_with_several_groups() -> None:
    def build(m: nn.Module) -> Any:
        named = list(m.named_parameters())
        groups = [{"params": named[:2]}, {"params": named[2:], "rotation_samples": 3}]
        return optim_core.lookup("rotated_adamw")(groups, rotation="egop", rotation_samples=4)

    run = Run(build)
    announced = run.optimizer.next_cost()
    run.steps(0, 1)
    assert announced == run.optimizer.grad_evals == run.calls == 8
    assert optim_core.cost_of_start("rotated_adamw", rotation="egop", rotation_samples=4) == 4
    assert optim_core.cost_of_start("rotated(sgd)", rotation="svd") == optim_core.cost_of_start("sam") == 0


def test_failures_reach_the_optimizer() -> None:
    run = Run(make("soap_eig", rotation_refresh=2))
    run.steps(0, 2)
    state = run.optimizer.state[run.model[0].weight]
    basis = state["rotation/left"].clone()
    state["rotation/gram_left"].fill_(float("nan"))
    run.steps(2, 4)
    assert run.optimizer.refresh_failures == 1
    assert torch.equal(state["rotation/left"], basis)


def test_a_gradient_that_is_not_finite_never_reaches_the_basis() -> None:
    run = Run(make("svd", rotation_refresh=2))
    run.steps(0, 3)
    inner = run.closure(3)

    def closure() -> Tensor:
        loss = inner()
        run.model[0].weight.grad.fill_(float("nan"))
        return loss

    with pytest.warns(RuntimeWarning, match="not finite"):
        run.optimizer.step(closure)
    assert (run.optimizer.skipped_steps, run.optimizer.refresh_failures) == (1, 0)
    assert all(torch.isfinite(v).all() for k, v in run.optimizer.state[run.model[0].weight].items() if "rotation" in k)


def test_float32_moments_beside_bfloat16_weights() -> None:
    run = Run(make("both"), torch.bfloat16)
    run.steps(0, 2)
    weight = run.model[0].weight
    assert run.optimizer.state[weight]["exp_avg"].dtype == torch.float32
    assert weight.dtype == torch.bfloat16


def test_galore_keeps_small_moments() -> None:
    run = Run(make("galore", rotation_rank=2))
    run.steps(0, 2)
    assert run.optimizer.state[run.model[0].weight]["exp_avg"].shape == (2, 6)
    assert rotations.lookup("galore").COMPLETE is False


@pytest.mark.slow
def test_soap_is_an_arm_by_its_dotted_name() -> None:
    def build(m: nn.Module) -> Any:
        return optim_core.build("pytorch_optimizer.SOAP", m, lr=0.02, precondition_frequency=3)

    assert "precondition_frequency" in optim_core.hyperparameters("pytorch_optimizer.SOAP")
    optimizer_contract.check_counts(build)
    optimizer_contract.check_resumes_bit_for_bit(build, torch.float32, 4)
    run = Run(build)
    losses = run.steps(0, 60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
