"""Tasks and optimizers of a notebook, of a script, and of modules that register them: trained in workers, sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.geosweep.programs import RING, answer, python

pytestmark = pytest.mark.slow

RUN = """
import json, tempfile
from orchestrator.protocol import seal
from orchestrator.storage.folder import SweepFolder

def main(executor, processes=1):
    sweep = {
        "schema_version": 1, "name": "mine", "task": {"name": Ring, "scale": 2.0},
        "metric": {"name": "loss/val", "goal": "minimize"},
        "arms": {"sgd": {"parameters": {"momentum": 0.0}}, "plain": {"optimizer": Plain}},
        "parameters": {"lr": {"values": [0.1]}}, "method": {"name": "grid"}, "budget": {"per_trial": 12},
        "seeds": {"tune": 1, "confirm": 2 - processes}, "evaluations": 2, "resources": {"processes": processes},
    }
    found = geosweep.run(sweep, root=tempfile.mkdtemp(dir="."), executor=executor, tracking=False, progress=False)
    sealed = json.loads((found.path / "seal.json").read_text())["code"]["files"]
    values = found.trials.set_index(["arm", "stage"])["loss/val"]
    return {
        "state": found.state,
        "code": {name: digest for name, digest in sealed.items() if "/" not in name},
        "problems": seal.verify(SweepFolder(found.path.parent, found.id)).problems,
        "values": {" ".join(key): value for key, value in values.items()},
        "names": [found.definition["task"]["name"], found.definition["arms"]["plain"]["optimizer"]],
    }
"""


@pytest.fixture(scope="module")
def debug(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The sweep of a script, in its own process."""
    program = f"{RING}{RUN}\nif __name__ == '__main__':\n    print(json.dumps(main('debug')))\n"
    return answer(program, cwd=tmp_path_factory.mktemp("debug"))


def test_the_classes_of_a_script(debug: Any) -> None:
    assert (debug["state"], debug["problems"]) == ("done", [])
    assert debug["names"] == ["__main__:Ring", "__main__.Plain"]
    assert set(debug["code"]) == {"__main__:Ring", "__main__:Plain"}
    assert debug["values"]["sgd confirm"] == debug["values"]["plain confirm"]


@pytest.mark.long  # other tasks on Ray: test_executors.py; sent to another process: below
def test_they_are_the_same_in_a_worker_of_ray(debug: Any, tmp_path: Path) -> None:
    program = f"{RING}{RUN}\nif __name__ == '__main__':\n    print(json.dumps(main('ray')))\n"
    assert answer(program, cwd=tmp_path) == debug


@pytest.mark.long  # two processes: test_worker_group.py
def test_registered_in_a_module_they_are_found_by_two_processes_of_a_trial(debug: Any, tmp_path: Path) -> None:
    registered = RING.replace("class Ring", '@geosweep.task("ring")\nclass Ring').replace(
        "class Plain", '@geosweep.register("plainest")\nclass Plain'
    )
    (tmp_path / "mine.py").write_text(registered)
    program = f"import geosweep\nfrom mine import Plain, Ring\n{RUN}\nif __name__ == '__main__':\n"
    found = answer(f"{program}    print(json.dumps(main('debug', processes=2)))\n", cwd=tmp_path)
    assert found["names"] == ["ring", "plainest"]
    assert "mine.py" in found["code"]
    assert (found["state"], found["problems"]) == ("done", [])
    assert set(found["values"]) == {"sgd tune", "plain tune"}
    assert found["values"] == pytest.approx({key: debug["values"][key] for key in found["values"]}, rel=1e-4)


CHANGES = [
    ("SIDES = 4", "SIDES = 5", True),
    ("seed * 1003", "seed * 1004", True),
    ("worst=1e4", "worst=1e5", True),
    ("scale: float = 1.0", "scale: float = 1.5", True),
    ("((outputs - targets) ** 2)", "((targets - outputs) ** 2)", True),
    ("class Ring(", "# a comment\n\n\nclass Ring(", False),
    ("class Plain(", "UNUSED = 3\n\n\nclass Plain(", False),
]


def test_their_digest_follows_the_code_and_nothing_else(tmp_path: Path) -> None:
    """Of the class alone, of what it uses, of its defaults; and a class sent elsewhere keeps it."""
    texts = [RING, *(RING.replace(old, new) for old, new, _ in CHANGES)]
    program = f"""
import json, pickle, sys
import cloudpickle
from orchestrator.trial.class_code import digest, modules

found = []
for text in {texts!r}:
    sys.modules["__main__"].__dict__.pop("SIDES", None)
    exec(compile(text, "<cell>", "exec"), globals())
    before = digest(Ring)
    sent = cloudpickle.dumps(Ring)
    for name in ("SIDES", "rows"):
        globals().pop(name)
    assert digest(pickle.loads(sent)) == before
    found.append(before)
print(json.dumps({{"digests": found, "modules": sorted(modules(Ring))}}))
"""
    found = answer(program, cwd=tmp_path)
    first, *others = found["digests"]
    assert [digest != first for digest in others] == [changed for _, _, changed in CHANGES]
    assert "torch" in found["modules"]


def test_what_cannot_be_sent_is_refused_before_anything_starts(tmp_path: Path) -> None:
    held = RING.replace("class Ring(", "import threading\n\nLOCK = threading.Lock()\n\n\nclass Ring(").replace(
        "        self.x = ", "        self.held = LOCK.locked()\n        self.x = "
    )
    program = f"{held}{RUN}\nif __name__ == '__main__':\n    print(json.dumps(main('ray')))\n"
    done = python(program, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("orchestrator.definition.errors.UsageError: __main__:Ring")
    assert "cannot be sent to workers" in last
    assert "or run with executor debug" in last
    assert not list(tmp_path.glob("tmp*/mine-*"))


def test_a_class_defined_anew_is_another_code(tmp_path: Path) -> None:
    """As when a cell of a notebook is edited and run again: the sweep does not go on with mixed code."""
    program = f"""
{RING}{RUN}
import geosweep
text = {RING!r}

def again(name, **more):
    return geosweep.run(
        {{"schema_version": 1, "name": "anew", "task": {{"name": name}},
         "metric": {{"name": "loss/val", "goal": "minimize"}}, "arms": {{"sgd": {{}}}},
         "parameters": {{"lr": {{"values": [0.1, 0.2]}}}}, "method": {{"name": "grid"}},
         "budget": {{"per_trial": 8}}, "seeds": {{"tune": 1, "confirm": 1}}, "evaluations": 1}},
        root="runs", executor="debug", tracking=False, progress=False, **more)

def stop(report):
    raise LookupError

if __name__ == "__main__":
    geosweep.task("ring")(Ring)
    try:
        again("ring", on_report=stop)
    except LookupError:
        pass
    exec(text.replace("** 2", "** 4"), globals())
    geosweep.task("ring")(Ring)
    try:
        again("ring")
    except geosweep.errors.CodeChanged as error:
        said = str(error)
    found = again("ring", accept_changed_code=True)
    print(json.dumps({{"said": said, "state": found.state, "why": found.exploratory}}))
"""
    found = answer(program, cwd=tmp_path)
    assert found["said"].startswith("__main__:Ring changed since anew-")
    assert found["state"] == "done"
    assert found["why"] == ["code changed between trials: __main__:Ring"]
