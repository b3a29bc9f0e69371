"""Somebody else's samplers in our studies: pinned, replayed, continued after a kill, refused before the start."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.definition import method, model, sweep_file
from orchestrator.definition.errors import CannotSearch, SpecError
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal
from orchestrator.protocol import seal
from orchestrator.search.designs import design_for
from orchestrator.search.foreign import maker, rehearse
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_search import run, study

OWN = """import optuna


class Halfway(optuna.samplers.BaseSampler):
    def __init__(self, *, step=0.5, seed=None):
        if not 0 < step < 1:
            raise ValueError(f"step {step} is not in (0, 1)")
        self.step, self.seed = step, seed

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        return distribution.low + (distribution.high - distribution.low) * self.step ** (trial.number % 5 + 1)


class NoLogarithms(Halfway):
    def sample_independent(self, study, trial, name, distribution):
        if distribution.log:
            raise ValueError(f"{name} has a logarithm")
        return distribution.low


class Unseeded(Halfway):
    def __init__(self):
        super().__init__()
"""
HUB = """import importlib.util
from pathlib import Path


def load_local_module(package, *, registry_root):
    place = Path(registry_root) / package / "__init__.py"
    spec = importlib.util.spec_from_file_location(place.parent.name, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""
SAMPLERS = [
    {"name": "optuna.samplers.TPESampler", "arguments": {"n_startup_trials": 1, "multivariate": True}},
    {"name": "optuna.samplers.CmaEsSampler", "arguments": {"n_startup_trials": 1, "popsize": 4}},
    {"name": "optuna.samplers.QMCSampler", "arguments": {"scramble": True}},
    {"name": "optuna.samplers.NSGAIISampler", "arguments": {"population_size": 4}},
    {"name": "own_sampler.Halfway", "arguments": {"step": 0.3}},
]


@pytest.fixture(autouse=True)
def own_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "modules"
    place.mkdir()
    (place / "own_sampler.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "own_sampler", raising=False)
    method.load.cache_clear()
    return place


def text(**given: Any) -> str:
    document = yaml.safe_load(sweep_text())
    document["method"] = {"seed": 3, **given}
    return yaml.safe_dump(document)


def asked(folder: SweepFolder, arm: str = "sgd") -> list[Any]:
    return [t.user_attrs["configuration"] for t in study(folder, arm).trials if "configuration" in t.user_attrs]


@pytest.mark.slow
@pytest.mark.parametrize("given", SAMPLERS, ids=lambda g: g["name"].rpartition(".")[2])
def test_one_sequence_whoever_runs_it_and_whoever_dies(given: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "method": {**given, "replay": "strict", "lag": 2, "random_share": 0.25},
        "budget": {"trials_per_arm": 8, "per_trial": 8},
        "seeds": {"studies": 2, "tune": 1, "confirm": 1},
    }
    plain = run(tmp_path / "plain", Interleaved(1), **options)
    wide = run(tmp_path / "wide", Interleaved(4), **options)
    for attempt in range(3):
        with pytest.raises(Dies):
            run(tmp_path / "killed", Interleaved(2, attempt, die_after=9), **options)
    killed = run(tmp_path / "killed", Interleaved(2), **options)
    found = {name: [asked(f, name) for f in (plain, wide, killed)] for name in ("sgd@1", "sgd@2", "adamw@1")}
    for sequences in found.values():
        assert len(sequences[0]) == 8
        assert sequences[0] == sequences[1] == sequences[2]
    spec = sweep_file.loads(text(**options["method"]))
    drawn = design_for(spec, spec.arms["sgd"], 1)
    assert found["sgd@1"][0][2:] != [drawn.configuration(i) for i in range(2, 8)]
    if given["name"].startswith("optuna"):
        assert found["sgd@1"][0][2:] != found["sgd@2"][0][2:]  # each study has its seed


@pytest.mark.slow
def test_a_sequence_stays_one(tmp_path: Path) -> None:
    """Optuna's QMC, seeded anew each time, would draw points of eight sequences."""
    given = {"name": "optuna.samplers.QMCSampler", "arguments": {"scramble": True}, "random_share": 0.0}
    folder = run(tmp_path, method=given, budget={"trials_per_arm": 9}, seeds={"confirm": 0})
    places = [math.log(c["lr"] / 0.01) / math.log(30) for c in asked(folder)][1:]  # the first learns the space
    assert sorted(int(p * 8) for p in places) == list(range(8))


@pytest.mark.slow
def test_the_sampler_is_in_the_id_the_seal_and_its_source(tmp_path: Path, own_sampler: Path) -> None:
    a = sweep_file.loads(text(name="own_sampler.Halfway"))
    b = sweep_file.loads(text(name="own_sampler.Halfway", arguments={"step": 0.25}))
    plain = sweep_file.loads(text(name="tpe"))
    assert len({model.sweep_id(s) for s in (a, b, plain)}) == 3
    assert "arguments" not in model.definition(plain)["method"]
    assert "own_sampler.py" in seal.code_of(a)["files"]
    assert seal.code_of(a)["arms"] == seal.code_of(plain)["arms"]
    cma = sweep_file.loads(text(name="optuna.samplers.CmaEsSampler"))
    assert dict(method.identity(cma.method))["optuna"]
    assert "method" in seal.code_of(cma)["files"]


@pytest.mark.parametrize(
    "given, at, words",
    [
        ({"name": "own_sampler.Halfway", "arguments": {"step": 2.0}}, "method.arguments.step", "step 2.0 is not in"),
        ({"name": "own_sampler.Unseeded", "replay": "strict"}, "method.replay", "takes no seed"),
        ({"name": "own_sampler.optuna"}, "method.name", "is no sampler"),
        ({"name": "optunahub/samplers/half"}, "method", "either ref"),
    ],
)
def test_refused_with_its_place(given: dict[str, Any], at: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        sweep_file.loads(text(**given))
    assert caught.value.key == at


def test_a_sampler_that_cannot_search_here_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        CannotSearch, match=r"own_sampler.NoLogarithms cannot search here: ValueError: lr has a logarithm"
    ):
        run(tmp_path, method={"name": "own_sampler.NoLogarithms"})
    assert not list(tmp_path.glob("*/trials/*"))


def test_optunahub(tmp_path: Path, own_sampler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local copy of a registry is loaded by optunahub's own call; here a module with that call stands for it."""
    monkeypatch.setitem(sys.modules, "optunahub", None)
    given = {"name": "optunahub/samplers/half", "registry": "registry"}
    with pytest.raises(SpecError, match="pip install optunahub"):
        sweep_file.loads(text(**given))
    (own_sampler / "optunahub.py").write_text(HUB)
    monkeypatch.delitem(sys.modules, "optunahub")
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "registry" / "samplers" / "half"
    with pytest.raises(SpecError, match=r"is there registry/samplers/half/__init__.py"):
        sweep_file.loads(text(**given))
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(OWN)
    with pytest.raises(SpecError, match=r"say which class, .*Halfway"):
        sweep_file.loads(text(**given))
    spec = sweep_file.loads(text(**{**given, "name": "optunahub/samplers/half:Halfway"}))
    before = method.identity(spec.method)["registry"]
    (package / "__init__.py").write_text(OWN + "# changed\n")
    assert method.identity(spec.method)["registry"] != before
    assert model.definition(spec)["method"]["registry"] == "registry"


def test_lists_and_shares_near_one_are_rehearsed_as_they_are_stored() -> None:
    space = [
        Parameter(name="betas", kind="categorical", values=([0.9, 0.95], [0.9, 0.999])),
        Parameter(name="mixed", kind="categorical", values=(None, {"a": 1})),
        Parameter(name="momentum", kind="float", low=0.8, high=0.999, one_minus=True),
    ]
    make = maker(sweep_file.loads(sweep_text(method="optuna.samplers.TPESampler")).method)
    assert make is not None
    rehearse(make, "TPESampler", space, [Goal.MINIMIZE])


@pytest.mark.parametrize("name", [".x", "a..b", "optuna.", "own samplers.X", "own_broken.Sampler"])
def test_a_name_that_no_module_can_have_and_a_module_that_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SpecError, match=r"method.name: no sampler") as refused:
        sweep_file.loads(sweep_text(method=name))
    assert ("RuntimeError: no licence" in str(refused.value)) == (name == "own_broken.Sampler")
