"""The verbs against an API server that replays an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kubernetes.api_server import ApiServer, serving
from tests.kubernetes.manifests import right_of, rights
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called, called


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    made = ApiServer()
    monkeypatch.setattr("orchestrator.cli.follow.LOOK_S", 0.1)
    with serving(made) as address:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path / "kubeconfig", address)))
        yield made
    assert {right_of(method, path) for method, path in made.asked} <= rights()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    def run(*words: str, address: str = "k8s") -> Called:
        return called(monkeypatch, capfd, *words, "--address", address)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(sweep_text())
    return path
