"""Distributions that offer tasks, optimizers and samplers by entry point, installed into folders of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.geosweep.programs import RING, answer
from tests.orchestrator.command import REPOSITORY, environment, fresh

MODULE = RING.replace("import geosweep\n", "import trainables as geosweep\n")


def installed(place: Path, name: str, code: str, **groups: dict[str, str]) -> Path:
    """A folder with the distribution `name` 1.2 in it: a module and entry points, as an installer puts them there."""
    module, folder = name.replace("-", "_"), place / f"site-{name}"
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[geosweep.{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items())
            for group, named in groups.items()
        )
    )
    return folder


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    points = {"tasks": {"ring": "ring_plugin:Ring"}, "optimizers": {"plain": "ring_plugin:Plain"}}
    return installed(tmp_path_factory.mktemp("plugins"), "ring-plugin", MODULE, **points)


@pytest.mark.slow
def test_a_sweep_over_plugins(ring: Path, tmp_path: Path) -> None:
    program = """
import json, sys
import geosweep
from geosweep import optimizers
from geosweep._door import read_sweep
import trainables

before = {"ring_plugin"} & set(sys.modules)
listed = ["plain" in optimizers.names(), "ring" in trainables.names()]
still = {"ring_plugin"} & set(sys.modules)
sweep = (
    {"schema_version": 1, "name": "plugged", "task": {"name": "ring", "scale": 2.0},
     "metric": {"name": "loss/val", "goal": "minimize"}, "arms": {"plain": {}},
     "parameters": {"lr": {"values": [0.1]}}, "method": {"name": "grid"}, "budget": {"per_trial": 8},
     "seeds": {"tune": 1, "confirm": 1}, "evaluations": 1})
found = geosweep.run(sweep, root="runs", executor="debug", tracking=False, progress=False)
try:
    geosweep.run({**sweep, "task": {"name": "rings"}}, root="runs")
except geosweep.errors.SpecError as error:
    said = str(error)
sealed = json.loads((found.path / "seal.json").read_text())["code"]["files"]
print(json.dumps({"early": [*before, *still], "listed": listed, "state": found.state, "said": said,
                  "cached": any(found.path.parent.glob("cache/*")),
                  "sealed": sorted(name for name in sealed if name == "ring_plugin.py")}))
"""
    found = answer(program, ring, cwd=tmp_path)
    assert found["early"] == []
    assert found["listed"] == [True, True]
    assert found["state"] == "done"
    assert "did you mean ring?" in found["said"]
    assert not found["cached"], "what a task of somebody else's reads is not known"
    assert found["sealed"] == ["ring_plugin.py"]


@pytest.mark.slow
def test_doctor_lists_refuses_and_finds_all_else_well(ring: Path, tmp_path: Path) -> None:
    program = "import json; from orchestrator.cli import services; print(json.dumps(services._plugins()))"
    assert answer(program, ring, cwd=tmp_path) == "ring (ring-plugin 1.2), plain (ring-plugin 1.2)"
    other = installed(tmp_path, "other-plugin", MODULE, tasks={"ring": "other_plugin:Ring"})
    path = ":".join(map(str, (ring, other, REPOSITORY)))
    done = fresh("doctor", "--json", "--root", "runs", cwd=tmp_path, env=environment(PYTHONPATH=path))
    document = json.loads(done.stdout)
    checks = document["checks"]
    assert set(checks) == {"versions", "plugins", "storage", "torch", "mlflow", "ray"}
    assert [name for name, check in checks.items() if not check["ok"]] == ["plugins"], checks
    assert (done.returncode, document["ok"]) == (6, False)
    says = checks["plugins"]["says"]
    assert "task 'ring' is offered by " in says
    assert "ring-plugin 1.2" in says
    assert "other-plugin 1.2" in says


SAMPLER = """import optuna


class Middle(optuna.samplers.BaseSampler):
    def __init__(self, *, share=0.5, seed=None):
        self.share = share

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        return distribution.low + self.share * (distribution.high - distribution.low)


class Nothing:
    pass
"""


@pytest.mark.slow
def test_a_sampler(tmp_path: Path) -> None:
    """Named in method.name with its arguments, in the seal with its source; refused by name where it cannot be."""
    points = {"middle": "sampler_plugin:Middle", "nothing": "sampler_plugin:Nothing", "gone": "sampler_plugin:Gone"}
    (apart := tmp_path / "apart").mkdir()
    good = installed(tmp_path, "sampler-plugin", SAMPLER, samplers={"middle": "sampler_plugin:Middle"})
    bad = installed(apart, "sampler-plugin", SAMPLER, samplers={**points, "tpe": "sampler_plugin:Middle"})
    program = f"""
import json, sys
import geosweep
from orchestrator.cli import services

listed = services._plugins()
sweep = (
    {{"schema_version": 1, "name": "plugged", "task": {{"name": "quadratic"}},
     "metric": {{"name": "objective/log10", "goal": "minimize"}}, "arms": {{"sgd": {{}}}},
     "parameters": {{"lr": {{"distribution": "uniform", "min": 0.1, "max": 0.3}}}},
     "method": {{"name": "middle", "arguments": {{"share": 0.25}}, "random_share": 0.0}},
     "budget": {{"per_trial": 8, "trials_per_arm": 2}}, "seeds": {{"tune": 1, "confirm": 1}}, "evaluations": 1}})
found = geosweep.run(sweep, root="runs", executor="debug", tracking=False, progress=False)
rates = sorted({{json.loads(p.read_text())["parameters"]["lr"] for p in found.path.glob("trials/*/trial.json")}})
code = json.loads((found.path / "seal.json").read_text())["code"]["files"]
said = {{}}
def refused(name, key):
    try:
        geosweep.run({{**sweep, "method": {{"name": name, **key}}}}, root="runs")
    except geosweep.errors.SpecError as error:
        said[name + "".join(key)] = str(error)
refused("middles", {{}})
refused("middle", {{"arguments": {{"shares": 1}}}})
refused("middle", {{"ref": "0" * 40}})
sys.path.remove({str(good)!r})
sys.path.insert(0, {str(bad)!r})
for name in ("tpe", "nothing", "gone"):
    refused(name, {{}})
print(json.dumps({{"listed": listed, "state": found.state, "rates": rates, "said": said,
                  "sealed": sorted(name for name in code if "sampler" in name or name == "method")}}))
"""
    found = answer(program, good, cwd=tmp_path)
    assert found["listed"] == "middle (sampler-plugin 1.2)"
    assert found["state"] == "done"
    assert found["rates"][-1] == pytest.approx(0.15)
    assert found["sealed"] == ["method", "sampler_plugin.py"]
    for name, words in {
        "middles": "nor a sampler as package.module.Class; installed: middle",
        "middlearguments": "has no argument 'shares'; did you mean share?",
        "middleref": "method.ref: is for optunahub/PACKAGE",
        "tpe": "sampler 'tpe' is offered by geosweep itself and by sampler-plugin 1.2",
        "nothing": "'nothing' is not a sampler",
        "gone": "sampler 'gone', sampler_plugin:Gone of sampler-plugin 1.2, cannot be imported",
    }.items():
        assert words in found["said"][name], name


CASES = {
    "twice": (
        {"tasks": {"ring": "x_plugin:Ring"}},
        MODULE,
        "ring",
        "is offered by ring-plugin 1.2 and by x-plugin 1.2",
    ),
    "ours": (
        {"tasks": {"digits": "x_plugin:Ring"}},
        MODULE,
        "digits",
        "is offered by geosweep itself and by x-plugin 1.2",
    ),
    "absent": (
        {"tasks": {"gone": "x_plugin:Gone"}},
        MODULE,
        "gone",
        "'gone', x_plugin:Gone of x-plugin 1.2, cannot be imp",
    ),
    "broken": ({"tasks": {"ill": "x_plugin:Ring"}}, "import no_such_module", "ill", "No module named 'no_such_module'"),
    "no task": ({"tasks": {"plain": "x_plugin:Plain"}}, MODULE, "plain", "'plain' is not a trainables.Task"),
}


@pytest.mark.slow
def test_what_cannot_be_is_refused_by_name(ring: Path, tmp_path: Path) -> None:
    folders = {}
    for case, (points, code, _, _) in CASES.items():
        (place := tmp_path / case.replace(" ", "-")).mkdir()
        folders[case] = str(installed(place, "x-plugin", code, **points))
    asked = {case: (folders[case], name) for case, (_, _, name, _) in CASES.items()}
    program = f"""
import json, sys
import trainables
from geosweep._door import read_sweep
from geosweep.errors import SpecError

said = {{}}
for case, (folder, name) in {asked!r}.items():
    sys.path.insert(0, folder)
    try:
        read_sweep({{"schema_version": 1, "name": "x", "task": {{"name": name}}, "arms": {{"sgd": {{}}}},
                    "metric": {{"name": "loss/val", "goal": "minimize"}}, "budget": {{"per_trial": 8}}}})
    except SpecError as error:
        said[case] = str(error)
    sys.path.remove(folder)
    sys.modules.pop("x_plugin", None)
print(json.dumps(said))
"""
    said = answer(program, ring, cwd=tmp_path)
    assert said.keys() == CASES.keys()
    for case, (_, _, name, sentence) in CASES.items():
        assert said[case].startswith("sweep: task.name: "), said[case]
        assert sentence in said[case] or all(part in said[case] for part in (name, "ring-plugin 1.2", "x-plugin 1.2"))
