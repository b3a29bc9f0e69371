"""Figures of a sweep's results."""
