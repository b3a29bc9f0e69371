"""Common part of optimizers in a rotated basis: a space per parameter group, refresh by a stored counter, sampling.

Learned bases are kept in `state[p]["rotation/..."]`, the step counter and the count of failures in the parameter
groups, so that `state_dict` holds tensors, numbers and text, and a resumed run refreshes at the same steps.

A step calls `enter`, moves the returned parameters, and calls `leave`. A kind that learns after the step spends the
first gradient of a parameter on its basis: `enter` omits that parameter, and at the first step of a group the whole
group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from optim_core import registry
from optim_core.base import Closure, Counting
from optim_core.declarations import COUNT, IDENTITY_ROTATION, NOT_NEGATIVE, SGD_UNDER_ROTATION, SHARE, Limit
from optim_core.fresh import gradients
from optim_core.rotations import Options, kinds, lookup
from optim_core.rotations.base import PREFIX, hyperparameter
from optim_core.rotations.haar import generator
from optim_core.rotations.layout import bare_names, words_of
from optim_core.rotations.space import Space

FAILURES = "refresh_failures"


def limits_under_rotation(base: str, inner: type[Counting], *, deviation: float = 0.0) -> tuple[Limit, ...]:
    """Limits of the optimizer `inner`, named `base`, in a rotated basis: with the identity it is unchanged.

    If it is equivariant, or takes the steps of one that is, that also holds for every complete rotation that spends no
    gradient on its first basis.
    """
    complete = {"rotation": tuple(kind for kind in kinds() if lookup(kind).COMPLETE)}
    known = registry.registered()
    ours = [limit for limit in inner.LIMITS if limit.equals in known]
    found = [limit for limit in ours if registry.lookup(limit.equals).EQUIVARIANT is not None]
    if inner.EQUIVARIANT is not None:
        found.append(Limit(equals=base, at=inner.EQUIVARIANT, probe={inner.LEARNING_RATE: 0.02}, deviation=1e-10))
    unmoved = [
        replace(
            limit,
            at={**limit.at, "rotation_update": "before_step"},
            where=complete,
            nested=False,
            control=SGD_UNDER_ROTATION,
        )
        for limit in found
    ]
    plain = Limit(equals=base, at={"rotation": "identity"}, deviation=deviation, control=IDENTITY_ROTATION)
    return *unmoved, plain


class Turned(Counting):
    """An optimizer with a `Space` per parameter group. It takes (name, tensor) pairs: names seed rotations."""

    CHANGEABLE = frozenset({"rotation_refresh", "rotation_ema"})
    REFRESH_INTERVAL = "rotation_refresh"
    BOUNDS: ClassVar = {
        "rotation_refresh": NOT_NEGATIVE, "rotation_ema": SHARE, "rotation_rank": COUNT, "rotation_rounds": COUNT,
        "rotation_samples": COUNT, "rotation_block": COUNT, "rotation_angle": (0.0, math.pi / 4),
    }  # fmt: skip
    _words: Mapping[str, frozenset[str]]
    _buffers: Sequence[Tensor]
    _spaces: list[Space]
    _trained: set[int]
    """Groups with a known set of parameters that get gradients."""

    def why_not_sharded(self, group: Mapping[str, Any]) -> str:
        """Kinds that mix tensors have no layers, and sampling perturbs whole weights."""
        options = Options.of(group)
        kind = lookup(options.kind)
        if kind.MIXES or kind.samples(options):
            return (
                f"rotation {options.kind!r} needs the weights of all layers at once; 'layer' and 'svd', for example, "
                "do not"
            )
        return ""

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over all named parameters of `model`; its modules identify embeddings and norms."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return cls(named, model=model, **hyperparameters)  # type: ignore[call-arg]

    @classmethod
    def cost_of_start(cls, **hyperparameters: Any) -> float:
        """The gradients sampled by the kind. Bases refreshed from the steps' gradients cost none."""
        options = Options.of(hyperparameters)
        return float(lookup(options.kind).samples(options))

    @property
    def refresh_failures(self) -> int:
        """Bases that could not be computed so far; the previous ones were kept."""
        return int(sum(group[FAILURES] for group in self.param_groups))

    def open_spaces(self, model: nn.Module | None) -> None:
        """Create the space of every group. Raises ValueError for a filter without a match or nothing to rotate."""
        self._words = words_of(model)
        self._buffers = list(model.buffers()) if model is not None else []
        self._spaces, self._trained = [], set()
        for group in self.param_groups:
            self._open(group)
        self._check_filters()

    def _open(self, group: dict[str, Any]) -> None:
        group.setdefault("step", 0)
        group.setdefault(FAILURES, 0)
        self._spaces.append(self._space(group, group["params"]))

    def _check_filters(self) -> None:
        rotating = [s for s in self._spaces if not s.is_identity]
        hit = {pattern for s in rotating for pattern in s.layout.patterns - s.layout.unmatched}
        for pattern in sorted({pattern for s in rotating for pattern in s.layout.unmatched} - hit):
            names = ", ".join(n for s in rotating for n in s.names)
            raise ValueError(f"rotation_include or rotation_exclude: {pattern!r} matches no parameter of: {names}")
        if rotating and not any(s.layout.pieces for s in rotating):
            kind = self.param_groups[0]["rotation"]
            only = "" if lookup(kind).VECTORS else " (only matrices are, by this kind)"
            raise ValueError(f"rotation {kind!r} rotates none of the parameters{only}; change include and exclude")

    def divided(self) -> None:
        """A space for each of the groups; rotations that mix tensors have only one group."""
        self._check_mixing()
        self._spaces, self._trained = [], set()
        for group in self.param_groups:
            self._open(group)
        self._check_filters()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does; rotations that mix tensors, which then share hyperparameters, have only one group.

        Raises what the constructor would raise, leaving the optimizer without the new group.
        """
        before = len(self.param_groups)
        super().add_param_group(param_group)
        try:
            self._check_mixing()
            if hasattr(self, "_spaces"):
                self._open(self.param_groups[-1])
                self._check_filters()
        except (ValueError, TypeError):
            del self.param_groups[before:]
            if hasattr(self, "_spaces"):
                del self._spaces[before:]
            raise

    def _check_mixing(self) -> None:
        kinds = [group.get("rotation", "identity") for group in self.param_groups]
        if len(kinds) > 1 and any(lookup(kind).MIXES for kind in kinds):
            mixing = next(kind for kind in kinds if lookup(kind).MIXES)
            raise ValueError(
                f"rotation {mixing!r} mixes tensors, which then share one parameter group; use a kind that treats "
                "tensors separately, such as 'layer', or a second optimizer"
            )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load, and restore the learned bases."""
        super().load_state_dict(state_dict)
        self._reopen()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy continues where the original was."""
        with bases_aside(state.get("state", {})):
            super().__setstate__(state)
        if "_words" in state:
            self._reopen()

    def _reopen(self) -> None:
        """Create spaces over the parameters that have trained, or over all if the state does not tell."""
        self._spaces, self._trained = [], set()
        for index, group in enumerate(self.param_groups):
            known = [p for p in group["params"] if p in self.state]
            self._spaces.append(self._space(group, known or group["params"]))
            if known:
                self._trained.add(index)

    def change(self, **values: float) -> None:
        """As every optimizer does; rotation settings are passed to the spaces, which restore their bases."""
        super().change(**values)
        if set(values) & {hyperparameter(f.name) for f in fields(Options)}:
            self._reopen()

    def whole_layers(self) -> AbstractContextManager[None]:
        """Within this context, sharded layers that rotate are whole, on the process that owns them."""
        return self.layers.whole(self, lambda group, p: Options.of(group).kind != "identity")

    def must_know(self) -> bool:
        """Also when a basis is learned; a counter that is too high may say so too early, never too late."""
        if super().must_know():
            return True
        if self._learns():
            self._settled()
        return self._learns()

    def _learns(self) -> bool:
        pairs = [(s, g) for s, g in zip(self._spaces, self.param_groups, strict=True) if not s.is_identity]
        return any(s.refreshes(g["step"] + 1) or bool(s.without_basis()) for s, g in pairs)

    def next_cost(self) -> float:
        """One more for every gradient sampled by the kind, in each group separately."""
        due = (s.samples_due(g["step"] + 1) for s, g in zip(self._spaces, self.param_groups, strict=True))
        return self.GRAD_EVALS + sum(due)

    def freeze(self) -> None:
        """Raise ValueError if the budget ends before a basis could be sampled: never silently use the identity."""
        if self.next_cost() > self.GRAD_EVALS:
            raise ValueError(f"the budget is below the {self.next_cost():g} gradient evaluations of the first step; "
                             "lower rotation_samples or raise the budget")  # fmt: skip

    def forward(self, tensors: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """R of a tensor for each parameter (of all parameters that trained last)."""
        return {
            p: h for s in self._spaces for p, h in zip(s.params, s.forward([tensors[p] for p in s.params]), strict=True)
        }

    def backward(self, tensors: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """R^T of a tensor for each parameter."""
        return {
            p: u
            for s in self._spaces
            for p, u in zip(s.params, s.backward([tensors[p] for p in s.params]), strict=True)
        }

    def enter(self, index: int, closure: Closure | None) -> tuple[Space, list[Tensor], list[Tensor]]:
        """(space, parameters to move, their rotated gradients) of a group; a basis that is due is refreshed first.

        Raises RuntimeError if a rotation that mixes tensors gets another set of gradients than before.
        """
        group = self.param_groups[index]
        params = [p for p in group["params"] if p.grad is not None]
        space = self._space_over(index, params)
        if space.fits_after and space.without_basis():
            params = self._first_bases(index, params, space.without_basis())
            space = self._space(group, params)
        if params:
            self._trained.add(index)
        if not params or space.is_identity:
            return space, params, gradients(params)
        if not space.fits_after:
            self._refresh(space, group, closure)
        return space, params, space.forward(gradients(params))

    def leave(self, index: int, space: Space, params: Sequence[Tensor]) -> None:
        """After the step: refresh what learns then, and store what was learned in the parameters' state."""
        if space.fits_after:
            group = self.param_groups[index]
            group[FAILURES] += space.fit([gradients(params)], group["step"], self._skipped)
            self._follow(space)
        self._keep(space)
        if space is not self._spaces[index]:
            self._spaces[index] = self._space(self.param_groups[index], self._spaces[index].params)

    def move_moments(self, space: Space) -> None:
        """Move moments into the basis just learned by `space`."""
        raise NotImplementedError

    def _refresh(self, space: Space, group: dict[str, Any], closure: Closure | None) -> None:
        count = space.samples_due(group["step"] + 1)
        samples = self._sampled(closure, space.params, count, Options.of(group).key) if count else None
        group[FAILURES] += space.fit(samples or [gradients(space.params)], group["step"] + 1, self._skipped)
        self._follow(space)

    def _follow(self, space: Space) -> None:
        if space.has_changed:
            self.move_moments(space)
        space.settle()

    def _first_bases(self, index: int, params: list[Tensor], fresh: list[Tensor]) -> list[Tensor]:
        """Spend the gradients of `fresh` on their first bases; returns the parameters that move in this step."""
        group = self.param_groups[index]
        learner = self._space(group, fresh)
        group[FAILURES] += learner.fit([gradients(fresh)], group["step"])
        self._keep(learner)
        self._spaces[index] = self._space(group, params)
        return [p for p in params if not any(p is f for f in fresh)] if group["step"] else []

    def _space_over(self, index: int, params: list[Tensor]) -> Space:
        """The space of a group over only these parameters."""
        if len(params) != len(self._spaces[index].params) or any(
            a is not b for a, b in zip(params, self._spaces[index].params, strict=True)
        ):
            if self._spaces[index].rotation.MIXES and index in self._trained:
                kind = self.param_groups[index]["rotation"]
                raise RuntimeError(
                    f"rotation {kind!r} mixes tensors, but another set of parameters has gradients now; "
                    "give all of them a gradient at every step, or use a kind that treats tensors separately ('layer')"
                )
            self._spaces[index] = self._space(self.param_groups[index], params)
        return self._spaces[index]

    def _keep(self, space: Space) -> None:
        for p, memory in space.memory.items():
            if memory:
                self.state[p].update(memory)

    def _space(self, group: Mapping[str, Any], params: Sequence[Tensor]) -> Space:
        if "param_names" not in group:
            raise TypeError(f"{type(self).__name__} takes (name, tensor) pairs, for instance model.named_parameters()")
        names = dict(zip(group["params"], bare_names(group["param_names"]), strict=True))
        for p in params:
            if p.is_complex():
                raise TypeError(
                    f"{names[p]} is complex; rotations need real tensors, store it as a pair (view_as_real)"
                )
        return Space([(names[p], p) for p in params], Options.of(group), self._words, self.state)

    @torch.no_grad()
    def _sampled(self, closure: Closure | None, params: list[Tensor], count: int, key: str) -> list[list[Tensor]]:
        """Gradients at `count` points N(w, rms(w)^2); weights, gradients and buffers are restored bit for bit."""
        home = [(t, t.clone()) for t in (*params, *self._buffers)]
        everything = [p for group in self.param_groups for p in group["params"]]
        kept = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in everything]
        draws = generator("egop", key)
        found = []
        try:
            for _ in range(count):
                for p, w in home[: len(params)]:
                    noise = torch.randn(p.shape, generator=draws, dtype=torch.float32, device="cpu").to(p)
                    p.copy_(w + w.square().mean().sqrt() * noise)
                self.evaluate(closure)
                found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params])
        finally:
            for tensor, saved in home:
                tensor.copy_(saved)
            for p, gradient, value in kept:  # a closure may have zeroed and refilled the same tensor
                p.grad = gradient
                if gradient is not None and value is not None:
                    gradient.copy_(value)
        return found


@contextmanager
def bases_aside(state: MutableMapping[Tensor, dict[str, Any]]) -> Iterator[None]:
    """Take learned bases out of an optimizer's state: torch's optimizers initialize only an empty state."""
    learned = {p: {k: own.pop(k) for k in list(own) if k.startswith(PREFIX)} for p, own in state.items()}
    for p in [p for p, own in state.items() if not own]:
        del state[p]
    yield
    for p, bases in learned.items():
        if bases:
            state.setdefault(p, {}).update(bases)
