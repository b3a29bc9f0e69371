"""What `ray_private` uses of Ray is there and does what it is used for; nothing private of Ray is used elsewhere."""

from __future__ import annotations

import ast
import inspect
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.utils.callback import _create_default_callbacks

from orchestrator.executors.ray_faults import WorkerLost
from orchestrator.executors.ray_private import (
    OwnPlaces,
    every_system_error_is_a_death,
    private_cluster,
    workers_without_variables,
)
from orchestrator.executors.ray_tune import Silent, _switching_often

ROOT = Path(__file__).parents[2]
HOME = ROOT / "orchestrator/executors/ray_private.py"


def changed(what: str, do: str) -> str:
    return f"Ray {ray.__version__}: {what}. {do}"


def test_tune_prints_no_ending_of_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """It would enter the JSON document on standard output."""
    made = _create_default_callbacks([Silent()])
    assert [type(one) for one in made if isinstance(one, TrialProgressCallback)] == [Silent], changed(
        "Tune adds its own reporter beside ours", "Give ours as `_create_default_callbacks` expects it"
    )
    ended, said = Trial("any", stub=True), []
    for one in (TrialProgressCallback(), Silent()):
        one._last_result_str[ended] = one._print_result(ended.last_result)  # the worker reported just before it ended
        one.on_trial_complete(1, [ended], ended)
        said.append(capsys.readouterr().out)
    assert "completed. Last result" in said[0], changed("Tune is silent by itself", "Remove Silent in ray_tune")
    assert said[1] == ""


def test_a_private_cluster_has_its_own_folder_and_patience(tmp_path: Path) -> None:
    given = private_cluster(tmp_path)
    with pytest.raises(RuntimeError, match="Unknown keyword") as refused:
        ray.init(address="local", _never_known=1, **given)  # it refuses before it starts anything
    for name in given:
        assert name not in str(refused.value), changed(
            f"ray.init takes no {name} any more",
            "Look for its public name in the documentation of ray.init and give that in private_cluster",
        )
    (setting,) = given["_system_config"]
    core = Path(ray._raylet.__file__)
    with core.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
        assert code.find(setting.encode()) >= 0, changed(
            f"its core knows no {setting}",
            "Find what now says how long a driver waits for a control store that is gone (ray_config_def.h), or leave "
            "the setting out and drivers whose Ray was killed hang for minutes",
        )


def test_workers_do_not_look_where_the_command_was_given() -> None:
    assert "job_config._py_driver_sys_path.extend(" in inspect.getsource(ray._private.worker.connect), changed(
        "connect() does not tell workers its places by _py_driver_sys_path",
        "See which way the current folder takes into their sys.path, and close that in OwnPlaces",
    )
    given = OwnPlaces()
    given._py_driver_sys_path.extend(["/the/current/folder"])
    assert list(given._get_proto_job_config().py_driver_sys_path) == [str(ROOT)], changed(
        "a JobConfig sends other places to workers than those of its _py_driver_sys_path", "Adapt OwnPlaces"
    )


def failing(exception: Exception) -> list[tuple[str, Exception]]:
    """Whom Tune's actor manager tells of an actor's task that failed in this way."""
    manager = RayActorManager(SimpleNamespace(free_resources=lambda **_: None))
    told: list[tuple[str, Exception]] = []
    hear: Callable[[str], Any] = lambda who: lambda _, error: told.append((who, error))  # noqa: E731
    actor = TrackedActor(actor_id=1, on_error=hear("actor"))
    manager._live_actors_to_ray_actors_resources[actor] = (None, None)
    task = TrackedActorTask(actor, on_error=hear("task"))
    manager._actor_task_failed(tracked_actor_task=task, exception=exception)  # in Ray's words
    return told


def test_a_memory_kill_is_the_death_of_one_worker() -> None:
    killed = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")
    plain = getattr(RayActorManager, "_actor_task_failed", None)
    assert plain is not None, changed(
        "Tune's RayActorManager has no _actor_task_failed", "Find where it tells failed tasks apart and patch that"
    )
    assert list(inspect.signature(plain).parameters) == ["self", "tracked_actor_task", "exception"], changed(
        "_actor_task_failed takes other arguments", "Give the function that takes its place the same ones, by name"
    )
    with every_system_error_is_a_death():
        told = failing(killed)
    assert [who for who, _ in told] == ["actor", "task"], changed(
        "an OutOfMemoryError inside every_system_error_is_a_death does not reach Tune's handlers",
        "A memory kill now ends whole sweeps: patch what RayActorManager does with the exception of a failed task",
    )
    for _, error in told:
        assert isinstance(error, WorkerLost)
        assert isinstance(error, RayActorError)
        assert str(error) == str(killed)


def test_tune_still_ends_an_experiment_at_a_memory_kill() -> None:
    """Once it does not, the patch has nothing to do."""
    killed = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")
    try:
        failing(killed)
    except RuntimeError:
        return
    pytest.fail(changed("Tune survives a memory kill by itself", "Delete every_system_error_is_a_death"))


class Idle(tune.Trainable):  # type: ignore[misc]
    pass


def asked_for() -> dict[str, str]:
    """Environment variables that Tune's actors of a trainable ask for."""
    options: dict[str, Any] = class_cache._ActorClassCache().get(Idle)._default_options
    return dict((options.get("runtime_env") or {}).get("env_vars", {}))


def test_local_workers_ask_for_no_variables() -> None:
    for name in ("DEFAULT_ENV_VARS", "ENV_VARS_TO_PROPAGATE"):
        assert hasattr(class_cache, name), changed(
            f"ray.tune.execution.class_cache has no {name}",
            "If Tune's actors ask for no environment variables now, delete workers_without_variables; else empty what "
            "they are taken from, or each local worker costs two processes more at the start",
        )
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    assert asked_for(), changed("Tune's actors ask for no variables by themselves", "Delete workers_without_variables")
    with workers_without_variables():
        assert asked_for() == {}, changed(
            "Tune's actors ask for variables that workers_without_variables does not know",
            "Empty in it also what they are taken from (_ActorClassCache.get)",
        )
    with workers_without_variables(wanted=False):
        assert asked_for()
    assert before == (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE)


@pytest.mark.parametrize("owner, name", [
    (TuneController, "pause_trial"), (TuneController, "stop_trial"), (Trial, "set_config"),
    (Trial, "pickled_error_file"), (Trial, "error_file"),
])  # fmt: skip
def test_what_turns_a_worker_to_its_next_trial_is_there(owner: type, name: str) -> None:
    """Public, but meant for developers of schedulers; Tune's own population based training lives by the same calls."""
    assert hasattr(owner, name), changed(
        f"{owner.__name__} has no {name}",
        "See how ray/tune/schedulers/pbt.py pauses a trial and gives it another configuration, and do it so in _Turns",
    )
    if name == "pause_trial":
        assert "should_checkpoint" in inspect.signature(TuneController.pause_trial).parameters, changed(
            "pause_trial always takes a checkpoint", "Let _Turns pause without one in another way, or let it be empty"
        )


def test_the_switch_interval_is_as_before() -> None:
    before = sys.getswitchinterval()
    with pytest.raises(KeyError), _switching_often():
        assert sys.getswitchinterval() == pytest.approx(5e-4)
        raise KeyError
    assert sys.getswitchinterval() == before


def uses_ray(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "ray" for name in names):
            return True
    return False


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private(tree: ast.AST) -> Iterator[str]:
    """Names with an underscore that are not the module's own: of other objects, in imports, keywords and text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if any(map(is_private, a.name.split("."))))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            for name in [*(node.module or "").split("."), *(a.name for a in node.names)]:
                if is_private(name) or name == "class_cache":
                    yield f"line {node.lineno}: {node.module} import {name}"
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield f"line {node.value.lineno}: {node.arg}="
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_private(node.value):
            yield f"line {node.lineno}: '{node.value}'"


@pytest.mark.slow
def test_nothing_private_of_ray_is_used_elsewhere() -> None:
    files = [f for f in sorted((ROOT / "orchestrator").rglob("*.py")) if uses_ray(ast.parse(f.read_text()))]
    assert HOME in files
    assert len(files) > 5
    found = {f.relative_to(ROOT).as_posix(): list(private(ast.parse(f.read_text()))) for f in files if f != HOME}
    assert not any(found.values()), (
        f"{ {f: lines for f, lines in found.items() if lines} }: take the public way, or move it to ray_private.py "
        "with the reason why there is none, and a check here that says what to do when Ray changes"
    )
    assert len(list(private(ast.parse(HOME.read_text())))) == 7  # what there is may become less


@pytest.mark.parametrize("line", [
    "controller._trials", "ray.worker._global", "from ray._private import worker", "import ray._private.worker",
    "from ray.tune.execution.class_cache import DEFAULT_ENV_VARS", "ray.init(_temp_dir='x')", "{'_system_config': 1}",
    "getattr(controller, '_trials')", "controller._actor_manager.next()",
])  # fmt: skip
def test_the_scan_sees(line: str) -> None:
    assert list(private(ast.parse(line)))
