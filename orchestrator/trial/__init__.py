"""One trial, as run by its worker."""
