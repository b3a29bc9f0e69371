"""`python -m geosweep`: the command, if it is not on the path."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))  # the current folder, which may contain another `orchestrator`
    from orchestrator.cli import command

    command()
