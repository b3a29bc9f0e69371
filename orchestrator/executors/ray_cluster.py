"""Ray, started on its own thread while the caller reads and imports, and shut down with that thread."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray

from orchestrator.definition.errors import UsageError
from orchestrator.executors.ray_private import OwnPlaces, private_cluster
from orchestrator.executors.ray_start import begin, token
from orchestrator.storage.errors import Unreachable
from orchestrator.storage.processors import usable

PREFIX = "gs-"
LEFT_S = 60.0
"""How long a new start waits for an abandoned one to end."""
NOTHING: Mapping[str, Any] = {}
_left: list[RayCluster] = []


class RayCluster:
    """A private local cluster with as many slots of `cpu` as fit on this machine, at most `max_concurrent`.

    With an `address`: a connection to that cluster, which receives the runtime environment `sent`.
    """

    def __init__(
        self,
        *,
        cpu: int,
        max_concurrent: int | None = None,
        address: str | None = None,
        sent: Mapping[str, Any] = NOTHING,
    ) -> None:
        while _left:
            _left.pop().wait_for_end(LEFT_S)
        if ray.is_initialized():
            raise UsageError(
                "this process is already connected to a Ray cluster; disconnect with ray.shutdown(), or run with "
                "executor debug"
            )
        self._cpus = cpus_of(cpu, max_concurrent)
        self.address, self._sent = address, dict(sent)
        self.scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
        self._error: BaseException | None = None
        self._is_left = self._closed = False
        self._ready, self._over = threading.Event(), threading.Event()
        self.until_settled = contextlib.ExitStack()
        """Contexts that apply while its processes start."""
        self._thread = threading.Thread(target=self._start, daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Return once Ray answers. Raises Unreachable if it does not start."""
        self._ready.wait()
        if self._error is not None:
            raise Unreachable(f"Ray did not start: {self._error}") from self._error

    def fits(self, cpu: int, max_concurrent: int | None) -> bool:
        """Whether it is the cluster that these arguments ask for."""
        return not (self.address or self._closed or self._is_left) and self._cpus == cpus_of(cpu, max_concurrent)

    def settled(self) -> None:
        """Return once its processes have started or failed to: what they inherit may change from here on."""
        from orchestrator.executors import ray_tune  # noqa: F401  needed next; imported while waiting

        self._ready.wait()
        self.until_settled.close()

    def close(self) -> None:
        """Shut down Ray and remove its scratch folder.

        After Ctrl-C, a Ray that is still starting is not waited for; it ends with its thread, or with this process.
        """
        if self._is_left or (isinstance(sys.exc_info()[1], KeyboardInterrupt) and not self._ready.is_set()):
            self.leave()
            return
        self._ready.wait()
        self._closed = True
        _shut_down()
        self._over.set()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def leave(self) -> None:
        """Let its thread shut it down once it is up, without waiting; it ends with this process at the latest."""
        if not (self._is_left or self._closed):
            self._is_left = True
            _left.append(self)
            atexit.register(self._at_exit)
            self._over.set()

    def wait_for_end(self, seconds: float) -> None:
        """Wait for an abandoned cluster to end."""
        self._thread.join(seconds)

    def _at_exit(self) -> None:
        if self._ready.is_set():
            self._thread.join(LEFT_S)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start(self) -> None:
        """Start Ray while the caller reads and imports. The thread lives on: Ray's processes die with it."""
        _sweep_scratch()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # a closed terminal drains; Ray inherits it
        local = {
            "num_cpus": self._cpus,
            "include_dashboard": False,
            "job_config": OwnPlaces(),
            **private_cluster(self.scratch),
        }
        given = {"runtime_env": self._sent} if self.address and self._sent else {} if self.address else local

        def start() -> None:
            ray.init(address=self.address or "local", logging_level="ERROR", log_to_driver=False, **given)

        with nullcontext() if self.address else token(self.scratch):
            try:
                begin(start, _shut_down, wanted=lambda: not self.address and not self._over.is_set())
            except BaseException as error:
                self._error = error
            self._ready.set()
            self._over.wait()
        if self._is_left:
            _shut_down()
            shutil.rmtree(self.scratch, ignore_errors=True)


def cpus_of(cpu: int, max_concurrent: int | None) -> int:
    """CPUs of a private cluster on this machine."""
    free = max(1, usable() // cpu)
    return cpu * (min(free, max_concurrent) if max_concurrent else free)


def _shut_down() -> None:
    """Shut Ray down safely: another thread that collects one of Ray's references meanwhile would crash the process."""
    gc.disable()
    with contextlib.suppress(Exception):
        ray.shutdown()
    gc.enable()


def _sweep_scratch() -> None:
    """Remove scratch folders of drivers that were killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*-*"):
        pid = folder.name[len(PREFIX) :].split("-")[0]
        if not pid.isdigit():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            continue
