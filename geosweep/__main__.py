"""`python -m geosweep`: the command, if it is not on the path."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()
