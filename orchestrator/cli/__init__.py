"""The command `geosweep`: one file for each group of verbs, no logic beyond arguments and printing."""

from orchestrator.cli.app import main

__all__ = ["main"]
