"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import (
    affine_games,
    digits,
    digits_fit,
    gan_ring,
    images,
    kronecker,
    least_squares,
    logistic_game,
    offset_rotated,
    potholes,
    quadratic,
    stdlib_lm,
    tokens,
)

__all__ = [
    "affine_games",
    "digits",
    "digits_fit",
    "gan_ring",
    "images",
    "kronecker",
    "least_squares",
    "logistic_game",
    "offset_rotated",
    "potholes",
    "quadratic",
    "stdlib_lm",
    "tokens",
]
