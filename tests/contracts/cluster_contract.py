"""What every cluster promises (`remote.Cluster`): a sweep is submitted once, followed, stopped, and continued.

A `World` is the cluster with what its own machinery does played: who starts jobs, ends them, and keeps their output.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import pytest

from orchestrator.definition import model, sweep_file
from orchestrator.definition.states import AttemptState
from orchestrator.remote import Attempt, Cluster, Order
from orchestrator.storage.errors import NotFound, Unreachable
from tests.orchestrator.sweep_files import sweep_text

TEXT = sweep_text()
SWEEP = model.sweep_id(sweep_file.loads(TEXT))
ORDER = Order(sweep_id=SWEEP, text=TEXT, file="fit.yaml", root="/runs", profile="kind")


class World(Protocol):
    """A cluster without a sweep yet."""

    @property
    def cluster(self) -> Cluster:
        """As our commands see it."""

    def becomes(self, state: AttemptState, log: str = "") -> None:
        """The newest attempt gets into this state, after its driver printed the log."""

    def goes_away(self) -> None:
        """Nobody answers from now on."""


def check_nothing_is_there_before(world: World) -> None:
    for ask in (world.cluster.status, world.cluster.logs, world.cluster.stop):
        with pytest.raises(NotFound, match="geosweep submit"):
            ask("@last")


def check_it_is_submitted_once(world: World) -> None:
    """While it waits or runs, and when it is done, the same attempt is found again, under each of its names."""
    cluster, first = world.cluster, world.cluster.submit(ORDER)
    assert first.sweep_id == SWEEP
    assert first.state.is_living
    for state in (None, AttemptState.RUNNING, AttemptState.DONE):
        if state is not None:
            world.becomes(state)
        found = {name: cluster.status(name) for name in (SWEEP, SWEEP[:4], "@last")}
        assert {one.job for one in found.values()} == {cluster.submit(ORDER).job} == {first.job}
        assert state in (None, cluster.status(SWEEP).state)
    with pytest.raises(NotFound, match=SWEEP):
        cluster.status("another")


def check_what_its_driver_printed_is_shown(world: World) -> None:
    world.cluster.submit(ORDER)
    world.becomes(AttemptState.RUNNING, "confirm stage\n")
    assert world.cluster.logs(SWEEP) == "confirm stage\n"


def check_one_that_failed_is_continued(world: World) -> None:
    world.cluster.submit(ORDER)
    world.becomes(AttemptState.FAILED)
    assert world.cluster.status(SWEEP).state is AttemptState.FAILED
    assert world.cluster.stop(SWEEP) is None
    again = world.cluster.submit(ORDER)
    assert (again.sweep_id, again.state.is_living) == (SWEEP, True)


def check_one_that_is_stopped_ends_and_is_continued(world: World) -> None:
    world.cluster.submit(ORDER)
    world.becomes(AttemptState.RUNNING)
    stopped = world.cluster.stop("@last")
    assert isinstance(stopped, Attempt)
    assert stopped.sweep_id == SWEEP
    assert stopped.reason
    with suppress(NotFound):
        assert not world.cluster.status(SWEEP).state.is_living
        assert world.cluster.stop(SWEEP) is None
    assert world.cluster.submit(ORDER).state.is_living


def check_no_answer_is_said(world: World) -> None:
    cluster = world.cluster
    cluster.submit(ORDER)
    world.goes_away()
    for ask in (cluster.status, cluster.logs, cluster.stop, lambda name: list(cluster.trial_log(name, ["t"]))):
        with pytest.raises(Unreachable):
            ask(SWEEP)
    with pytest.raises(Unreachable):
        cluster.submit(ORDER)
