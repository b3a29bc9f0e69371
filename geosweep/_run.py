"""Runs a Python script as `python` would, with a witness of its gradients: `python _run.py train.py ARG ..`.

It is named by its path, so that the script's interpreter needs nothing of ours, and needs the standard library alone.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys


def _watch() -> None:
    """Load the hooks from beside this file, under the name that the package has for them."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_hooks.py")
    spec = importlib.util.spec_from_file_location("geosweep._hooks", path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["geosweep._hooks"] = module
    spec.loader.exec_module(module)
    module.witness()


def main() -> None:
    """`_run.py SCRIPT ARG ..` or `_run.py -m MODULE ARG ..`."""
    _watch()
    arguments = sys.argv[1:]
    if arguments[:1] == ["-m"]:
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
