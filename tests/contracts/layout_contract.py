"""What every registered optimizer promises about memory order, copies, groups, odd parameters, hooks and wrappers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import optim_core
from tests.closures import closure_of
from tests.contracts.optimizer_contract import SETTINGS, GameRun, Run, equal

Make = Callable[[Any], Any]


def settings(name: str, longest: int = 5) -> dict[str, Any]:
    """Constructor values with which rounding stays rounding: muon in float64, no basis of the null space of images."""
    axes = {"max_precond_dim": longest, "precondition_frequency": 2}
    in_float64 = {"newton_schulz_dtype": "float64"}
    exact = {
        "muon": in_float64,
        "normuon": in_float64,
        "soap": axes,
        "kl_shampoo": axes,
        "splus": {"max_precond_dim": 2, "precondition_frequency": 2},  # a head before a softmax: one null direction
        "shampoo": {**axes, "epsilon": 1e-3, "precondition_1d": False},
    }
    turned = {"rotation": "svd", "rotation_refresh": 2, "rotation_max_dim": longest} if "rotat" in name else {}
    return {**SETTINGS.get(name, {"lr": 0.05}), **exact.get(name, {}), **turned}


class Images(nn.Sequential):
    """Two convolutions and a head on images [2, 5, 5]; the weights are drawn from a fixed seed."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
        self.to(dtype)
        draws = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=draws, dtype=torch.float64))


def images(index: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A batch of eight."""
    draws = torch.Generator().manual_seed(index)
    x = 0.5 * torch.randn(8, 2, 5, 5, generator=draws, dtype=torch.float64).to(dtype)
    return x, torch.randint(3, (8,), generator=draws)


def other_images(index: int) -> tuple[Tensor, Tensor]:
    """Batches of a stream of their own."""
    return images(10_000 + index)


def build(name: str, model: Any, **more: Any) -> Any:
    """The optimizer; with batches of images where it draws its own."""
    own = {}
    if optim_core.needs_batches(name):
        own = {"loss": nn.functional.cross_entropy, "refresh_batches": other_images}
    return optim_core.build(name, model, **{**settings(name), **own, **more})


def spread(model: nn.Module) -> list[Tensor]:
    """Give every parameter gaps in memory, as a column of a matrix has; returns that memory, with sevens between."""
    homes = []
    for p in model.parameters():
        homes.append(torch.full((*p.shape, 2), 7.0, dtype=p.dtype))
        homes[-1][..., 0] = p.data
        p.data = homes[-1][..., 0]
    return homes


class ImageRun(Run):
    """An optimizer on the images."""

    def __init__(self, name: str, *, channels_last: bool = False, gaps: bool = False, **more: Any) -> None:
        self.model, self.batch = Images(), images
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.homes = spread(self.model) if gaps else []
        self.optimizer = build(name, self.model, **more)
        self.calls = 0


class ImageGame(GameRun):
    """The classifier of images against one who shifts them."""

    def __init__(self, name: str, *, channels_last: bool = False, **more: Any) -> None:
        torch.manual_seed(2)
        self.model = nn.ModuleList([Images(), nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64)])
        self.batch = images
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = build(name, list(self.model), **more)
        self.calls = 0


def begin(name: str, **values: Any) -> Run:
    """A run on images, of one model or of players."""
    return (ImageGame if optim_core.lookup(name).PLAYS_GAMES else ImageRun)(name, **values)


def check_memory_order_does_not_matter(name: str, **values: Any) -> None:
    """channels_last weights, and with them gradients: the same run, and the weights stay so."""
    plain, turned = begin(name, **values), begin(name, channels_last=True, **values)
    plain.steps(0, 5)
    turned.steps(0, 5)
    for a, b in zip(plain.weights(), turned.weights(), strict=True):
        assert float((a - b).abs().max()) <= 1e-8
    strides = [[p.stride() for p in r.model.parameters()] for r in (begin(name, channels_last=True, **values), turned)]
    assert strides[0] == strides[1]


def check_gaps_in_memory_do_not_matter(name: str, **values: Any) -> None:
    """The same run, in the same places, and nothing is written between them."""
    plain, spaced = ImageRun(name, **values), ImageRun(name, gaps=True, **values)
    plain.steps(0, 5)
    spaced.steps(0, 5)
    for a, b, home in zip(plain.weights(), spaced.weights(), spaced.homes, strict=True):
        assert float((a - b).abs().max()) <= 1e-8
        assert torch.equal(home[..., 0], b)
        assert torch.equal(home[..., 1], torch.full_like(b, 7.0))


def check_resumes_in_another_memory_order(name: str, **values: Any) -> None:
    """A checkpoint of contiguous weights goes on in a channels_last model."""
    whole = begin(name, **values)
    whole.steps(0, 3)
    again = begin(name, channels_last=True, **values)
    again.model.load_state_dict(copy.deepcopy(whole.model.state_dict()))
    again.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    whole.steps(3, 6)
    again.steps(3, 6)
    for a, b in zip(whole.weights(), again.weights(), strict=True):
        assert float((a - b).abs().max()) <= 1e-8


def check_copies_go_on(name: str, copied: Callable[[Any], Any]) -> None:
    """A copy of model and optimizer takes the steps that the original takes."""
    run = begin(name)
    run.steps(0, 3)
    twin = copy.copy(run)
    twin.model, twin.optimizer = copied((run.model, run.optimizer))
    home, losses = run.weights(), twin.steps(3, 6)
    assert equal(run.weights(), home), "it trains apart from its copy"
    assert losses == run.steps(3, 6)
    assert equal(twin.weights(), run.weights())
    assert twin.optimizer.grad_evals == run.optimizer.grad_evals


def by_pickle(pair: Any) -> Any:
    """Through bytes."""
    return pickle.loads(pickle.dumps(pair))


class Bowl(nn.Module):
    """Half the squared norm of parameters of any shapes."""

    def __init__(self, **parameters: Tensor) -> None:
        super().__init__()
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))

    def closure(self, optimizer: Any) -> Callable[[], Tensor]:
        return closure_of(optimizer, lambda: torch.stack([(p**2).sum() for p in self.parameters()]).sum() / 2)

    def train_with(self, optimizer: Any, steps: int) -> float:
        """The last loss."""
        loss = torch.zeros(())
        for _ in range(steps):
            loss = optimizer.step(self.closure(optimizer))
        return float(loss.detach())


def odd() -> Bowl:
    """A matrix, a vector, a scalar and two tensors without entries."""
    draws = torch.Generator().manual_seed(1)
    return Bowl(
        matrix=torch.randn(4, 3, generator=draws, dtype=torch.float64),
        vector=torch.ones(3, dtype=torch.float64),
        scalar=torch.tensor(2.0, dtype=torch.float64),
        no_rows=torch.zeros(0, 4, dtype=torch.float64),
        nothing=torch.zeros(0, dtype=torch.float64),
    )


def check_odd_parameters_train(make: Make) -> None:
    """Scalars and empty tensors."""
    model = odd()
    optimizer = make(model)
    first = model.train_with(optimizer, 1)
    model.train_with(optimizer, 5)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert model.train_with(optimizer, 1) < first


def check_a_sparse_gradient_moves_all_or_nothing(make: Make) -> None:
    """Where it is refused, whichever parameter has it, none has moved."""
    for by_pairs in (True, False):
        model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 4), nn.Linear(4, 2)).double()
        pairs = [(f"{i}.{name}", p) for i in (2, 1, 0) for name, p in model[i].named_parameters()]
        optimizer = make(pairs if by_pairs else model)
        closure = closure_of(optimizer, lambda model=model: model(torch.tensor([1, 2])).square().sum())
        before = [p.detach().clone() for p in model.parameters()]
        try:
            optimizer.step(closure)
        except RuntimeError as error:
            assert "sparse" in str(error).lower()
            assert equal(before, [p.detach() for p in model.parameters()])
        else:
            assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def check_late_groups_train_and_resume(make: Make) -> None:
    """A group added after steps moves with the others, keeps its names, and comes back from a checkpoint."""

    def grown(steps: int) -> tuple[Bowl, Any]:
        model = Bowl(
            first=torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
            second=torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
            bias=torch.ones(3, dtype=torch.float64),
        )
        optimizer = make([("first", model.first)])
        model.train_with(optimizer, steps)
        optimizer.add_param_group({"params": [("second", model.second), ("bias", model.bias)]})
        return model, optimizer

    model, optimizer = grown(2)
    assert sorted(n for g in optimizer.param_groups for n in g["param_names"]) == ["bias", "first", "second"]
    home = [p.detach().clone() for p in model.parameters()]
    model.train_with(optimizer, 3)
    assert all(not torch.equal(p, w) for p, w in zip(model.parameters(), home, strict=True))
    twin, resumed = grown(0)
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    model.train_with(optimizer, 3)
    twin.train_with(resumed, 3)
    assert equal([p.detach() for p in twin.parameters()], [p.detach() for p in model.parameters()])


def check_hooks_run_once(name: str) -> None:
    """Also after a plain optimizer of every class behind was made, whose step torch then wraps in its hooks."""
    run = begin(name)
    for cls in type(run.optimizer).__mro__:
        if cls.__module__.startswith("torch.optim.") and cls is not torch.optim.Optimizer:
            cls([torch.nn.Parameter(torch.ones(2, 2))], lr=0.1)
    torch.optim.AdamW([torch.nn.Parameter(torch.ones(2, 2))])
    seen: list[str] = []
    run.optimizer.register_step_pre_hook(lambda *_: seen.append("own before"))
    run.optimizer.register_step_post_hook(lambda *_: seen.append("own after"))
    before = register_optimizer_step_pre_hook(lambda *_: seen.append("before"))
    after = register_optimizer_step_post_hook(lambda *_: seen.append("after"))
    try:
        run.steps(0, 1)
    finally:
        before.remove()
        after.remove()
    assert sorted(seen) == ["after", "before", "own after", "own before"]


def check_follows_one_cycle(name: str) -> None:
    """OneCycleLR moves lr, and momentum or beta1 with it: another run than with the rate alone."""

    def cycled(momentum: bool) -> list[Tensor]:
        run = begin(name)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            run.optimizer, max_lr=0.02, total_steps=8, cycle_momentum=momentum
        )
        for index in range(7):
            run.steps(index, index + 1)
            scheduler.step()
        return run.weights()

    assert not equal(cycled(True), cycled(False))


def check_precision_of_products_is_its_own(name: str) -> None:
    """float32 products that the user has reduced to bfloat16 change nothing of the step, given the same gradients."""

    def final(precision: str) -> list[Tensor]:
        draws = torch.Generator().manual_seed(3)
        model = Bowl(a=torch.randn(24, 20, generator=draws), b=torch.randn(20, 20, generator=draws))
        optimizer = optim_core.build(name, model, **settings(name, longest=64))
        torch.set_float32_matmul_precision(precision)
        try:
            model.train_with(optimizer, 4)
            assert torch.get_float32_matmul_precision() == precision
        finally:
            torch.set_float32_matmul_precision("highest")
        return [p.detach() for p in model.parameters()]

    assert equal(final("highest"), final("medium"))


def check_wrappers_do_not_matter(name: str, **values: Any) -> None:
    """The same run bare, as a module of a module (as data parallelism has it) and compiled."""

    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module, attribute: str) -> None:
            super().__init__()
            self.add_module(attribute, inner)

    def final(*wrappers: str) -> list[Tensor]:
        run = ImageRun(name)
        model: nn.Module = run.model
        for attribute in wrappers:
            model = Wrapped(model, attribute)
        run.optimizer = build(name, model, **values)
        run.steps(0, 4)
        return run.weights()

    bare = final()
    for wrappers in (("module",), ("_orig_mod",), ("_orig_mod", "module"), ("module", "_orig_mod")):
        assert equal(final(*wrappers), bare), wrappers
