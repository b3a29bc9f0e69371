"""Third-party samplers in our studies: pinned, replayed, continued after a kill, refused before the start."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.definition import method, model, sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal
from orchestrator.protocol import seal
from orchestrator.search.designs import design_for
from orchestrator.search.foreign import maker, rehearse
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_search import run, study
from tests.verbs import called

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
@pytest.mark.parametrize(
    "given",
    [pytest.param(g, marks=pytest.mark.long if "QMC" in g["name"] or "NSGA" in g["name"] else ()) for g in SAMPLERS],
    ids=lambda g: g["name"].rpartition(".")[2],
)
def test_one_sequence_whoever_runs_it_and_whoever_dies(given: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "method": {**given, "replay": "strict", "lag": 2, "random_share": 0.25},
        "budget": {"trials_per_arm": 6, "per_trial": 8},
        "seeds": {"studies": 2, "tune": 1, "confirm": 1},
        "arms": {"sgd": yaml.safe_load(sweep_text())["arms"]["sgd"]},
    }
    plain = run(tmp_path / "plain", Interleaved(1), **options)
    with pytest.raises(Dies):
        run(tmp_path / "killed", Interleaved(4, die_after=7), **options)
    killed = run(tmp_path / "killed", Interleaved(2), **options)
    found = {name: [asked(f, name) for f in (plain, killed)] for name in ("sgd@1", "sgd@2")}
    for sequences in found.values():
        assert len(sequences[0]) == 6
        assert sequences[0] == sequences[1]
    spec = sweep_file.loads(text(**options["method"]))
    drawn = design_for(spec, spec.arms["sgd"], 1)
    assert found["sgd@1"][0][2:] != [drawn.configuration(i) for i in range(2, 6)]
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
    assert "own_sampler.py" in seal.code_of(a).files
    assert seal.code_of(a).arms == seal.code_of(plain).arms
    cma = sweep_file.loads(text(name="optuna.samplers.CmaEsSampler"))
    assert dict(method.identity(cma.method))["optuna"]
    assert "method" in seal.code_of(cma).files


@pytest.mark.parametrize(
    "given, at, words",
    [
        ({"name": "own_sampler.Halfway", "arguments": {"step": 2.0}}, "method.arguments.step", "step 2.0 is not in"),
        ({"name": "own_sampler.Unseeded", "replay": "strict"}, "method.replay", "takes no seed"),
        ({"name": "own_sampler.optuna"}, "method.name", "is not a sampler"),
        ({"name": "optunahub/samplers/half"}, "method", "either ref"),
    ],
)
def test_refused_with_its_place(given: dict[str, Any], at: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        sweep_file.loads(text(**given))
    assert caught.value.key == at


CMA = "optuna.samplers.CmaEsSampler"
PROPOSES = "cannot propose a configuration of arm adamw"


@pytest.mark.parametrize(
    ("given", "at", "words"),
    [
        ({"name": "own_sampler.NoLogarithms"}, "method.name", f"{PROPOSES}: ValueError: lr has a logarithm; change"),
        ({"name": CMA, "arguments": {"seeds": 1}}, "method.arguments.seeds", "has no argument 'seeds'"),
        (
            {"name": CMA, "arguments": {"sigma0": "abc"}},
            "method.arguments.sigma0",
            f"{PROPOSES}.*without sigma0 it can",
        ),
        (
            {"name": CMA, "arguments": {"n_startup_trials": 15, "sigma0": "abc"}},
            "method.arguments.sigma0",
            f"{PROPOSES}.*without sigma0 it can",
        ),
    ],
)
def test_a_sampler_that_cannot_propose_is_refused_before_the_start(
    given: dict[str, Any], at: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """By `validate` and by `run`, with its place; no folder is made."""
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(text(**given))
    for verb in ("validate", "--skip-steps"), ("run", "--executor", "debug", "--no-tracking", "--skip-steps"):
        done = called(monkeypatch, capfd, verb[0], "sweep.yaml", *verb[1:])
        assert done.code == 3, done.out + done.err
        assert re.search(rf"sweep.yaml:\d+:\d+: {at}: .*{words}", " ".join(done.err.split())), done.err
    assert not (tmp_path / "runs").exists()


IN_PARTS = """from .rules import Falling

__version__ = "0.1"
"""
RULES = """import optunahub


class Falling(optunahub.samplers.SimpleBaseSampler):
    def __init__(self, search_space=None, *, share=0.5, seed=None):
        super().__init__(search_space, seed)
        self.share = share

    def sample_relative(self, study, trial, search_space):
        told = sum(1 for t in study.get_trials(deepcopy=False) if t.value is not None)
        return {k: d.low + (d.high - d.low) * self.share ** (1 + told % 3) for k, d in search_space.items()}
"""


def package_of(registry: Path, name: str = "half", **files: str) -> Path:
    """A package of a registry, as optunahub's has them."""
    place = registry / "package" / "samplers" / name
    place.mkdir(parents=True)
    for file, content in ({"__init__": IN_PARTS, "rules": RULES} | files).items():
        (place / f"{file}.py").write_text(content)
    (place / "README.md").write_text("---\ntitle: Half\n---\n")
    return place


def test_optunahub_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optunahub", None)
    with pytest.raises(SpecError, match="pip install optunahub"):
        sweep_file.loads(text(name="optunahub/samplers/half", registry="registry"))


@pytest.mark.slow
def test_a_package_of_a_local_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded by optunahub's own call: a clone of the registry, or its folder of packages."""
    monkeypatch.chdir(tmp_path)
    given = {"name": "optunahub/samplers/half", "registry": "registry"}
    with pytest.raises(SpecError, match=r"is there registry/samplers/half/__init__.py"):
        sweep_file.loads(text(**given))
    place = package_of(tmp_path / "registry")
    spec = sweep_file.loads(text(**given, arguments={"share": 0.25}))
    inner = sweep_file.loads(text(**{**given, "registry": "registry/package"}))
    assert method.load("optunahub/samplers/half", "", "registry").__name__ == "Falling"
    before = method.identity(spec.method)["registry"]
    assert method.identity(inner.method)["registry"] == before
    (place / "rules.py").write_text(RULES + "# changed\n")
    assert method.identity(spec.method)["registry"] != before
    assert model.definition(spec)["method"]["registry"] == "registry"
    package_of(tmp_path / "registry", "two", __init__=OWN)
    with pytest.raises(SpecError, match=r"say which class, .*Halfway"):
        sweep_file.loads(text(name="optunahub/samplers/two", registry="registry"))
    sweep_file.loads(text(name="optunahub/samplers/two:Halfway", registry="registry"))
    with pytest.raises(SpecError, match="has no argument 'shares'; did you mean share"):
        sweep_file.loads(text(**given, arguments={"shares": 0.25}))


@pytest.mark.slow
def test_a_sweep_over_a_package_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package proposes what the study holds, and replays."""
    monkeypatch.chdir(tmp_path)
    package_of(tmp_path / "registry")
    options: dict[str, Any] = {
        "method": {"name": "optunahub/samplers/half", "registry": "registry", "arguments": {"share": 0.5},
                   "replay": "strict", "lag": 1, "random_share": 0.25},
        "budget": {"trials_per_arm": 8},
        "seeds": {"confirm": 0},
    }  # fmt: skip
    drawn = [asked(run(tmp_path / where, **options)) for where in ("one", "two")]
    assert drawn[0] == drawn[1]
    ends = (1e-2, 0.3)
    assert {round(c["lr"], 6) for c in drawn[0][3:]} == {
        round(ends[0] + (ends[1] - ends[0]) * 0.5 ** (1 + told % 3), 6) for told in range(3)
    }


@pytest.mark.slow
def test_a_commit_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ref` fetches that commit through git, once: here from a repository of the test's own in github.com's place."""
    hub = tmp_path / "hub" / "optuna" / "optunahub-registry"
    place = package_of(hub)

    def git(*words: str) -> str:
        own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *own, *words], cwd=hub, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    git("init", "-q")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    git("add", ".")
    git("commit", "-qm", "first")
    first = git("rev-parse", "HEAD")
    (place / "rules.py").write_text(RULES.replace("Falling", "Rising"))
    (place / "__init__.py").write_text(IN_PARTS.replace("Falling", "Rising"))
    git("commit", "-qam", "second")
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{(tmp_path / 'hub').as_uri()}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    spec = sweep_file.loads(text(name="optunahub/samplers/half", ref=first))
    assert method.load(spec.method.name, first).__name__ == "Falling"
    assert method.load(spec.method.name, git("rev-parse", "HEAD")).__name__ == "Rising"
    assert method.identity(spec.method) == {"ref": first, "optunahub": metadata.version("optunahub")}
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{(tmp_path / 'nowhere').as_uri()}/.insteadOf")  # no network
    method.load.cache_clear()
    assert sweep_file.loads(text(name="optunahub/samplers/half", ref=first)) == spec
    with pytest.raises(SpecError, match=r"fetched from github.com at a1b2c3d4e5, once; without a network"):
        sweep_file.loads(text(name="optunahub/samplers/half", ref="a1b2c3d4e5" * 4))


def test_lists_and_shares_near_one_are_rehearsed_as_they_are_stored() -> None:
    space = [
        Parameter(name="betas", kind="categorical", values=([0.9, 0.95], [0.9, 0.999])),
        Parameter(name="mixed", kind="categorical", values=(None, {"a": 1})),
        Parameter(name="momentum", kind="float", low=0.8, high=0.999, one_minus=True),
    ]
    make = maker(sweep_file.loads(sweep_text(method="optuna.samplers.TPESampler")).method)
    assert make is not None
    rehearse(make, space, [Goal.MINIMIZE])


@pytest.mark.parametrize("name", [".x", "a..b", "optuna.", "own samplers.X", "own_broken.Sampler"])
def test_a_name_that_no_module_can_have_and_a_module_that_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SpecError, match=r"method.name: no sampler") as refused:
        sweep_file.loads(sweep_text(method=name))
    assert ("RuntimeError: no licence" in str(refused.value)) == (name == "own_broken.Sampler")
