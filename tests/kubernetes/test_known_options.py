"""The options that `--check` knows are those of the commands themselves."""

from __future__ import annotations

from orchestrator.kubernetes.entrypoint_rules import FLAGS, VALUED
from orchestrator.kubernetes.start_rules import RAY, START


def test_the_options_of_run_are_those_of_its_command() -> None:
    from typer.main import get_command

    from orchestrator.cli import run as _  # noqa: F401  which enters it
    from orchestrator.cli.app import app

    run = get_command(app).commands["run"]  # type: ignore[attr-defined]
    options = {o for p in run.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
    assert options == {*VALUED, *FLAGS}
    assert set(FLAGS) == {o for p in run.params if getattr(p, "is_flag", False) for o in (*p.opts, *p.secondary_opts)}


def test_the_options_of_ray_are_those_of_its_command() -> None:
    import ray
    from ray.scripts.scripts import start

    assert ray.__version__ == RAY
    assert set(START) == {option[2:] for p in start.params for option in p.opts if option.startswith("--")}
