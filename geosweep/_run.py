"""Run a Python script as `python` would, with a witness of its gradients: `python _run.py train.py ARG ..`.

It is run by path and needs only the standard library, so the script's interpreter needs nothing of ours.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import types
from types import TracebackType
from typing import Any


def _watch() -> None:
    """Load the hooks from the file next to this one, under their name in the package."""
    here = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location("geosweep._hooks", os.path.join(here, "_hooks.py"))
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["geosweep._hooks"] = module
    spec.loader.exec_module(module)
    module.witness()
    above = os.path.dirname(here)
    if os.path.basename(above) not in ("site-packages", "dist-packages"):
        sys.path.append(above)  # for a checkout that is not installed: `import geosweep` finds it last


def _without_us(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """Show an exception of the script with only the script's own frames."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.__excepthook__(kind, value.with_traceback(trace), trace)  # it shows what the exception holds


def _run_file(path: str) -> None:
    """Like `python PATH`: its namespace is `__main__`, its folder is first on the path."""
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    main = types.ModuleType("__main__")
    namespace: dict[str, Any] = main.__dict__
    namespace.update(__file__=path, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, namespace)


def main() -> None:
    """`_run.py SCRIPT ARG ..` or `_run.py -m MODULE ARG ..`."""
    _watch()
    sys.excepthook = _without_us
    arguments = sys.argv[1:]
    if arguments[:1] == ["-m"]:
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        _run_file(arguments[0])


if __name__ == "__main__":
    main()
