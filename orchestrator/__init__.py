"""Sweeps: sweep files, search, executors, tracking and the command line."""
