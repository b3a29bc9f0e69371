"""The command `geosweep`: one file per group of verbs, no logic beyond arguments and printing."""

import atexit
import os
import sys

__all__ = ["command", "main"]


def command() -> None:
    """`main` in a process of its own, which ends without taking apart what it has imported: 0.1 s of CPU with torch.

    Everything else happens as at any exit: threads are waited for and what is to run at exit runs, streams are flushed.
    If something other than the command is to run then, the process is taken apart as usual.
    """
    code: int | None = None
    end_process = os._exit  # as it is before code of the user's may call it (`termination.exits_raise`)

    def end() -> None:
        if code is not None:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except (OSError, ValueError, AttributeError):  # told by the interpreter
                return
            end_process(code)

    if not atexit._ncallbacks():
        atexit.register(end)  # the first to be registered is the last to run
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else None
        raise


def main() -> None:
    """Entry point. Ctrl-C ends it with one line while modules are imported, too."""
    try:
        from orchestrator.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
