"""Sweeps: the file, the search, the executors, the tracking and the command line."""
