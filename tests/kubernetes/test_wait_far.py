"""`submit --wait` of a sweep whose root is an object store: the table, the code of `run`, what outlives the Pods;
and a submission that has to be fair."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kubernetes.profiles import tracking
from orchestrator.protocol import lint as fairness
from tests.kubernetes.api_server import JOBS, ApiServer
from tests.orchestrator.command import REPOSITORY, environment, fresh
from tests.orchestrator.sweep_files import sweep_text
from tests.services import postgres_server, s3_server
from tests.verbs import Called, called

ROOT = "s3://far/runs"


@pytest.fixture(scope="module")
def studies() -> Iterator[str]:
    with s3_server("far"), postgres_server() as database:
        yield database.url


@pytest.fixture
def server(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """The same, asked from a laptop with a scratch folder of its own."""
    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / "laptop"))
    monkeypatch.setattr("orchestrator.cli.follow.LOOK_S", 0.5)
    return server


def played(server: ApiServer, file: Path, studies: str, place: Path) -> None:
    """An operator and its Pods: the rendered entrypoint on a machine of its own, of which only its code is left."""
    deadline = time.monotonic() + 60
    while not server.objects[JOBS]:
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)
    ((_, job),) = server.objects[JOBS].items()
    line = job["spec"]["entrypoint"]
    for theirs, ours in (
        (line.partition(" --root ")[0], f"geosweep run {file}"),  # the modules of the tests are there
        ("--address auto", "--executor debug"),
        (f"--tracking-uri {tracking('sweeps')}", "--no-tracking"),
    ):
        assert theirs in line
        line = line.replace(theirs, ours)
    server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
    variables = environment(GEOSWEEP_SCRATCH=str(place), GEOSWEEP_STORAGE=studies)
    code = fresh(*shlex.split(line)[1:], env=variables, cwd=REPOSITORY).returncode
    how = ("Complete", "SUCCEEDED") if code == 0 else ("Failed", "FAILED")
    server.job(jobDeploymentStatus=how[0], jobStatus=how[1])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_code_of_run_from_an_object_store(
    server: ApiServer, studies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> Called:
        return called(monkeypatch, capfd, *words)

    file = tmp_path / "far.yaml"
    file.write_text(sweep_text(method="random", trials=4, confirm=2, per_trial=16, wall_clock=", grad_evals: 96"))
    submit = ("submit", str(file), "--address", "k8s", "--root", ROOT)
    cluster = threading.Thread(daemon=True, target=played, args=(server, file, studies, tmp_path / "pod"))
    cluster.start()
    found = call(*submit, "--wait")
    assert server.objects[JOBS], found.err
    cluster.join()
    assert found.code == 5, found.out + found.err
    assert "running" in found.out
    assert "adamw" in found.out, "the table of arms, of files that only the object store has"
    sweep = next(p.name for p in (tmp_path / "pod").glob("mirror/s3/far/runs/fit-*"))
    assert f"{sweep} is budget: the search ended at budget.grad_evals" in found.err
    assert call(*submit, "--wait").code == 5, "the same again: nothing is started anew"
    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / "another laptop"))
    driver = call("logs", sweep, "--driver", "--root", ROOT)
    assert (driver.code, "geosweep ended: " in driver.out) == (0, True), "the Pods, and with them their logs, are gone"
    server.objects[JOBS].clear()
    trial = call("logs", sweep, "sgd-0000-s0", "--root", ROOT)
    assert trial.code == 0, trial.err
    assert call("status", sweep, "--root", ROOT).code == 0


@pytest.mark.slow
def test_only_fair_protocols_where_the_profile_says_so(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text())

    def call(*words: str) -> Called:
        return called(monkeypatch, capfd, *words, "--address", "k8s")

    profile = tmp_path / "own.yaml"
    profile.write_text("extends: kind\nfair: true\n")
    for words in (("--fair",), ("--profile", str(profile))):
        number, _, err = call("submit", str(file), *words)
        assert (number, "GS104" in err, "waive" in err) == (6, True, True)
    assert not server.objects[JOBS]
    waived = ", ".join(f"{code}: a try" for code in sorted({f.code for f in fairness.lint(file.read_text(), "x")}))
    file.write_text(file.read_text() + f"analysis: {{waive: {{{waived}}}}}\n")
    assert call("submit", str(file), "--profile", str(profile))[0] == 0
    (job,) = server.objects[JOBS].values()
    assert job["spec"]["entrypoint"].endswith(" --fair --as-job"), "the driver asks again"
