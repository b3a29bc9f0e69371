"""The command `geosweep`: one file per group of verbs, no logic beyond arguments and printing."""

from orchestrator.cli.app import main

__all__ = ["main"]
