"""Which trial comes next, and what its result decides."""
