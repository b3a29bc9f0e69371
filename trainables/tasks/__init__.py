"""The bundled tasks, one file each; importing this registers them."""
