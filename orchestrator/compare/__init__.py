"""Statistics of paired confirm seeds, with their figures and reports."""
