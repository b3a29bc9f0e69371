"""Optimizers that see parameters as vectors: the SAM family and schedule-free ones."""
