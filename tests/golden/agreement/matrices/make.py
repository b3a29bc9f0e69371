"""Write the reference values with the authors' code, from a checkout of its repository:

    python -m tests.golden.agreement.matrices.make soap CHECKOUT

Each file names the repository, the commit and the arguments. The casts inside the authors' code (SOAP and GaLore
decompose in float32, Muon iterates in bfloat16) are lifted to float64 here, so that it is mathematics that is compared.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import math
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from optim_core.probes import normal
from tests.golden.agreement.matrices.problem import FOLDER, MATRICES, SHAPES, Tensors, flat, trajectory

Make = Callable[[Any, Tensors, dict[str, Any]], torch.optim.Optimizer]
SHARED = {"lr": 0.01, "weight_decay": 0.1}


def make_soap(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """SOAP over all tensors."""
    found: torch.optim.Optimizer = module.SOAP(model.parameters(), **values)
    return found


def make_muon(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """Muon on tensors with two or four axes, the authors' Adam on the rest."""
    hidden = [p for p in model.parameters() if p.ndim in (2, 4)]
    rest = [p for p in model.parameters() if p.ndim not in (2, 4)]
    groups = [
        {"params": hidden, "use_muon": True, **values["hidden"]},
        {"params": rest, "use_muon": False, **values["rest"]},
    ]
    found: torch.optim.Optimizer = module.SingleDeviceMuonWithAuxAdam(groups)
    return found


def make_normuon(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """NorMuon on matrices, the authors' Adam on the rest."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "use_muon": True, **values["hidden"]},
        {"params": [p for p in model.parameters() if p.ndim != 2], "use_muon": False, **values["rest"]},
    ]
    found: torch.optim.Optimizer = module.SingleDeviceNorMuonWithAuxAdam(groups)
    return found


def make_shampoo(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """Every axis by itself, everything in float64."""
    kinds = {"adam": module.AdamPreconditionerConfig(beta2=0.999, epsilon=1e-8), "none": None}
    found: torch.optim.Optimizer = module.DistributedShampoo(
        model.parameters(),
        grafting_config=kinds.get(values.pop("grafting"), module.SGDPreconditionerConfig()),
        max_preconditioner_dim=math.inf,
        distributed_config=module.SingleDeviceDistributedConfig(target_parameter_dimensionality=math.inf),
        preconditioner_config=module.RootInvShampooPreconditionerConfig(
            factor_matrix_dtype=torch.float64, inv_factor_matrix_dtype=torch.float64
        ),
        **values,
    )
    return found


def make_kl_shampoo(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """KL-Shampoo over matrices; that code has no vectors."""
    found: torch.optim.Optimizer = module.KLOpt(model.parameters(), cast_dtype=torch.float64, **values)
    return found


def make_galore(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """Every matrix projected."""
    own = {k: values[k] for k in ("rank", "update_proj_gap", "scale", "proj_type")}
    rest = {k: v for k, v in values.items() if k not in own}
    groups = [{"params": list(model.parameters()), **own}]
    found: torch.optim.Optimizer = module.AdamW(groups, no_deprecation_warning=True, **rest)
    return found


def make_splus(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """SPlus over all tensors."""
    found: torch.optim.Optimizer = module.SPlus(model.parameters(), **values)
    return found


def make_psgd_kron(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """Kron with our draws for its own, and with the noise kept out of the step."""
    least, flat, decay = values.pop("least_update_share"), values.pop("update_flat_steps"), values.pop("update_decay")
    schedule = module.precond_update_prob_schedule(1.0, least, decay, flat)
    draws, count = itertools.count(), len(list(model.parameters()))

    def draw(like: Tensor) -> Tensor:
        update, place = divmod(next(draws), count)
        return normal(like.shape, like, 0, update + 1, place)

    module.torch.randn_like = draw
    module.kept = learn = getattr(module, "kept", module._calc_A_and_conjB)
    module._calc_A_and_conjB = lambda expression, g, q: learn(expression, g.clone(), q)
    found: torch.optim.Optimizer = module.Kron(
        model.parameters(), preconditioner_update_probability=schedule, precond_dtype=torch.float64, **values
    )
    return found


def make_dion(module: Any, model: Tensors, values: dict[str, Any]) -> torch.optim.Optimizer:
    """The reference with QR, on matrices, the authors' AdamW on the rest; bases begin as ours do."""
    module.torch.float32 = torch.float64
    matrices = [p for p in model.parameters() if p.ndim == 2]
    groups = [
        {"params": matrices, **values["hidden"]},
        {"params": [p for p in model.parameters() if p.ndim != 2], "algorithm": "adamw", **values["rest"]},
    ]
    found: torch.optim.Optimizer = module.Dion(groups, qr_method="qr")
    for place, p in enumerate(matrices):
        group, state = cast(Any, found.param_groups[0]), found.state[p]
        cast(Any, found)._init_opt_state_dion(p, state, group["rank_fraction"], group["rank_multiple_of"])
        state["Q"] = normal(state["Q"].shape, p, 0, place)
    return found


SOAP_CASES = {
    "defaults": {**SHARED},
    "every step": {**SHARED, "precondition_frequency": 1, "betas": [0.9, 0.99]},
    "vectors too, long axes not": {**SHARED, "precondition_1d": True, "max_precond_dim": 4, "shampoo_beta": 0.8},
}
MUON_CASES = {
    "defaults": {
        "hidden": {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1},
        "rest": {"lr": 0.003, "betas": [0.9, 0.95], "eps": 1e-10, "weight_decay": 0.1},
    }
}
KL_SHAMPOO_CASES = {
    "defaults": {**SHARED},
    "every step": {"lr": 0.003, "weight_decay": 0.0, "precondition_frequency": 1, "betas": [0.8, 0.9], "eps": 1e-3},
}
SHAMPOO = {"lr": 0.0078125, "weight_decay": 0.1, "epsilon": 1e-6, "start_preconditioning_step": 6}
"""A rate that float32, in which that code keeps it, holds exactly; roots from a step on at which no L is singular."""
SHAMPOO_CASES = {
    "adam": {**SHAMPOO, "betas": [0.9, 0.99], "precondition_frequency": 5, "grafting": "adam"},
    "sgd, sums, every step": {**SHAMPOO, "betas": [0.8, 1.0], "precondition_frequency": 1, "grafting": "sgd"},
    "no grafting": {**SHAMPOO, "betas": [0.0, 0.9], "precondition_frequency": 4, "grafting": "none"},
}
NORMUON_CASES = {
    "defaults": {
        "hidden": {"lr": 0.02, "momentum": 0.95, "beta2": 0.95, "weight_decay": 0.1},
        "rest": {"lr": 0.003, "betas": [0.9, 0.95], "eps": 1e-10, "weight_decay": 0.1},
    }
}
GALORE_CASES = {
    "rank 2": {"lr": 0.01, "eps": 1e-30, "rank": 2, "update_proj_gap": 200, "scale": 1.0, "proj_type": "std"},
}
SPLUS_CASES = {
    "defaults": {},
    "often": {"lr": 0.03, "b1": 0.8, "b2": 0.9, "ema_rate": 0.9, "inverse_every": 3, "weight_decay": 0.3},
    "long axes": {"inverse_every": 10, "max_dim": 4.5, "nonstandard_constant": 0.05},
}
"""A greatest length between two whole numbers, where both mean the same axes."""
LEARNING = {"least_update_share": 0.03, "update_flat_steps": 500, "update_decay": 0.001, "merge_dims": False}
PSGD_KRON_CASES = {
    "defaults": {"lr": 0.01, **LEARNING},
    "rarely, decay, gradients": {
        **LEARNING, "lr": 0.02, "b1": 0.5, "weight_decay": 0.1, "precond_lr": 0.3, "precond_init_scale": 0.7,
        "least_update_share": 0.3, "update_flat_steps": 20, "update_decay": 0.1, "momentum_into_precond_update": False,
    },
    "diagonal": {"lr": 0.01, **LEARNING, "max_size_triangular": 4, "memory_save_mode": "smart_one_diag"},
}  # fmt: skip
DION_CASES = {
    "defaults": {
        "hidden": {"lr": 0.01, "mu": 0.95, "weight_decay": 0.01},
        "rest": {"lr": 0.01, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.01},
    },
    "low rank": {
        "hidden": {"lr": 0.03, "mu": 0.8, "weight_decay": 0.1, "rank_fraction": 0.5},
        "rest": {"lr": 0.003, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
    },
}
SOURCES: dict[str, tuple[str, str, Sequence[tuple[int, ...]], dict[str, dict[str, Any]], Make]] = {
    "soap": ("github.com/nikhilvyas/SOAP", "soap", SHAPES, SOAP_CASES, make_soap),
    "muon": ("github.com/KellerJordan/Muon", "muon", tuple(s for s in SHAPES if len(s) != 3), MUON_CASES, make_muon),
    "shampoo": ("github.com/facebookresearch/optimizers", "distributed_shampoo", SHAPES, SHAMPOO_CASES, make_shampoo),
    "kl_shampoo": ("github.com/yorkerlin/KL-Methods", "optim.kl_opt", MATRICES[:3], KL_SHAMPOO_CASES, make_kl_shampoo),
    "normuon": ("github.com/zichongli5/NorMuon", "normuon", (*MATRICES, (3,)), NORMUON_CASES, make_normuon),
    "splus": ("github.com/kvfrans/splus", "torch/splus.py", (*MATRICES, (3,), (2, 3, 2)), SPLUS_CASES, make_splus),
    "psgd_kron": (
        "github.com/evanatyourservice/kron_torch",
        "kron_torch/kron.py",
        (*MATRICES, (3,), (2, 3, 2)),
        PSGD_KRON_CASES,
        make_psgd_kron,
    ),
    "dion": ("github.com/microsoft/dion", "dion.dion_reference", (*MATRICES, (3,)), DION_CASES, make_dion),
    "galore": ("github.com/jiaweizzhao/GaLore", "galore_torch.adamw", MATRICES, GALORE_CASES, make_galore),
}


def stubs(checkout: str) -> dict[str, dict[str, Any]]:
    """What their packages import and do not use here."""
    return {
        "galore_torch": {"__path__": [f"{checkout}/galore_torch"]},
        "dion": {"__path__": [f"{checkout}/dion"]},
        "transformers": {},
        "transformers.utils": {},
        "transformers.utils.versions": {"require_version": lambda *_: None},
        "tensorly": {"tenalg": None},
        "tensorly.decomposition": {"tucker": None},
    }


def load(checkout: str, name: str) -> types.ModuleType:
    """The module of the authors, by its name, or by its path where the name is one that is taken."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("authors", f"{checkout}/{name}")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(name: str, checkout: str) -> None:
    """Write the file of one optimizer."""
    repository, module_name, shapes, cases, make = SOURCES[name]
    git = ["git", "-C", checkout, "log", "-1", "--format=%H %cs"]
    commit, date = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    torch.set_default_dtype(torch.float64)
    for narrow in ("float", "bfloat16"):
        setattr(Tensor, narrow, Tensor.double)
    torch.compile = lambda function=None, **_: function or (lambda inner: inner)  # type: ignore[assignment]
    sys.path.insert(0, checkout)
    for missing, attributes in stubs(checkout).items():
        sys.modules[missing] = types.ModuleType(missing)
        vars(sys.modules[missing]).update(attributes)
    module = load(checkout, module_name)
    found = {}
    for title, values in cases.items():
        model = Tensors(shapes)
        optimizer = make(module, model, json.loads(json.dumps(values)))

        def step(number: int, model: Tensors = model, optimizer: Any = optimizer) -> None:
            model.differentiate(number)
            optimizer.step()

        found[title] = {"arguments": values, "weights": trajectory(model, step)}
        if hasattr(optimizer, "eval"):
            optimizer.eval()
            found[title]["evaluated"] = flat(model.parameters())
    text = {"repository": repository, "commit": commit, "date": date, "torch": torch.__version__, "shapes": shapes}
    Path(FOLDER / f"{name}.json").write_text(json.dumps({**text, "cases": found}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
