"""The retry loop and the background tick that stores, databases and the driver share."""

from __future__ import annotations

import itertools
import threading

import pytest

from orchestrator.storage.periodic import periodic
from orchestrator.storage.retry import backoff, retry


def away(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


class Service:
    """Refuses with `errors` in turn, then answers 'here'."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "here"


def test_pauses_double_up_to_the_longest() -> None:
    assert list(itertools.islice(backoff(1.0, 60.0), 8)) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert list(itertools.islice(backoff(1.0, 1.0), 3)) == [1, 1, 1]


def test_only_what_is_away_is_called_again() -> None:
    service = Service(ConnectionError(), ConnectionError(), ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        retry(service, away, patience_s=60, first_s=0.001, longest_s=0.001)
    assert service.calls == 3
    assert retry(service, away, patience_s=60, first_s=0.001, longest_s=0.001) == "here"


def test_without_patience_there_is_one_attempt_and_with_it_a_last_one_at_its_end() -> None:
    service = Service(ConnectionError("away"))
    with pytest.raises(ConnectionError, match="away"):
        retry(service, away, patience_s=0, first_s=0.001, longest_s=0.001)
    assert service.calls == 1
    patient = Service(ConnectionError("away"))
    assert retry(patient, away, patience_s=0.01, first_s=3600, longest_s=3600) == "here"  # no pause beyond patience
    assert patient.calls == 2


def test_a_tick_runs_beside_the_context_and_never_after_it() -> None:
    calls, thrice = [], threading.Event()

    def act() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            thrice.set()

    with pytest.raises(RuntimeError, match="broken"), periodic(0.001, act, name="tick"):
        assert thrice.wait(60)
        raise RuntimeError("broken")
    assert set(calls) == {"tick"}
    assert not [t for t in threading.enumerate() if t.name == "tick"]
