"""What a result may depend on besides the sweep's definition: versions, commit, uncommitted changes, hardware."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from orchestrator.storage.processors import usable

VERSIONS = ("geosweep", "ray", "torch", "optuna", "mlflow", "numpy", "scipy", "pyarrow")
LONGEST_DIFF = 2_000_000


def provenance() -> dict[str, str]:
    """Key -> value, all text. `uncommitted` is yes or no; `diff` is the hash of the uncommitted changes."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    found["commit"] = _git("rev-parse", "HEAD").strip() or "unknown"
    status = _git("status", "--porcelain").strip()
    found["uncommitted"] = "yes" if status else "no"
    if status:
        found["diff"] = hashlib.sha256(f"{status}\n{uncommitted()}".encode()).hexdigest()[:16]
    return {**found, **hardware()}


def hardware() -> dict[str, str]:
    """Processor type, count and memory of this machine, and the GPUs visible to the driver."""
    found = {"cpu": _first_line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()}
    found["cpus"] = str(usable())
    memory = _first_line("/proc/meminfo", "MemTotal").split()
    if memory:
        found["memory"] = f"{int(memory[0]) / 2**20:.0f} GiB"
    names = sorted(_first_line(str(p / "information"), "Model") for p in Path("/proc/driver/nvidia/gpus").glob("*"))
    if names:
        found["gpus"] = ", ".join(names)
    return found


def uncommitted() -> str:
    """The diff between the working tree and the commit, truncated at 2 MB."""
    return _git("diff", "HEAD")[:LONGEST_DIFF]


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _first_line(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key) and ":" in line), "")
