"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import affine_games, digits, gan_ring, logistic_game

__all__ = ["affine_games", "digits", "gan_ring", "logistic_game"]
