"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import digits, least_squares, potholes, quadratic

__all__ = ["digits", "least_squares", "potholes", "quadratic"]
