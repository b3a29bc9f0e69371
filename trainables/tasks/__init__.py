"""The bundled tasks, one file each; importing this registers them."""

from trainables.tasks import digits, offset_rotated

__all__ = ["digits", "offset_rotated"]
