"""Every store keeps the contract: S3 over HTTP, memory; a new one is a line here. `file://` names a plain folder."""

from __future__ import annotations

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


def test_a_file_uri_is_the_folder_itself(tmp_path: Path) -> None:
    assert object_store.near(f"file://{tmp_path}") == tmp_path
    assert object_store.far(object_store.near(f"file://{tmp_path}")) == ""
    with pytest.raises(object_store.StoreError, match="write file:///FOLDER"):
        object_store.near("file://folder")
