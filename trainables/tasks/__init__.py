"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import digits, stdlib_lm

__all__ = ["digits", "stdlib_lm"]
