"""Results that somebody else trained, as a sweep that can be compared and reported, and never run."""
