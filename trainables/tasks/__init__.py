"""The bundled tasks, one file each, listed in `trainables.registry.HOMES`."""
