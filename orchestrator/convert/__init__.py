"""Sweep files of other systems, converted to ours."""
