"""Weights that the authors' own code reaches on a small problem, and how they were made."""
