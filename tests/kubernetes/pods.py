"""Hosts of a cluster on one machine: each a network namespace on a bridge, each Pod on it with processes, temporary
folder, shared memory and host names of its own. Needs root, iproute2 and util-linux. Killing a Pod kills all in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kubernetes.ray_head import REPOSITORY

START = """
mount --bind /tmp /mnt
mount -t tmpfs tmpfs /tmp && mkdir -m 1777 /tmp/ray && mount -t tmpfs -o size=2g tmpfs /dev/shm
for place in $POD_IMAGE; do mkdir -p "/tmp/$place" && mount --bind "/mnt/$place" "/tmp/$place"; done
umount /mnt
printf '%s' "$POD_HOSTS" >/tmp/hosts && mount --bind /tmp/hosts /etc/hosts
mkdir /tmp/own && printf '%s' "$POD_FILE" >/tmp/own/sweep.yaml && cd /tmp/own && exec "$@"
"""

BELOW_TMP = [str(place)[len("/tmp/") :] for place in (REPOSITORY, Path(sys.prefix)) if str(place).startswith("/tmp/")]
"""The code and its Python where these lie in the folder that a Pod has of its own."""


class Cluster:
    """Hosts 1, 2, ... of a network 10.N.0.0/24; this process is host 254."""

    def __init__(self, name: str, network: int, log: Path) -> None:
        self.name, self._prefix, self._log = name, f"10.{network}.0", log
        self.outside = f"{self._prefix}.254"
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        self._ip("link", "add", self.name, "type", "bridge")
        self._stack.callback(self._ip, "link", "del", self.name)
        self._ip("addr", "add", f"{self.outside}/24", "dev", self.name)
        self._ip("link", "set", self.name, "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def host(self, number: int) -> str:
        """Make a host; returns its address."""
        place, ours, theirs = self._namespace(number), f"{self.name}o{number}", f"{self.name}i{number}"
        self._ip("netns", "add", place)
        self._stack.callback(self._ip, "netns", "del", place)
        self._ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", place)
        self._ip("link", "set", ours, "master", self.name, "up")
        self._ip("-n", place, "addr", "add", f"{self._prefix}.{number}/24", "dev", theirs)
        for device in (theirs, "lo"):
            self._ip("-n", place, "link", "set", device, "up")
        return f"{self._prefix}.{number}"

    def pod(self, number: int, command: Sequence[str], environment: Mapping[str, str], **files: str) -> Pod:
        """Start a Pod on a host. `hosts` is its /etc/hosts, `file` what /tmp/own/sweep.yaml holds."""
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "bash", "-ec", START, "_"]
        given = {
            **environment,
            "POD_IMAGE": " ".join(BELOW_TMP),
            "POD_HOSTS": files.get("hosts", ""),
            "POD_FILE": files.get("file", ""),
        }
        with self._log.open("a") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace(number), *inside, *command],
                env=given,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        made = Pod(process)
        self._stack.callback(made.kill)
        return made

    def _namespace(self, number: int) -> str:
        return f"{self.name}-{number}"

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=20)


class Pod:
    """Processes that live and die together."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def kill(self) -> None:
        """SIGKILL for every process, as when a node is lost."""
        self._process.kill()
        self._process.wait(20)

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code of its command."""
        return self._process.wait(seconds)


@contextmanager
def cluster(name: str, log: Path) -> Iterator[Cluster]:
    """A network of hosts, removed afterwards. Skips the test where namespaces are not allowed."""
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"hosts are namespaces; {' and '.join(missing)} (iproute2, util-linux) not found")
    if os.geteuid() != 0:
        pytest.skip("hosts are network and PID namespaces, which need root")
    probe = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "mount", "-t", "tmpfs", "t", "/tmp"]
    tried = subprocess.run(probe, capture_output=True, text=True, timeout=20)
    if tried.returncode:
        pytest.skip(f"namespaces are not allowed here: {tried.stderr.strip()}")
    with Cluster(name, 64 + os.getpid() % 128, log) as made:
        yield made


def wait(what: str, until: object, seconds: float) -> None:
    """Return once `until()` is true; it may raise OSError meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if until():  # type: ignore[operator]
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.25)
