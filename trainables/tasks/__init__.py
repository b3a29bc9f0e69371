"""The bundled tasks, one file each; `trainables.registry.HOMES` lists them."""
