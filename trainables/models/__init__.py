"""Models of the bundled tasks."""
