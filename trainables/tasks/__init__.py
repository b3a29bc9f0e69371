"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import digits, images, stdlib_lm, tokens

__all__ = ["digits", "images", "stdlib_lm", "tokens"]
