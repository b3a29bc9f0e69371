"""Every registered optimizer runs the contract of memory order, copies, groups, odd parameters, hooks and wrappers."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import optim_core
from optim_core import rotations
from tests.contracts import layout_contract as contract

NAMES = [*optim_core.names(), "rotated(adamw)"]
BARE = [n for n in NAMES if not optim_core.lookup(n).PLAYS_GAMES and not optim_core.needs_batches(n)]
ONE_RATE = [n for n in NAMES if {"lr"} <= set(optim_core.hyperparameters(n)) and n in BARE]
ON_ADAMW = [
    *((name, {"base": "adamw", "structure": s}) for name in ("llqr", "llqr_sam") for s in ("diagonal", "kronecker")),
    ("llqr", {"base": "adamw", "structure": "kronecker", "apply_to": "update"}),
    ("sam", {"base": "adamw"}),
    *((name, {"rotation": kind}) for name in ("rotated_adamw", "rotated(adamw)") for kind in ("global", "soap_eig")),
    ("rotated_adamw", {"rotation": "svd", "rotation_exclude": "0.weight"}),
    ("rotated_adamw", {"rotation": "identity"}),
]
"""Arms whose steps are AdamW's: its fused kernel walks through memory."""


def maker(name: str) -> Any:
    """Over a model, or over pairs of names and parameters."""

    def make(given: Any) -> Any:
        values = contract.settings(name)
        if isinstance(given, list):
            return optim_core.lookup(name)(given, **values)  # type: ignore[call-arg]
        return optim_core.build(name, given, **values)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_memory_order_does_not_matter(name: str) -> None:
    contract.check_memory_order_does_not_matter(name)


@pytest.mark.slow
@pytest.mark.parametrize("name, values", [*((n, {}) for n in NAMES if not optim_core.lookup(n).PLAYS_GAMES), *ON_ADAMW])
def test_gaps_in_memory_do_not_matter(name: str, values: dict[str, Any]) -> None:
    contract.check_gaps_in_memory_do_not_matter(name, **values)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_resumes_in_another_memory_order(name: str) -> None:
    contract.check_resumes_in_another_memory_order(name)


@pytest.mark.slow
@pytest.mark.parametrize("name, values", ON_ADAMW)
def test_memory_order_does_not_matter_to_adamw_behind(name: str, values: dict[str, Any]) -> None:
    contract.check_memory_order_does_not_matter(name, **values)
    contract.check_resumes_in_another_memory_order(name, **values)


@pytest.mark.slow
@pytest.mark.parametrize("copied", [copy.deepcopy, contract.by_pickle], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", [*NAMES, "torch.optim.RMSprop", "rotated(torch.optim.RMSprop)"])
def test_copies_go_on(name: str, copied: Any) -> None:
    contract.check_copies_go_on(name, copied)


@pytest.mark.parametrize("name", BARE)
def test_odd_parameters_train(name: str) -> None:
    contract.check_odd_parameters_train(maker(name))


@pytest.mark.parametrize("name", BARE)
def test_a_sparse_gradient_moves_all_or_nothing(name: str) -> None:
    contract.check_a_sparse_gradient_moves_all_or_nothing(maker(name))


@pytest.mark.parametrize("name", BARE)
def test_late_groups_train_and_resume(name: str) -> None:
    contract.check_late_groups_train_and_resume(maker(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_hooks_run_once(name: str) -> None:
    contract.check_hooks_run_once(name)


@pytest.mark.parametrize("name", ONE_RATE)
def test_follows_one_cycle(name: str) -> None:
    contract.check_follows_one_cycle(name)


@pytest.mark.parametrize("name", BARE)
def test_precision_of_products_is_its_own(name: str) -> None:
    contract.check_precision_of_products_is_its_own(name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", rotations.kinds())
def test_wrappers_do_not_matter(kind: str) -> None:
    values = {"rotation": kind, "rotation_block": 5, "rotation_samples": 2, "rotation_rank": 2, "rotation_max_dim": 64}
    contract.check_wrappers_do_not_matter("rotated_adamw", **values)
