"""Every store keeps the contract: S3 over HTTP, memory; a new one is a line here. `file://` names a plain folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.storage import object_store
from tests.contracts import store_contract as contract
from tests.services import s3_server

CHECKS = [check for name, check in vars(contract).items() if name.startswith("check_")]


@pytest.fixture(scope="module", params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """A URI of each kind of store."""
    if request.param == "s3":
        with s3_server("stores"):
            yield "s3://stores"
    else:
        yield "memory://stores"


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The near folder of a URI on a machine that nobody used before."""
    count = iter(range(1, 100))

    def machine(uri: str) -> Path:
        monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / f"machine-{next(count)}"))
        return object_store.near(uri)

    return machine


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_store_keeps_the_contract(
    place: str, use: Callable[[str], Path], check: Callable[[str, Callable[[str], Path]], None]
) -> None:
    check(f"{place}/{check.__name__}", use)


@pytest.mark.slow
def test_files_come_and_go_while_they_are_looked_at(tmp_path: Path) -> None:
    """Of a script's empty log, looked at while the script ends, nothing is raised."""
    (tmp_path / "below").mkdir()
    (tmp_path / "kept").touch()
    far, over = object_store.Far("memory://stores/come-and-go", tmp_path), threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for name in ("stderr.log", "below/stderr.log"):
                (tmp_path / name).touch()
                (tmp_path / name).unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        looks = [far.changed(deep=deep) for _ in range(2000) for deep in (False, True)]
    finally:
        over.set()
        other.join()
    assert all("kept" in found for found in looks)


def test_a_file_uri_is_the_folder_itself(tmp_path: Path) -> None:
    assert object_store.near(f"file://{tmp_path}") == tmp_path
    assert object_store.far(object_store.near(f"file://{tmp_path}")) == ""
    with pytest.raises(object_store.StoreError, match="write file:///FOLDER"):
        object_store.near("file://folder")
