"""Sweep files of other systems, in our words."""
