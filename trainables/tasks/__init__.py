"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import digits, kronecker

__all__ = ["digits", "kronecker"]
