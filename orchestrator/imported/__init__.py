"""Results trained elsewhere, as a sweep that can be compared and reported, but not run."""
