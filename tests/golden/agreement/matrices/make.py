"""Write the reference values with the authors' code, from a checkout of its repository:

    python -m tests.golden.agreement.matrices.make soap CHECKOUT

Each file names the repository, the commit and the arguments. The casts inside the authors' code (SOAP and GaLore
decompose in float32, Muon iterates in bfloat16) are lifted to float64 here, so that it is mathematics that is compared.
"""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.golden.agreement.matrices.problem import FOLDER, MATRICES, SHAPES, Tensors, trajectory

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
SOURCES: dict[str, tuple[str, str, Sequence[tuple[int, ...]], dict[str, dict[str, Any]], Make]] = {
    "soap": ("github.com/nikhilvyas/SOAP", "soap", SHAPES, SOAP_CASES, make_soap),
    "muon": ("github.com/KellerJordan/Muon", "muon", tuple(s for s in SHAPES if len(s) != 3), MUON_CASES, make_muon),
    "shampoo": ("github.com/facebookresearch/optimizers", "distributed_shampoo", SHAPES, SHAMPOO_CASES, make_shampoo),
    "kl_shampoo": ("github.com/yorkerlin/KL-Methods", "optim.kl_opt", MATRICES[:3], KL_SHAMPOO_CASES, make_kl_shampoo),
    "normuon": ("github.com/zichongli5/NorMuon", "normuon", (*MATRICES, (3,)), NORMUON_CASES, make_normuon),
    "galore": ("github.com/jiaweizzhao/GaLore", "galore_torch.adamw", MATRICES, GALORE_CASES, make_galore),
}


def stubs(checkout: str) -> dict[str, dict[str, Any]]:
    """What GaLore's package imports and does not use here."""
    return {
        "galore_torch": {"__path__": [f"{checkout}/galore_torch"]},
        "transformers": {},
        "transformers.utils": {},
        "transformers.utils.versions": {"require_version": lambda *_: None},
        "tensorly": {"tenalg": None},
        "tensorly.decomposition": {"tucker": None},
    }


def main(name: str, checkout: str) -> None:
    """Write the file of one optimizer."""
    repository, module_name, shapes, cases, make = SOURCES[name]
    git = ["git", "-C", checkout, "log", "-1", "--format=%H %cs"]
    commit, date = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    torch.set_default_dtype(torch.float64)
    for cast in ("float", "bfloat16"):
        setattr(Tensor, cast, Tensor.double)
    torch.compile = lambda function: function  # type: ignore[assignment, misc]
    sys.path.insert(0, checkout)
    for missing, attributes in stubs(checkout).items():
        sys.modules[missing] = types.ModuleType(missing)
        vars(sys.modules[missing]).update(attributes)
    module = importlib.import_module(module_name)
    found = {}
    for title, values in cases.items():
        model = Tensors(shapes)
        optimizer = make(module, model, json.loads(json.dumps(values)))

        def step(number: int, model: Tensors = model, optimizer: Any = optimizer) -> None:
            model.differentiate(number)
            optimizer.step()

        found[title] = {"arguments": values, "weights": trajectory(model, step)}
    text = {"repository": repository, "commit": commit, "date": date, "torch": torch.__version__, "shapes": shapes}
    Path(FOLDER / f"{name}.json").write_text(json.dumps({**text, "cases": found}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
