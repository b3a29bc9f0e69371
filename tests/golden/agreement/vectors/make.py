"""Writes the agreement files by running the authors' own code.

    python -m tests.golden.agreement.vectors.make FOLDER

FOLDER holds a checkout of each repository in SOURCES, as FOLDER/owner+name. Classes are taken out of their files and
run as they are; nothing of them is kept here but the numbers. `fisher_sam` needs jax.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.golden.agreement.vectors.problems import STEPS, loss_at, network, sizes

SOURCES = {
    "sam": ("davda54/sam", "sam.py", "SAM"),
    "asam": ("SamsungLabs/ASAM", "asam.py", "ASAM"),
    "friendly_sam": ("nblt/F-SAM", "utils.py", "FriendlySAM"),
    "gsam": ("juntang-zhuang/GSAM", "gsam/gsam.py", "GSAM"),
    "fisher_sam": ("SimonDufLab/LLQR", "lqr_optimizer/_src/utils/utils.py", "make_fisher_sam_perturbation_from_grad"),
    "schedule_free_sgd": ("facebookresearch/schedule_free", "schedulefree/sgd_schedulefree.py", "SGDScheduleFree"),
    "schedule_free_adamw": (
        "facebookresearch/schedule_free",
        "schedulefree/adamw_schedulefree.py",
        "AdamWScheduleFree",
    ),
}
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
PLAIN = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
ADAMW = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.1}
Run = Callable[[nn.Module, str], list[float]]


def taken_out(path: Path, name: str, **known: Any) -> Any:
    """One class or function of a file, with torch and what it needs besides in its globals."""
    tree = ast.parse(path.read_text())
    body = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
    found: dict[str, Any] = {"torch": torch, **known}
    exec(compile(ast.Module(body=body, type_ignores=[]), str(path), "exec"), found)
    return found[name]


def gradient(model: nn.Module, kind: str, index: int) -> Tensor:
    loss = loss_at(model, kind, index)()
    loss.backward()
    return loss.detach()


def halves(make: Callable[[nn.Module], Any]) -> Run:
    """Training with `first_step` and `second_step`."""

    def run(model: nn.Module, kind: str) -> list[float]:
        optimizer, losses = make(model), []
        for index in range(STEPS):
            losses.append(float(gradient(model, kind, index)))
            optimizer.first_step(zero_grad=True)
            gradient(model, kind, index)
            optimizer.second_step(zero_grad=True)
        return losses

    return run


def asam(cls: Any, base: Callable[[Any], Any], **values: Any) -> Run:
    def run(model: nn.Module, kind: str) -> list[float]:
        optimizer, losses = cls(base(model.parameters()), model, **values), []
        for index in range(STEPS):
            losses.append(float(gradient(model, kind, index)))
            optimizer.ascent_step()
            gradient(model, kind, index)
            optimizer.descent_step()
        return losses

    return run


def gsam(cls: Any, base: Callable[[Any], Any], radius: float, alpha: float) -> Run:
    def run(model: nn.Module, kind: str) -> list[float]:
        inner = base(model.parameters())
        scheduler = types.SimpleNamespace(step=lambda: radius)
        optimizer, losses = cls(model.parameters(), inner, model, alpha, scheduler), []
        for index in range(STEPS):

            def closure(index: int = index) -> tuple[None, Tensor]:
                inner.zero_grad()
                with torch.enable_grad():
                    return None, gradient(model, kind, index)

            losses.append(float(optimizer.step(closure)[1]))
        return losses

    return run


def fisher(perturbation: Any, base: Callable[[Any], Any], rho: float, eta: float) -> Run:
    import jax

    jax.config.update("jax_enable_x64", True)

    def run(model: nn.Module, kind: str) -> list[float]:
        inner, losses, params = base(model.parameters()), [], list(model.parameters())
        for index in range(STEPS):
            inner.zero_grad()
            losses.append(float(gradient(model, kind, index)))
            home = [p.detach().clone() for p in params]
            grads = [p.grad.numpy() for p in params if p.grad is not None]
            moves = perturbation(grad=grads, rho=rho, eta=eta, eps=0.0)
            with torch.no_grad():
                for p, move in zip(params, moves, strict=True):
                    p.add_(torch.tensor(jax.device_get(move)))
            inner.zero_grad()
            gradient(model, kind, index)
            with torch.no_grad():
                for p, w in zip(params, home, strict=True):
                    p.copy_(w)
            inner.step()
        return losses

    return run


def schedule_free(cls: Any, **values: Any) -> Run:
    def run(model: nn.Module, kind: str) -> list[float]:
        optimizer, losses = cls(model.parameters(), **values), []
        optimizer.train()
        for index in range(STEPS):
            optimizer.zero_grad()
            losses.append(float(gradient(model, kind, index)))
            optimizer.step()
        optimizer.eval()
        return losses

    return run


def ours(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The base's values under the names of this project."""
    found = {k: v for k, v in values.items() if k != "betas"}
    if "betas" in values:
        found.update(base="adamw", beta1=values["betas"][0], beta2=values["betas"][1])
    return {**found, **more}


def cases(folder: Path) -> dict[str, list[tuple[dict[str, Any], Run]]]:
    """Hyperparameters of ours and a run of theirs, by arm."""

    def path(arm: str) -> Path:
        repository, file, _ = SOURCES[arm]
        return folder / repository.replace("/", "+") / file

    def theirs(arm: str, **known: Any) -> Any:
        return taken_out(path(arm), SOURCES[arm][2], **known)

    bases = {"sgd": (torch.optim.SGD, SGD), "plain": (torch.optim.SGD, PLAIN), "adamw": (torch.optim.AdamW, ADAMW)}
    found: dict[str, list[tuple[dict[str, Any], Run]]] = {arm: [] for arm in SOURCES}
    sam, friendly = theirs("sam"), theirs("friendly_sam", print=lambda *_: None)
    util = _module(path("gsam").with_name("util.py"))
    gsam_class = theirs("gsam", contextlib=contextlib, ReduceOp=torch.distributed.ReduceOp, **vars(util))
    import jax
    import jax.numpy as jnp

    known = {"jax": jax, "jnp": jnp, "_restore_tree_container_like": lambda like, tree: tree,
             "tree_dot": lambda a, b: sum((x * y).sum() for x, y in zip(a, b, strict=True))}  # fmt: skip
    perturbation = theirs("fisher_sam", **known)
    from collections import defaultdict

    asam_class = theirs("asam", defaultdict=defaultdict)
    for make, values in bases.values():
        base = lambda params, make=make, values=values: make(params, **values)  # noqa: E731
        found["sam"].append(
            (
                ours(values, sam_radius=0.3),
                halves(lambda m, make=make, v=values: sam(m.parameters(), make, rho=0.3, **v)),
            )
        )
        found["friendly_sam"].append(
            (
                ours(values, sam_radius=0.2, mean_weight=0.8, mean_decay=0.6),
                halves(
                    lambda m, make=make, v=values: friendly(m.parameters(), make, rho=0.2, sigma=0.8, lmbda=0.6, **v)
                ),
            )
        )
        found["asam"].append((ours(values, sam_radius=0.5, adaptivity=0.01), asam(asam_class, base, rho=0.5, eta=0.01)))
        found["gsam"].append((ours(values, sam_radius=0.3, gap_weight=0.4), gsam(gsam_class, base, 0.3, 0.4)))
        found["fisher_sam"].append(
            (ours(values, sam_radius=0.1 / 0.1**0.5, fisher_weight=10.0), fisher(perturbation, base, 0.1, 0.1))
        )
    sgd, adamw = _module(path("schedule_free_sgd")), _module(path("schedule_free_adamw"))
    for decay, power, warmup in ((0.0, 0.0, 0), (0.01, 0.0, 10), (0.01, 1.5, 10)):
        values = {"weight_decay": decay, "warmup_steps": warmup}
        named = {**values, "average_power": power}
        found["schedule_free_sgd"].append(
            (
                {**named, "lr": 0.3, "momentum": 0.8},
                schedule_free(sgd.SGDScheduleFree, lr=0.3, momentum=0.8, r=power, **values),
            )
        )
        found["schedule_free_adamw"].append(
            (
                {**named, "base": "adamw", "lr": 0.02, "momentum": 0.9, "beta2": 0.95},
                schedule_free(adamw.AdamWScheduleFree, lr=0.02, betas=(0.9, 0.95), r=power, **values),
            )
        )
    return found


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder: Path) -> None:
    for arm, given in cases(folder).items():
        repository, file, name = SOURCES[arm]
        place = folder / repository.replace("/", "+")
        commit = subprocess.run(
            ["git", "-C", str(place), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()
        runs = []
        for values, run in given:
            for kind in ("dense", "conv"):
                model = network(kind)
                with contextlib.redirect_stdout(io.StringIO()):
                    losses = run(model, kind)
                runs.append({"problem": kind, "values": values, "losses": losses, "sizes": sizes(model)})
        source = {"repository": f"github.com/{repository}", "commit": commit, "file": file, "name": name}
        document = {"arm": arm.removesuffix("_sgd").removesuffix("_adamw"), "source": source, "runs": runs}
        (Path(__file__).parent / f"{arm}.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
