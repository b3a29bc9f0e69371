"""The command `geosweep`: one file per group of verbs, no logic beyond arguments and printing."""

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point. Ctrl-C ends it with one line while modules are imported, too."""
    try:
        from orchestrator.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
