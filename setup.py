"""The packages of the distribution. Folders of files that come along stand inside `geosweep` once it is installed."""

from setuptools import find_packages, setup

ALONG = ("sweeps", "docs", "k8s")

setup(
    packages=[
        *find_packages(include=["optim_core*", "trainables*", "orchestrator*", "geosweep*"]),
        *(f"geosweep.{name}" for name in ALONG),
    ],
    package_dir={f"geosweep.{name}": name for name in ALONG},
)
